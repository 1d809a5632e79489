"""Losses of which neither a count nor a decoder tells: each shows in what the file holds beside its pictures."""

import re

import av
import pytest
from PIL import Image

from seedvr2_engine.errors import VideoError
from seedvr2_engine.video import open_source

from ..made.clips import ClipSpec, ramp, write_clip

COUNT = 12


def clip(folder, name, codec, **options):
    return write_clip(
        folder / name, [ramp(3 * i) for i in range(COUNT)], ClipSpec(codec, "yuv420p", options=options or None)
    )


def frames_of(path):
    with open_source(path) as source:
        return len(list(source))


def test_a_last_picture_of_mpeg4_that_is_overwritten_is_missed(tmp_path):
    """Threads that decode side by side say nothing of a last packet that they cannot decode."""
    path = clip(tmp_path, "a.avi", "mpeg4", g="4")
    assert frames_of(path) == COUNT
    content = path.read_bytes()
    last = content.rindex(b"\x00\x00\x01\xb6")
    size = int.from_bytes(content[last - 4 : last], "little")
    # A start code may come up in anything, but none of a header.
    path.write_bytes(content[:last] + b"\x00\x00\x01\x68" + b"\xc0" * (size - 4) + content[last + size :])
    with pytest.raises(VideoError, match=f"found {COUNT - 1}"):
        frames_of(path)
    with open_source(path, damaged="keep") as source:
        assert len(list(source)) < COUNT
        assert source.is_incomplete


@pytest.mark.parametrize("still", ["PNG", "WEBP", "JPEG"])
def test_a_gif_whose_start_is_overwritten_with_another_picture_is_refused(tmp_path, still):
    path, small = tmp_path / "a.gif", tmp_path / "small"
    first, *rest = (Image.linear_gradient("L").resize((64, 64 + i)).crop((0, i, 64, 64)) for i in range(COUNT))
    first.save(path, save_all=True, append_images=rest)
    assert frames_of(path) == COUNT
    Image.new("RGB", (8, 8)).save(small, still)
    path.write_bytes(small.read_bytes() + path.read_bytes()[small.stat().st_size :])
    with pytest.raises(VideoError, match="a.gif"):
        frames_of(path)


@pytest.mark.parametrize("still", ["PNG", "WEBP", "JPEG"])
def test_another_picture_in_the_name_of_a_gif_may_have_something_behind_its_end(tmp_path, still):
    path = tmp_path / "a.gif"
    Image.new("RGB", (8, 8)).save(path, still)
    path.write_bytes(path.read_bytes() + bytes(200) + b"made by hand")
    assert frames_of(path) == 1


@pytest.mark.parametrize("codec", ["mpeg1video", "mpeg2video"])
def test_a_group_whose_own_header_is_overwritten_too_is_missed(tmp_path, codec):
    """What is left of it is the header of its sequence, before another's."""
    path = clip(tmp_path, "a.mpg", codec, g="6")
    content = path.read_bytes()
    first, second = (match.start() for match in re.finditer(b"\x00\x00\x01\xb3", content))
    path.write_bytes(content[: first + 12] + bytes(second - first - 12) + content[second:])
    with pytest.raises(VideoError, match="by their numbers"):
        frames_of(path)
