"""Jobs of many files: one that fails is one sentence, and what is done stays done."""

import json
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from seedvr2_engine.cli.failures import sentence_of
from seedvr2_engine.cli.upscaling import jobs
from seedvr2_engine.cli.upscaling.files import Job, Request, Result, jobs_for
from seedvr2_engine.device import is_out_of_memory
from seedvr2_engine.errors import CheckpointError, InvalidArgumentError, OutputError, VideoError
from seedvr2_engine.pipeline.setup import Setup
from seedvr2_engine.video import SinkOptions, open_sink

from .test_commands import refused, seedvr2

CPU_MEMORY = "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried ..."
NAMES = ("a.mkv", "b.mkv", "c.mkv")


@pytest.fixture
def folder(tmp_path) -> Path:
    made = tmp_path / "in"
    made.mkdir()
    for name in NAMES:
        with open_sink(made / name, width=32, height=24, options=SinkOptions(codec="ffv1")) as sink:
            sink.write(torch.rand(3, 24, 32))
    return made


class Ran(list):
    """Names of the inputs that were upscaled."""

    def __init__(self) -> None:
        super().__init__()
        self.fails: dict[str, BaseException] = {}
        """What is raised for an input."""

    def run(self, job: Job, request: Request) -> Result:
        """Instead of upscaling, copy."""
        name = Path(job.source).name
        if name in self.fails:
            raise self.fails[name]
        if job.target.exists() and job.target.stat().st_size and not request.sink.overwrite:
            raise OutputError(f"{job.target}: exists.")
        job.target.write_bytes(Path(job.source).read_bytes())
        self.append(name)
        return Result(job.target, 1, (32, 24), (32, 24), 1, 0, 0.0)


@pytest.fixture
def ran(monkeypatch) -> Ran:
    made = Ran()
    monkeypatch.setattr(jobs, "run_job", made.run)
    return made


@pytest.mark.parametrize(
    ("error", "words", "code"),
    [
        (ValueError("0 channels"), "unexpected ValueError (0 channels); this is a fault of this program", 2),
        (RuntimeError(CPU_MEMORY), "expected enough free memory", 2),
        (MemoryError(), "expected enough free memory", 2),
        (VideoError("b.mkv: damaged."), "error: b.mkv: damaged.", 2),
        (OSError(28, "No space left on device", "x"), "x: No space left on device.", 2),
        (UnicodeEncodeError("ascii", "\xe9", 0, 1, "no"), "unexpected UnicodeEncodeError", 2),
        (ImportError("libx.so"), "cannot be loaded (libx.so)", 2),
        (AssertionError(), "unexpected AssertionError (no more is known)", 2),
        (RecursionError("maximum"), "unexpected RecursionError", 2),
    ],
)
def test_whatever_one_file_raises_the_others_are_done(error, words, code, folder, ran, models, tmp_path):
    ran.fails["b.mkv"] = error
    result = seedvr2("upscale", folder, tmp_path / "out", *models)
    assert result.exit_code == code
    assert list(ran) == ["a.mkv", "c.mkv"]
    assert words in result.stderr
    assert "Traceback" not in result.stderr
    assert "error: 1 of 3 inputs failed; 2 done, 0 skipped." in result.stderr
    assert "b.mkv" in next(line for line in result.stderr.splitlines() if words in line)


def test_a_second_run_does_what_is_left_and_exits_with_0(folder, ran, models, tmp_path):
    target = tmp_path / "out"
    ran.fails["b.mkv"] = VideoError("b.mkv: damaged.")
    assert seedvr2("upscale", folder, target, *models).exit_code == 2
    del ran.fails["b.mkv"], ran[:]
    result = seedvr2("upscale", folder, target, *models)
    assert (result.exit_code, list(ran)) == (0, ["b.mkv"])
    assert "1 done, 2 skipped (the output is there; --overwrite does it again)." in result.stderr
    del ran[:]
    result = seedvr2("upscale", folder, target, *models, "--json")
    assert (result.exit_code, list(ran)) == (0, [])
    assert [fact["status"] for fact in json.loads(result.stdout)] == ["skipped"] * 3
    result = seedvr2("upscale", folder, target, *models, "--overwrite")
    assert (result.exit_code, list(ran)) == (0, list(NAMES))


def test_what_is_no_result_is_not_skipped(folder, ran, models, tmp_path):
    target = tmp_path / "out"
    target.mkdir()
    (target / "a.mkv").touch()
    assert "3 done, 0 skipped" in seedvr2("upscale", folder, target, *models).stderr
    # Into its own folder nothing is done, whatever lies there.
    result = seedvr2("upscale", folder, folder, *models)
    assert result.exit_code == 2
    assert "3 of 3 inputs failed; 0 done, 0 skipped" in result.stderr


