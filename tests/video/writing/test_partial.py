"""What is left on the disk when writing stops early, for whatever reason."""

import errno
import io
import os
import re
import signal
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest
import torch

from seedvr2_engine.errors import OutputError
from seedvr2_engine.output import names
from seedvr2_engine.output.unfinished import PartialFile
from seedvr2_engine.video import SinkOptions, open_sink, open_source

from ..made.clips import ClipSpec, ramp, write_clip
from .test_writer import FAST, scene, write_scene


def listed(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_an_existing_file_is_untouched_until_the_end(tmp_path):
    target = tmp_path / "a.mp4"
    target.write_bytes(b"precious")
    with pytest.raises(OutputError, match="exists already"):
        write_scene(target)
    sink = open_sink(target, width=64, height=48, options=SinkOptions(overwrite=True, **FAST))
    sink.write(scene(0))
    assert target.read_bytes() == b"precious"
    assert sink.abort(keep_partial=False) is None
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.mp4"]
    assert target.read_bytes() == b"precious"
    write_scene(target, overwrite=True)
    assert target.read_bytes() != b"precious"


def test_an_aborted_clip_can_be_kept(tmp_path):
    sink = open_sink(tmp_path / "a.mp4", width=64, height=48, options=SinkOptions(**FAST))
    for index in range(7):
        sink.write(scene(index))
    kept = sink.abort(keep_partial=True)
    assert re.fullmatch(r"a\.partial-[0-9a-f]{8}\.mp4", kept.name)
    assert sink.kept == kept
    assert listed(tmp_path) == [kept.name]
    with open_source(kept) as source:
        assert len(list(source)) == 7
    assert sink.abort(keep_partial=True) is None


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt, SystemExit])
def test_an_exception_of_any_kind_keeps_what_was_written(tmp_path, error):
    def fail():
        nonlocal sink
        with open_sink(tmp_path / "a.mp4", width=64, height=48) as sink:
            sink.write(scene(0))
            raise error

    sink = None
    with pytest.raises(error):
        fail()
    assert listed(tmp_path) == [sink.kept.name]
    with open_source(sink.kept) as source:
        assert len(list(source)) == 1


def test_no_frames_is_an_error(tmp_path):
    with pytest.raises(OutputError, match="at least one frame"), open_sink(tmp_path / "a.mp4", width=64, height=48):
        pass
    assert list(tmp_path.iterdir()) == []


def test_what_has_a_partial_s_name_is_left_alone(tmp_path, monkeypatch):
    """Should two runs ever draw the same random name, the second draws again."""
    (tmp_path / "precious").write_text("keep")
    (tmp_path / "a.partial-00.mp4").symlink_to(tmp_path / "precious")
    (tmp_path / "a.partial-01.mp4").write_text("keep")
    (tmp_path / "a.partial.mp4").write_text("keep")
    drawn = iter(["00", "01", "02"])
    monkeypatch.setattr(names.secrets, "token_hex", lambda _: next(drawn))
    write_scene(tmp_path / "a.mp4")
    assert [(tmp_path / name).read_text() for name in ("precious", "a.partial-01.mp4", "a.partial.mp4")] == ["keep"] * 3
    assert len(listed(tmp_path)) == 5


@pytest.mark.parametrize(
    ("name", "left"),
    [
        ("a.mp4", "a.partial-0123abcd.mp4"),
        ("a.png", "a.partial-0123abcd.png"),
        ("frames", "frames.partial-0123abcd"),
        ("there", "there/pictures.partial-0123abcd"),
        ("there", "there/pictures.replaced-0123abcd"),
        (f"{'n' * 250}.mp4", f"{'n' * 234}.partial-0123abcd.mp4"),
    ],
)
def test_what_earlier_runs_have_left_is_named(tmp_path, name, left):
    (tmp_path / "there").mkdir()
    (tmp_path / left).mkdir()
    for other in ("b.partial-0123abcd.mp4", "a.partial-0123ABCD.mp4", "a.partial-0.mp4", "a.partial.mp4", "other"):
        (tmp_path / other).write_text("theirs")
    with open_sink(tmp_path / name, width=64, height=48) as sink:
        sink.write(scene(0))
        (sentence,) = sink.warnings
    assert sentence.startswith("An earlier run was ")
    assert f" in {tmp_path / left}." in sentence
    assert (tmp_path / left).exists()
    assert list(sink.warnings) == [sentence]


