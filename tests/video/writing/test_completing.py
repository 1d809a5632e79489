"""What is written into a finished clip before it gets its name: whatever happens there, the frames stay."""

import errno
import io
from fractions import Fraction
from pathlib import Path

import av
import pytest

from seedvr2_engine.errors import OutputError
from seedvr2_engine.video import SinkOptions, open_sink, open_source
from seedvr2_engine.video.writing import clip_writer

from ..made.clips import ClipSpec, noise, write_clip
from ..streams.test_travelling import full_clip

FRAMES = 3
ASPECT = Fraction(16, 11)


@pytest.fixture
def with_cover(tmp_path):
    return full_clip(tmp_path / "source.mkv")


@pytest.fixture
def with_aspect(tmp_path):
    spec = ClipSpec(codec="libx264", pix_fmt="yuv420p", aspect=ASPECT)
    return write_clip(tmp_path / "source.mp4", noise(FRAMES, 32, 32), spec)


def opened(path: Path, target: Path):
    """A sink that has taken every frame of a clip."""
    with open_source(path) as source:
        sink = open_sink(target, width=32, height=32, source=source.info, options=SinkOptions(preset="ultrafast"))
        for frame in source:
            sink.write(frame.rgb, pts=frame.pts, duration=frame.duration)
    return sink


def facts(path: Path):
    """Frames, covers, and the pixel aspect."""
    with av.open(str(path)) as container:
        video = container.streams.video[0]
        covers = [s for s in container.streams.video if s.disposition & av.stream.Disposition.attached_pic]
        aspect = video.sample_aspect_ratio
        return sum(1 for _ in container.decode(video)), len(covers), aspect


@pytest.fixture
def failing(monkeypatch):
    """Has writing into an existing file fail at the write of a number, of which half gets there if it is a long one."""

    def at(number: int, error: BaseException) -> list[int]:
        written: list[int] = []

        class Failing(io.FileIO):
            def write(self, data) -> int:
                written.append(len(data))
                if len(written) == number:
                    if len(data) > 8:
                        super().write(memoryview(data)[: len(data) // 2])
                    raise error
                return super().write(data)

        normal = Path.open

        def open_file(path, mode="r", buffering=-1, *rest):
            if mode != "r+b":
                return normal(path, mode, buffering, *rest)
            raw = Failing(path, mode)
            return raw if buffering == 0 else io.BufferedRandom(raw)

        monkeypatch.setattr(Path, "open", open_file)
        return written

    return at


def test_a_clip_that_does_not_get_its_name_is_completed_once(tmp_path, with_aspect, with_cover):
    for source, name, expected in ((with_aspect, "a.mkv", (FRAMES, 0, ASPECT)), (with_cover, "a.mp4", (FRAMES, 1, 1))):
        target = tmp_path / name
        sink = opened(source, target)
        before = list(sink.warnings)
        target.write_bytes(b"theirs")
        with pytest.raises(OutputError, match="in the meantime"):
            sink.finish()
        assert facts(sink.kept) == expected
        assert sink.warnings == before


def test_a_cover_without_room_is_left_out(tmp_path, with_cover, failing):
    written = failing(1, OSError(errno.ENOSPC, "No space left on device"))
    sink = opened(with_cover, tmp_path / "a.mp4")
    sink.finish()
    assert written
    assert facts(tmp_path / "a.mp4") == (FRAMES, 0, 1)
    assert "The cover art is left out, because the disk or the file's index has no room for it." in sink.warnings


class Killed(BaseException):
    """Stands for the end of the process at this point."""


@pytest.mark.parametrize("number", [1, 2])
def test_a_process_that_dies_while_it_adds_a_cover_leaves_every_frame(tmp_path, with_cover, failing, number):
    sink = opened(with_cover, tmp_path / "a.mp4")
    (partial,) = tmp_path.glob("a.partial-*")
    written = failing(number, Killed())
    with pytest.raises(Killed):
        sink.finish()
    assert len(written) == number
    assert facts(partial)[0] == FRAMES


def test_a_disk_that_fails_at_the_pixel_aspect_costs_no_frame(tmp_path, with_aspect, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EIO, "Input/output error")

    sink = opened(with_aspect, tmp_path / "a.mkv")
    monkeypatch.setattr(clip_writer, "set_display_size", refuse)
    with pytest.raises(OutputError, match="Input/output error"):
        sink.finish()
    assert facts(sink.kept)[0] == FRAMES
