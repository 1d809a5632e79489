"""The same bytes, however often a job was broken off, and sentences for what is another job."""

import json
import multiprocessing
from dataclasses import replace

import pytest
import torch

from seedvr2_engine.errors import InvalidArgumentError, JobError, OutputError
from seedvr2_engine.jobs.folder.job_folder import JobFolder, folder_for
from seedvr2_engine.jobs.run import devices_of, run_job
from seedvr2_engine.jobs.running.events import Finished, Planned, Remarked, UnitFailed, UnitFinished, UnitStarted
from seedvr2_engine.jobs.running.executors import OneDevice
from seedvr2_engine.jobs.running.processes import Processes
from seedvr2_engine.video import SinkOptions, open_sink, open_source

from .made import FRAMES, SHOTS, job, stand_in, write_clip


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("job") / "in.mkv")


class StoppedError(Exception):
    """Raised after some units."""


def run(asked, *, stop_after=None, load=stand_in, **named):
    """Run a job; its events."""
    events, seen = [], 0

    def take(event):
        nonlocal seen
        events.append(event)
        seen += isinstance(event, UnitFinished)
        if stop_after is not None and seen > stop_after:
            raise StoppedError

    named = named or {"executor": OneDevice("cpu", load)}
    if stop_after is None:
        run_job(asked, devices=("cpu",), on_event=take, **named)
    else:
        with pytest.raises(StoppedError):
            run_job(asked, devices=("cpu",), on_event=take, **named)
    return events


def of(events, kind):
    return [event for event in events if isinstance(event, kind)]


@pytest.mark.parametrize("shots", [None, SHOTS])
@pytest.mark.parametrize("ending", [".mkv", ".mp4", ""])
def test_a_job_that_is_broken_off_ends_with_the_same_bytes(ending, shots, clip, tmp_path):
    def contents(path):
        return path.read_bytes() if path.is_file() else [one.read_bytes() for one in sorted(path.iterdir())]

    once = tmp_path / f"once{ending}"
    run(job(clip, once, shots=shots))
    again = job(clip, tmp_path / f"again{ending}", shots=shots)
    run(again, stop_after=1)
    folder = folder_for(again.target)
    kept = len(list(folder.glob("unit-*")))
    assert kept >= 1
    assert not again.target.exists()
    events = run(again)
    assert of(events, Planned)[0].finished_units == kept
    assert contents(again.target) == contents(once)
    assert not folder.exists()
    # Where the unit before was not computed just now, more is read.
    assert any(event.warm_up_frames for event in of(events, UnitStarted)) or shots is not None


def test_units_give_what_a_run_without_them_gives(clip, tmp_path):
    asked = job(clip, tmp_path / "out.mkv")
    asked = replace(asked, sink=replace(asked.sink, codec="ffv1"))
    run(asked)
    with open_source(clip) as source, open_source(asked.target) as made:
        assert len(made) == FRAMES
        coded = list(source.coded())
        assert [frame.pts for frame in coded] == [frame.pts for frame in made]
    with (
        open_source(clip) as source,
        open_sink(tmp_path / "whole.mkv", width=32, height=24, source=source.info, options=asked.sink) as sink,
    ):
        passed = stand_in(asked.options).upscale(source.coded(), encoded=sink.coding.of_picture)
        for frame, codes in zip(coded, passed, strict=True):
            sink.write_coded(codes, pts=frame.pts, duration=frame.duration)
    assert (tmp_path / "whole.mkv").read_bytes() == asked.target.read_bytes()


