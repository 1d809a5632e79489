"""Sequences: which names an output means, which pictures are replaced, and what is left when that breaks off."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from seedvr2_engine.errors import OutputError, VideoError
from seedvr2_engine.video import SinkOptions, open_sink, open_source
from seedvr2_engine.video.writing.clip_writer import VideoSink
from seedvr2_engine.video.writing.pictures import picture_sinks
from seedvr2_engine.video.writing.pictures.picture_names import numbered
from seedvr2_engine.video.writing.pictures.picture_sinks import PictureSink, SequenceSink

from .test_writer import write_scene

NEW = torch.ones(3, 8, 8)


def filled(folder: Path, values: dict[str, bytes]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, data in values.items():
        (folder / name).write_bytes(data)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {entry.name: entry.read_bytes() for entry in folder.iterdir()}


def write(path: Path, count: int, **options) -> SequenceSink:
    sink = open_sink(path, width=8, height=8, options=SinkOptions(**options))
    with sink:
        for _ in range(count):
            sink.write(NEW)
    return sink


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("R 100%.mp4", VideoSink),
        ("take%d.mp4", VideoSink),
        ("%s.mkv", VideoSink),
        ("100%.png", PictureSink),
        ("a%x.png", PictureSink),
        ("%05d.png", SequenceSink),
        ("50% a_%03d.tif", SequenceSink),
        ("frames", SequenceSink),
        ("100%", SequenceSink),
    ],
)
def test_what_a_name_means(tmp_path, name, kind):
    sink = open_sink(tmp_path / name, width=8, height=8)
    assert type(sink) is kind
    sink.write(NEW)
    sink.finish()
    assert (tmp_path / name).exists() or type(sink) is SequenceSink
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("name", ["a_%05d", "a_%05d.xyz", "%d_%d.png", "%99d.png", "a.xyz"])
def test_odd_names_get_a_sentence(tmp_path, name):
    with pytest.raises((OutputError, VideoError), match="expected"):
        open_sink(tmp_path / name, width=8, height=8)
    assert list(tmp_path.iterdir()) == []


def test_folders_and_files_of_the_wrong_name(tmp_path):
    (tmp_path / "a.mp4").mkdir()
    (tmp_path / "a.png").mkdir()
    (tmp_path / "file").touch()
    for name in ("a.mp4", "a.png", "file"):
        with pytest.raises(OutputError, match="folder"):
            open_sink(tmp_path / name, width=8, height=8, options=SinkOptions(overwrite=True))


def test_only_the_names_that_are_written_are_replaced(tmp_path):
    old = {"000001.png": b"1", "000002.png": b"2", "000003.png": b"3", "7.png": b"7", "20231224.png": b"x"}
    folder = filled(tmp_path / "frames", old)
    sink = write(folder, 2, overwrite=True)
    after = contents(folder)
    assert {name for name, data in after.items() if data != old.get(name)} == {"000001.png", "000002.png"}
    assert sorted(after) == sorted(old)
    assert "2 other pictures of the same pattern stay" in sink.warnings[-1]


def test_pictures_that_no_frame_gets_are_no_reason_to_refuse(tmp_path):
    folder = filled(tmp_path / "frames", {"7.png": b"7", "20231224.png": b"x"})
    write_scene(tmp_path / "a.mkv", 2, (64, 48))
    with open_source(tmp_path / "a.mkv") as source:
        info = source.info
    with open_sink(folder, width=8, height=8, source=info) as sink:
        sink.write(NEW)
    assert sorted(contents(folder)) == ["000001.png", "20231224.png", "7.png"]
    with pytest.raises(OutputError, match="such pictures exist already"):
        open_sink(folder, width=8, height=8, source=info)


@pytest.mark.parametrize("failing", range(1, 7))
def test_a_replacement_that_fails_puts_everything_back(tmp_path, monkeypatch, failing):
    old = {f"00000{i}.png": b"old" for i in (1, 2, 3)}
    folder = filled(tmp_path / "frames", old)
    normal, calls = picture_sinks.place_new, []

    def place_new(path, target):
        calls.append(path)
        if len(calls) == failing:
            raise OSError(errno.EIO, "Input/output error")
        normal(path, target)

    sink = open_sink(folder, width=8, height=8, options=SinkOptions(overwrite=True))
    for _ in range(3):
        sink.write(NEW)
    monkeypatch.setattr(picture_sinks, "place_new", place_new)
    with pytest.raises(OutputError, match="writing failed"):
        sink.finish()
    assert {name: data for name, data in old.items() if (folder / name).read_bytes() == data} == old
    assert sorted(contents(sink.kept)) == sorted(old)
    assert sorted(p.name for p in folder.iterdir()) == sorted([*old, sink.kept.name])


KILLED = """
import os, signal, sys, torch
from seedvr2_engine.video import SinkOptions, open_sink
from seedvr2_engine.video.writing.pictures import picture_sinks
normal, calls = picture_sinks.place_new, []
def place_new(path, target):
    calls.append(path)
    if len(calls) == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    normal(path, target)
