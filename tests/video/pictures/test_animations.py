"""Animated pictures as outputs."""

import numpy as np
import pytest
import torch
from PIL import Image

from seedvr2_engine.errors import OutputError, VideoError
from seedvr2_engine.video import SinkOptions, open_sink, open_source

from ..made.clips import ClipSpec, ramp, write_clip
from ..made.picture_files import codes

TIMES_MS = [40, 80, 120, 40]


def animation(path, *, alpha=False, loop=3):
    frames = [Image.fromarray(np.roll(codes(), 9 * index, 1)) for index in range(4)]
    if alpha:
        for frame in frames:
            frame.putalpha(Image.fromarray(np.where(codes()[..., 0] > 99, 255, 0).astype(np.uint8)))
    options = {} if loop is None else {"loop": loop}
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=TIMES_MS, lossless=True, **options)
    return path


def through(source, target, **options):
    with open_source(source) as clip:
        info = clip.info
        with open_sink(
            target, width=info.width, height=info.height, source=info, options=SinkOptions(**options)
        ) as sink:
            for frame in clip:
                sink.write(frame.rgb, alpha=frame.alpha, pts=frame.pts, duration=frame.duration)
        return sink.warnings


def shown(path):
    """RGBA pictures and how long each is shown, as Pillow reads them."""
    pictures, times = [], []
    with Image.open(path) as picture:
        for index in range(picture.n_frames):
            picture.seek(index)
            pictures.append(np.asarray(picture.convert("RGBA")))
            times.append(round(picture.info["duration"]))
        return pictures, times, picture.info.get("loop")


@pytest.mark.parametrize("target", [".webp", ".apng", ".gif"])
@pytest.mark.parametrize("source", [".webp", ".png", ".gif"])
@pytest.mark.parametrize("alpha", [False, True])
def test_animated_pictures_there_and_back(tmp_path, source, target, alpha):
    path = animation(tmp_path / f"a{source}", alpha=alpha)
    said = through(path, tmp_path / f"b{target}", quality=100)
    assert len(said) == (target == ".gif")
    before, after = shown(path), shown(tmp_path / f"b{target}")
    assert after[1] == before[1]
    assert after[2] == 3 + (source == ".gif") - (target == ".gif")
    for old, new in zip(before[0], after[0], strict=True):
        assert np.array_equal(new[..., 3], old[..., 3])
        visible = old[..., 3] > 0
        difference = np.abs(new.astype(int) - old)[visible]
        assert difference[:, :3].mean() < 12 if target == ".gif" else difference.max() == 0, (source, target)


def test_how_often_it_is_shown(tmp_path):
    for loop, expected in ((None, None), (0, 0), (1, 1)):
        through(animation(tmp_path / "a.gif", loop=loop), tmp_path / "b.gif", overwrite=True)
        assert shown(tmp_path / "b.gif")[2] == expected


def test_a_clip_becomes_an_animation_that_goes_on_for_ever(tmp_path):
    clip = write_clip(tmp_path / "a.mkv", [ramp(index) for index in range(5)], ClipSpec(audio="flac"))
    said = through(clip, tmp_path / "b.webp", quality=100)
    assert [sentence for sentence in said if "Sound is left out" in sentence]
    pictures, times, loop = shown(tmp_path / "b.webp")
    assert (times, loop) == ([40] * 5, 0)
    assert all(np.array_equal(picture[..., :3], ramp(index)) for index, picture in enumerate(pictures))


def test_sixteen_bits_in_apng(tmp_path):
    deep = torch.linspace(0, 1, 3 * 24 * 32).reshape(3, 24, 32)
    with open_sink(tmp_path / "a.apng", width=32, height=24, options=SinkOptions(bit_depth=16)) as sink:
        sink.write(deep)
        sink.write(1 - deep)
    with open_source(tmp_path / "a.apng") as back:
        assert back.info.bit_depth == 16
        assert (next(iter(back)).rgb - deep).abs().max() < 1 / 65535


def test_what_is_finished_is_kept_and_nothing_else_is_left(tmp_path):
    sink = open_sink(tmp_path / "a.apng", width=32, height=24)
    sink.write(torch.zeros(3, 24, 32))
    sink.write(torch.ones(3, 24, 32))
    kept = sink.abort(keep_partial=True)
    assert len(shown(kept)[0]) == 2
    kept.unlink()
    open_sink(tmp_path / "a.gif", width=32, height=24).abort(keep_partial=False)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(OutputError, match="at most 65535 pixels a side"):
        open_sink(tmp_path / "a.gif", width=70_000, height=24)


def test_a_killed_writer_s_apng_is_read_as_far_as_it_goes(tmp_path):
    """It says no number of pictures, by which Pillow takes it for one picture."""
    sink = open_sink(tmp_path / "a.apng", width=32, height=24)
    for index in range(6):
        sink.write(torch.full((3, 24, 32), index / 6))
    (partial,) = tmp_path.glob("a.partial-*")
    killed = tmp_path / "killed.apng"
    killed.write_bytes(partial.read_bytes())
    sink.abort(keep_partial=False)
    with pytest.raises(VideoError, match="truncated"):
        open_source(killed)
    with open_source(killed, damaged="keep") as source:
        assert len(list(source)) == source.info.frame_count >= 3
        assert source.is_incomplete
        assert "truncated" in source.warnings[0]