@pytest.fixture
def full_disk(monkeypatch):
    """A disk with room for 80,000 bytes, which takes what fits of the last write, as real ones do."""

    class Full(io.FileIO):
        def write(self, data) -> int:
            room = 80_000 - self.tell()
            if room <= 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(memoryview(data)[:room])

    normal = Path.open

    def opened(path, mode="r", *buffering):
        if mode != "xb":
            return normal(path, mode, *buffering)
        return Full(path, mode) if buffering else io.BufferedWriter(Full(path, mode))

    monkeypatch.setattr(Path, "open", opened)


def write_all(sink, frames) -> None:
    with sink:
        for frame in frames:
            sink.write(frame)


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.mkv", "a.webm"])
def test_a_full_disk_gets_one_sentence_and_keeps_what_plays(tmp_path, full_disk, capfd, name):
    frames = torch.rand(60, 3, 96, 160, generator=torch.Generator().manual_seed(1)) * 0.2 + 0.4
    sink = open_sink(tmp_path / name, width=160, height=96)
    with pytest.raises(OutputError, match="the disk is full"):
        write_all(sink, frames)
    assert capfd.readouterr() == ("", "")
    assert listed(tmp_path) == [sink.kept.name]
    with open_source(sink.kept) as source:
        assert len(list(source)) >= 1


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_a_disk_that_takes_no_frame_keeps_nothing(tmp_path, full_disk, name):
    sink = open_sink(tmp_path / name, width=320, height=240, options=SinkOptions(quality=0))
    with pytest.raises(OutputError, match="the disk is full"):
        write_all(sink, torch.rand(8, 3, 240, 320))
    assert sink.kept is None
    assert listed(tmp_path) == []


def test_a_full_disk_keeps_no_half_picture(tmp_path, full_disk):
    noise = torch.rand(1, 3, 360, 640)
    for name in ("a.png", "frames"):
        sink = open_sink(tmp_path / name, width=640, height=360)
        with pytest.raises(OutputError, match="the disk is full"):
            write_all(sink, noise)
    assert listed(tmp_path) == []


def test_an_unwritable_folder_gets_one_sentence(tmp_path, monkeypatch):
    def refuse(self, *_):
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(OutputError, match="not allowed to write here"):
        write_scene(tmp_path / "a.mp4")


def test_a_folder_with_a_clip_s_name_is_refused(tmp_path):
    (tmp_path / "a.mp4").mkdir()
    with pytest.raises(OutputError, match="it is a folder"):
        PartialFile(tmp_path / "a.mp4", overwrite=True)


def forked(folder: Path, work: Callable[[], None]) -> tuple[int, str]:
    """Do something in a fork of this process, which has loaded all it takes; its exit code and what it printed.

    The exit code is minus the signal that ended it, and 2 after an OutputError, which is printed alone.
    """
    said = folder / "said"
    child = os.fork()
    if child == 0:
        code = 1
        try:
            fd = os.open(said, os.O_WRONLY | os.O_CREAT)
            os.dup2(fd, 1)
            os.dup2(fd, 2)
            torch.set_num_threads(1)  # The threads of a pool do not live on in a fork.
            work()
            code = 0
        except OutputError as error:
            os.write(1, str(error).encode())
            code = 2
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    text = said.read_text()
    said.unlink()
    return os.waitstatus_to_exitcode(status), text