def test_an_error_of_the_models_ends_all_at_once(folder, ran, models, tmp_path):
    ran.fails |= dict.fromkeys(NAMES, CheckpointError("dit.gguf: changed."))
    assert refused("upscale", folder, tmp_path / "out", *models) == "dit.gguf: changed."


def test_ctrl_c_ends_all_and_says_what_was_done(folder, ran, models, tmp_path):
    ran.fails["b.mkv"] = KeyboardInterrupt()
    result = seedvr2("upscale", folder, tmp_path / "out", *models)
    assert result.exit_code == 130
    assert list(ran) == ["a.mkv"]
    assert "1 done, 0 skipped, 0 failed, 2 not begun or not finished." in result.stderr


def test_the_only_job_keeps_its_exit_code(folder, ran, models, tmp_path):
    ran.fails["a.mkv"] = KeyError("x")
    result = seedvr2("upscale", folder / "a.mkv", tmp_path / "o.mkv", *models)
    assert result.exit_code == 1
    assert "please report it" in result.stderr
    assert "Traceback" not in result.stderr


def test_the_plan_goes_on_after_a_file_that_cannot_be_read(folder, models, tmp_path):
    (folder / "b.mkv").write_text("no clip")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.mkv").write_bytes(b"done")
    result = seedvr2("upscale", folder, tmp_path / "out", *models, "--plan")
    assert result.exit_code == 2
    assert result.stdout.count("32x24 to") == 2
    assert result.stderr.count("so this input would be skipped") == 1
    assert "1 of 3 inputs cannot be upscaled" in result.stderr


@pytest.mark.parametrize(("memory_bytes", "is_said"), [(10**6, True), (10**12, False)])
def test_a_plan_beyond_the_memory_is_said(memory_bytes, is_said, folder, models, tmp_path, monkeypatch):
    monkeypatch.setattr("seedvr2_engine.pipeline.setup.total_memory_bytes", lambda _: memory_bytes)
    result = seedvr2("upscale", folder / "a.mkv", tmp_path / "o.mkv", *models, "--scale", "1", "--plan")
    assert result.exit_code == 0, result.stderr
    assert ("this takes more memory than cpu has" in " ".join(result.stderr.split())) == is_said


def test_two_clips_that_would_get_one_name_are_refused(folder, tmp_path):
    for name in ("a.avi", "a.nut"):
        (folder / name).write_bytes((folder / "a.mkv").read_bytes())
    (folder / "a.mkv").unlink()
    with pytest.raises(InvalidArgumentError, match=r"expected clips of different names, found two for a\.mkv"):
        jobs_for(str(folder), tmp_path / "out")
    (folder / "a.nut").unlink()
    assert [job.target.name for job in jobs_for(str(folder), tmp_path / "out")] == list(NAMES)


def test_too_little_memory_is_said_with_an_estimate(folder, models, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError(CPU_MEMORY)

    monkeypatch.setattr("seedvr2_engine.pipeline.upscaler._through_clip", fail)
    sentence = refused("upscale", folder / "a.mkv", tmp_path / "o.mkv", *models, "--scale", "1", "--vae-span", "clip")
    assert "expected this machine to have about" in sentence
    assert "MB of memory free for chunks of up to" in sentence


def test_what_is_too_little_memory():
    assert is_out_of_memory(RuntimeError(CPU_MEMORY))
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("shapes differ"))


def test_what_a_library_makes_of_ctrl_c_is_ctrl_c():
    try:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt as interrupt:
            raise ImportError("initialization failed") from interrupt
    except ImportError as error:
        with pytest.raises(KeyboardInterrupt):
            sentence_of(error)


def test_models_are_loaded_ahead_where_something_is_to_be_done(folder, ran, models, tmp_path, monkeypatch):
    begun = []

    @contextmanager
    def beginning(self):
        begun.append(True)
        yield self

    monkeypatch.setattr(Setup, "beginning", beginning)
    target = tmp_path / "out"
    assert seedvr2("upscale", folder, target, *models).exit_code == 0
    assert len(begun) == 1
    assert seedvr2("upscale", folder, target, *models).exit_code == 0
    assert len(begun) == 1
    assert seedvr2("upscale", folder, target, *models, "--overwrite").exit_code == 0
    assert len(begun) == 2
