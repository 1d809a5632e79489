"""What containers claim is believed as far as the program that wrote it can know it."""

from fractions import Fraction
from types import SimpleNamespace

import pytest

from seedvr2_engine.video import open_source
from seedvr2_engine.video.info import Crop
from seedvr2_engine.video.reading import clip_frames, probe
from seedvr2_engine.video.reading.container import promises
from seedvr2_engine.video.reading.container.counted import PacketScan
from seedvr2_engine.video.reading.container.matroska import VideoTrack

from ..made.clips import ClipSpec, ramp, write_clip


def file_by(encoder: str, name: str = "matroska,webm"):
    return SimpleNamespace(metadata={"encoder": encoder}, format=SimpleNamespace(name=name))


@pytest.mark.parametrize(
    ("encoder", "text", "count"),
    [
        ("libebml v1.4.4 + libmatroska v1.7.1", "250", 250),
        ("Lavf61.7.100", "250", 0),
        ("", "250", 0),
        ("libebml v1.4.4", "many", 0),
        ("libebml v1.4.4", "9" * 12, 0),
    ],
)
def test_mkvmerge_alone_counts_pictures(encoder, text, count):
    stream = SimpleNamespace(metadata={"NUMBER_OF_FRAMES": text})
    assert promises._tagged_frames(file_by(encoder), stream) == count


@pytest.mark.parametrize(
    ("length", "end_s", "missing"),
    [
        ("00:00:02.000000000", 2.0, 0),
        ("00:00:02.000000000", 1.972, 0),
        ("00:00:02.000000000", 1.968, 1),
        ("00:00:02.000000000", 1.0, 25),
        ("01:02:03.040000000", 3723.0, 1),
        ("01:02:03.040000000", 3600.0, 3076),
        ("two seconds", 1.0, 0),
    ],
)
def test_ffmpeg_says_how_long_its_matroska_files_are(length, end_s, missing):
    tick = Fraction(1, 1000)
    scan = PacketScan(50, 0, round(end_s * 1000), 40, 40)
    stream = SimpleNamespace(metadata={"DURATION": length})
    assert promises._missing_at_end(file_by("Lavf61.7.100"), stream, scan, tick) == missing
    assert promises._missing_at_end(file_by("libebml v1.4.4"), stream, scan, tick) == 0
    assert promises._missing_at_end(file_by("Lavf61.7.100", "avi"), stream, scan, tick) == 0


@pytest.mark.parametrize(
    ("claimed", "rate"), [(24, 24), (240, 240), (3, 3), (251, 25), (Fraction(5, 2), 25), (None, 25)]
)
def test_a_rate_ten_times_that_of_the_frames_is_none(claimed, rate):
    scan = PacketScan(50, 0, 50, 1, 1)
    assert probe._checked_rate(None if claimed is None else Fraction(claimed), scan, Fraction(1, 25)) == rate


@pytest.mark.parametrize(
    ("width", "crop", "kept"),
    [
        (64, Crop(left=8, bottom=4), True),
        (32, Crop(left=8, bottom=4), False),  # Of another picture than the stream's.
        (64, Crop(left=32, right=32), False),
    ],
)
def test_a_crop_is_that_of_the_stored_picture_and_leaves_some(tmp_path, monkeypatch, width, crop, kept):
    path = write_clip(tmp_path / "a.mkv", [ramp(0)], ClipSpec("ffv1", "bgr0"))
    monkeypatch.setattr(probe, "video_tracks", lambda _: [VideoTrack(width, 48, crop)])
    assert open_source(path).info.crop == (crop if kept else Crop())


def test_times_that_do_not_rise_are_moved_and_that_is_said(tmp_path, monkeypatch):
    path = write_clip(tmp_path / "a.mkv", [ramp(index) for index in range(5)], ClipSpec("ffv1", "bgr0"))
    decoded = clip_frames._decoded

    def confused(*how):
        for frame, frame.pts in zip(decoded(*how), (0, 50, 50, 30, 90), strict=True):
            yield frame

    monkeypatch.setattr(clip_frames, "_decoded", confused)
    with open_source(path, deinterlace="off", detelecine="off") as source:
        assert [frame.pts for frame in source] == [0, 50, 51, 52, 90]
    assert source.warnings == ["2 frames had a time that does not come after the frame before; moved right behind it."]