def write_noise(path: Path, *, is_killed: bool = False, most_bytes: int | None = None) -> None:
    """120 frames over an existing file, and then a kill, or into a limit of the file's size."""
    if most_bytes is not None:
        import resource

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))
    noise = torch.Generator().manual_seed(0)
    with open_sink(path, width=128, height=96, options=SinkOptions(preset="ultrafast", overwrite=True)) as sink:
        for _ in range(120):
            sink.write(torch.rand(3, 96, 128, generator=noise))
        if is_killed:
            os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs POSIX signals")
@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.mkv"])
def test_a_killed_run_leaves_a_playable_file_and_the_old_one(tmp_path, name):
    (tmp_path / name).write_bytes(b"precious")
    assert forked(tmp_path, lambda: write_noise(tmp_path / name, is_killed=True)) == (-signal.SIGKILL, "")
    assert (tmp_path / name).read_bytes() == b"precious"
    (partial,) = tmp_path.glob("a.partial-*")
    with open_source(partial, damaged="keep") as source:
        assert len(list(source)) >= 90


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs POSIX limits")
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_a_file_size_limit_gets_one_sentence(tmp_path, name):
    (tmp_path / name).write_bytes(b"precious")
    code, said = forked(tmp_path, lambda: write_noise(tmp_path / name, most_bytes=400_000))
    assert code == 2
    assert said == (
        f"{tmp_path / name}: the file grew past what this file system or account allows; write it elsewhere."
    )
    assert (tmp_path / name).read_bytes() == b"precious"
    (kept,) = tmp_path.glob("a.partial-*")
    with open_source(kept) as source:
        assert len(list(source)) >= 1
    assert len(listed(tmp_path)) == 2


@pytest.mark.parametrize(
    ("codec", "name", "most"),
    [
        ("h264", "a.mp4", 18),
        ("h264", "a.mov", 18),
        ("h264", "a.mkv", 22),
        ("h265", "a.mp4", 24),
        ("h265", "a.mkv", 27),
        ("vp9", "a.mp4", 18),
        ("vp9", "a.webm", 18),
        ("av1", "a.mp4", 25),
        ("av1", "a.webm", 26),
        ("ffv1", "a.mkv", 4),
        ("prores", "a.mov", 4),
        ("prores", "a.mkv", 4),
    ],
)
def test_what_a_kill_may_lose_is_bounded_in_frames(tmp_path, codec, name, most):
    """What is in the file at any moment is all that is left after a kill; it depends on no core count, and no clock."""
    sink = open_sink(tmp_path / name, width=64, height=48, options=SinkOptions(codec=codec, preset="medium"))
    (partial,) = tmp_path.glob("a.partial-*")
    copy = tmp_path / f"copy{partial.suffix}"
    for index in range(60):
        sink.write(scene(index % 12))
        if index + 1 in (most + 2, 43, 50, 57):
            copy.write_bytes(partial.read_bytes())
            with open_source(copy, damaged="keep") as source:
                assert index + 1 - sum(1 for _ in source) <= most
    sink.finish()


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.webm"])
def test_sound_that_ends_early_holds_no_frames_back(tmp_path, name):
    """FFmpeg would wait for more of it, for ten seconds of the clip, before it writes a frame."""
    spec = ClipSpec("libx264", "yuv420p", Fraction(10), audio="aac", audio_s=0.5)
    write_clip(tmp_path / "in.mkv", [ramp(index) for index in range(60)], spec)
    with open_source(tmp_path / "in.mkv") as source:
        sink = open_sink(tmp_path / name, width=64, height=48, source=source.info)
        for frame in source:
            sink.write(frame.rgb, pts=frame.pts, duration=frame.duration)
    (partial,) = tmp_path.glob("a.partial-*")
    copy = tmp_path / f"copy{partial.suffix}"
    copy.write_bytes(partial.read_bytes())
    with open_source(copy, damaged="keep") as source:
        assert sum(1 for _ in source) >= 30
    sink.finish()