def test_a_shot_knows_nothing_of_the_shot_before(clip, tmp_path):
    """And with its cut left out it does."""
    other = write_clip(tmp_path / "other.mkv", seed=1.0)
    mixed = tmp_path / "mixed.mkv"
    with (
        open_sink(mixed, width=32, height=24, options=SinkOptions(codec="ffv1")) as sink,
        open_source(other) as first,
        open_source(clip) as second,
    ):
        for number, (before, after) in enumerate(zip(first, second, strict=True)):
            sink.write(before.rgb if number < 22 else after.rgb)

    def tail(source, shots):
        asked = job(source, tmp_path / "out.mkv", shots=shots)
        asked = replace(asked, sink=replace(asked.sink, codec="ffv1", overwrite=True))
        run(asked)
        with open_source(asked.target) as frames:
            return torch.stack([frame.rgb for frame in frames][22:])

    assert torch.equal(tail(clip, SHOTS), tail(mixed, SHOTS))
    assert not torch.equal(tail(clip, None), tail(mixed, None))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"options": {"seed": 7}}, "seed was 42 and is 7 now"),
        ({"options": {"resolution": 32, "scale": None}}, "resolution was not given and is 32 now"),
        ({"shots": SHOTS}, "its 1 shots are not the 2 of now"),
        ({"unit_frames": 12}, "unit frames was 8 and is 12 now"),
    ],
)
def test_another_job_is_refused_with_the_difference(change, words, clip, tmp_path):
    run(job(clip, tmp_path / "out.mkv"), stop_after=1)
    with pytest.raises(InvalidArgumentError, match=words):
        run(job(clip, tmp_path / "out.mkv", **change))
    run(job(clip, tmp_path / "out.mkv", restart=True, **change))


def test_a_source_or_a_model_that_changed_is_refused(tmp_path):
    source = write_clip(tmp_path / "in.mkv")
    asked = job(source, tmp_path / "out.mkv")
    run(asked, stop_after=1)
    write_clip(tmp_path / "in2.mkv", seed=0.5).replace(source)
    with pytest.raises(InvalidArgumentError, match=r"the source in.mkv has changed since; run that one's command, or"):
        run(asked)
    write_clip(source.with_name("again.mkv")).replace(source)
    model = tmp_path / "text.gguf"
    model.write_bytes(asked.models.text.read_bytes() + b"\0")
    with pytest.raises(InvalidArgumentError, match=r"has changed since"):
        run(replace(asked, models=replace(asked.models, text=model)))


def test_another_number_of_threads_or_version_is_said(clip, tmp_path):
    asked = job(clip, tmp_path / "out.mkv")
    run(asked, stop_after=1)
    manifest = folder_for(asked.target) / "job.json"
    facts = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**facts, "versions": {"seedvr2": "0.1"}, "gpus": ["sm_90"]}))
    told = " ".join(event.sentence for event in of(run(asked), Remarked))
    assert "it was begun with seedvr2 0.1, and this is seedvr2" in told
    assert "it was begun on sm_90, and cpu with 1 thread computes other last bits." in told


def test_a_folder_of_a_later_version_or_of_others_is_left_alone(clip, tmp_path):
    asked = job(clip, tmp_path / "out.mkv")
    run(asked, stop_after=1)
    manifest = folder_for(asked.target) / "job.json"
    facts = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**facts, "version": 2}))
    with pytest.raises(InvalidArgumentError, match="expected a job of version 1 or earlier, found 2"):
        run(asked)
    manifest.write_text("{")
    with pytest.raises(InvalidArgumentError, match="found a damaged file; use --restart"):
        run(asked)
    assert list(manifest.parent.glob("unit-*"))
    other = folder_for(tmp_path / "other.mkv")
    other.mkdir()
    (other / "mine.txt").write_text("mine")
    with pytest.raises(OutputError, match="found one with other files"):
        run(replace(asked, target=tmp_path / "other.mkv"))
    assert (other / "mine.txt").read_text() == "mine"


def test_two_runs_of_one_job_do_not_meet(clip, tmp_path):
    asked = job(clip, tmp_path / "out.mkv")
    with JobFolder(folder_for(asked.target)), pytest.raises(OutputError, match="is writing it; wait until"):
        run(asked)
    run(asked)