picture_sinks.place_new = place_new
with open_sink(sys.argv[1], width=8, height=8, options=SinkOptions(overwrite=True)) as sink:
    for _ in range(3):
        sink.write(torch.ones(3, 8, 8))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_a_kill_in_the_midst_of_a_replacement_loses_neither_old_nor_new(tmp_path):
    folder = filled(tmp_path / "frames", {f"00000{i}.png": b"old" for i in (1, 2, 3)})
    done = subprocess.run([sys.executable, "-c", KILLED, str(folder)], check=False)
    assert done.returncode == -signal.SIGKILL
    everything = [path.read_bytes() for path in folder.rglob("*.png")]
    assert everything.count(b"old") == 3
    assert len(everything) == 6
    (aside,) = folder.glob("pictures.replaced-*")
    assert list(contents(aside)) == ["000001.png", "000002.png"] or len(contents(aside)) == 2


def test_a_folder_that_appeared_meanwhile_is_filled_and_not_replaced(tmp_path):
    sink = open_sink(tmp_path / "frames", width=8, height=8)
    sink.write(NEW)
    filled(tmp_path / "frames", {"mine.txt": b"keep"})
    sink.finish()
    assert sorted(contents(tmp_path / "frames")) == ["000001.png", "mine.txt"]


def test_a_picture_that_appeared_meanwhile_stays(tmp_path):
    sink = open_sink(tmp_path / "frames", width=8, height=8)
    sink.write(NEW)
    filled(tmp_path / "frames", {"000001.png": b"theirs"})
    with pytest.raises(OutputError, match="appeared in the meantime"):
        sink.finish()
    assert contents(tmp_path / "frames") == {"000001.png": b"theirs"}
    assert list(contents(sink.kept)) == ["000001.png"]


def test_a_second_run_into_the_folder_is_told(tmp_path):
    sink = open_sink(tmp_path / "a_%03d.png", width=8, height=8)
    with pytest.raises(OutputError, match=f"process {os.getpid()} on"):
        open_sink(tmp_path / "a_%03d.png", width=8, height=8)
    open_sink(tmp_path / "b_%03d.png", width=8, height=8).abort(keep_partial=False)
    sink.abort(keep_partial=False)
    assert list(tmp_path.iterdir()) == []


def test_a_kept_sequence_is_left_alone_by_the_next_run(tmp_path):
    sink = open_sink(tmp_path / "frames", width=8, height=8)
    sink.write(NEW)
    kept = sink.abort(keep_partial=True)
    write(tmp_path / "frames", 2)
    assert list(contents(kept)) == ["000001.png"]


def test_numbers_in_patterns():
    assert [numbered(p, 7) for p in ("a%d.png", "%04d.png", "100% %03d.png")] == ["a7.png", "0007.png", "100% 007.png"]