def test_a_damaged_unit_is_made_anew(clip, tmp_path):
    asked = job(clip, tmp_path / "out.mkv")
    run(asked, stop_after=2)
    unit = min(folder_for(asked.target).glob("unit-*"))
    unit.write_bytes(unit.read_bytes()[:-3] + b"...")
    events = run(asked)
    assert "this unit is damaged; it is made anew" in of(events, Remarked)[0].sentence
    run(job(clip, tmp_path / "once.mkv"))
    assert asked.target.read_bytes() == (tmp_path / "once.mkv").read_bytes()


def test_what_is_kept_and_what_is_left(clip, tmp_path):
    asked = job(clip, tmp_path / "out.mkv", keeps_folder=True)
    events = run(asked)
    assert isinstance(events[-1], Finished)
    assert folder_for(asked.target).is_dir()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.mkv", "out.mkv.job"]
    fails = job(clip, tmp_path / "none.mkv")

    def load(options):
        raise RuntimeError("no models")

    with pytest.raises(RuntimeError, match="no models"):
        run(fails, load=load)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.mkv", "out.mkv.job"]


def test_a_job_that_was_killed_at_its_very_end_is_finished(clip, tmp_path):
    asked = job(clip, tmp_path / "out.mkv", keeps_folder=True)
    run(asked)
    data = asked.target.read_bytes()
    note = folder_for(asked.target) / "joining"
    assert note.read_text().startswith("out.partial-")
    events = run(asked)
    assert "an earlier run finished it" in of(events, Remarked)[0].sentence
    assert not of(events, UnitStarted)
    assert asked.target.read_bytes() == data
    assert not folder_for(asked.target).exists()
    # Without such a folder it is an output like any other.
    with pytest.raises(OutputError, match="it exists already"):
        run(asked)


def test_what_a_killed_run_has_begun_to_write_is_removed(clip, tmp_path):
    asked = job(clip, tmp_path / "out.mkv")
    run(asked, stop_after=1)
    left = tmp_path / "out.partial-0123abcd.mkv"
    left.write_bytes(b"half")
    other = tmp_path / "out.partial-89abcdef.mkv"
    other.write_bytes(b"another run's")
    (folder_for(asked.target) / "joining").write_text(left.name)
    run(asked)
    assert not left.exists()
    assert other.read_bytes() == b"another run's"


def test_devices_are_named_once():
    assert devices_of("cpu,cpu") == ("cpu", "cpu")
    with pytest.raises(InvalidArgumentError, match="device: expected auto"):
        devices_of("gpu9")
    if not torch.cuda.is_available():
        with pytest.raises(InvalidArgumentError, match="expected CUDA GPUs for `all`, found none"):
            devices_of("all")


def test_two_processes_give_the_bytes_of_one(clip, tmp_path):
    """The small models, with a process that is killed in the midst of a unit and replaced."""
    small = {"options": {"resolution": 16, "scale": None}, "shots": SHOTS}
    once = job(clip, tmp_path / "once.mp4", **small)
    run_job(once, devices=("cpu",))
    workers = Processes(("cpu", "cpu"))
    events = []

    def take(event):
        events.append(event)
        if isinstance(event, UnitStarted) and event.unit == 2 and not of(events, UnitFailed):
            process = next(one for one in multiprocessing.active_children() if one.name.endswith(event.device))
            process.kill()

    run_job(job(clip, tmp_path / "twice.mp4", **small), devices=("cpu", "cpu"), on_event=take, executor=workers)
    failed = of(events, UnitFailed)
    assert [(one.unit, one.attempt) for one in failed] == [(2, 1)]
    assert "ended by signal 9" in failed[0].reason
    assert {one.device for one in of(events, UnitFinished)} == {"cpu (1)", "cpu (2)"}
    assert (tmp_path / "twice.mp4").read_bytes() == once.target.read_bytes()


def test_a_process_that_says_nothing_is_replaced_three_times(clip, tmp_path):
    events = []
    with pytest.raises(JobError, match="3 attempts failed, the last one with: the process of cpu told nothing for"):
        run_job(
            job(clip, tmp_path / "out.mp4"),
            devices=("cpu",),
            on_event=events.append,
            executor=Processes(("cpu",), hang_s=0.05),
        )
    assert len(of(events, UnitFailed)) == 2
