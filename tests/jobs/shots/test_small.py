"""Small frames show the same whatever a picture is stored as."""

import numpy as np
import pytest
import torch

from seedvr2_engine.jobs.shots.likeness import change, moved_by, new_share
from seedvr2_engine.jobs.shots.small import LEVELS, made_small
from seedvr2_engine.video import CodedFrame, ColorRange, ColorTags, Frame, Matrix
from seedvr2_engine.video.planes import coding_for

from .made import canvas, scene

TAGS = ColorTags(ColorRange.LIMITED, Matrix.BT709)


def coded(picture, pix_fmt, tags=TAGS, alpha=None):
    coding = coding_for(pix_fmt, (picture.shape[2], picture.shape[1]), tags)
    return CodedFrame(coding.encoded(picture, alpha), coding, 0, 1)


@pytest.mark.parametrize(
    ("pix_fmt", "code_range"),
    [
        ("yuv420p", ColorRange.LIMITED),
        ("yuv422p", ColorRange.FULL),
        ("yuv444p", ColorRange.LIMITED),
        ("yuv420p10le", ColorRange.LIMITED),
        ("yuva420p", ColorRange.LIMITED),
    ],
)
def test_all_codes_give_the_same_cells(pix_fmt, code_range):
    picture = canvas(1)
    frames = [made_small(coded(picture, pix_fmt, ColorTags(code_range, Matrix.BT709)))]
    frames.append(made_small(coded(picture, "yuv444p16le", ColorTags(ColorRange.FULL, Matrix.BT709))))
    assert frames[0].planes.shape == (3, 40, 80)
    assert change(*frames) < 4  # Most of it is where chroma samples lie.
    assert frames[0].luma == pytest.approx(frames[1].luma, abs=1)


@pytest.mark.parametrize("pix_fmt", ["rgb24", "gbrp", "gbrp10le", "rgba"])
def test_colours_give_the_cells_of_a_picture(pix_fmt):
    picture = canvas(2)
    small = made_small(coded(picture, pix_fmt, ColorTags(ColorRange.FULL, Matrix.RGB)))
    assert change(small, made_small(Frame(picture, None, 0, 1))) < 1.5


def test_black_and_white_are_levels_0_and_255():
    for pix_fmt in ("yuv420p", "yuv420p10le"):
        for level in (0.0, 1.0):
            small = made_small(coded(torch.full((3, 32, 64), level), pix_fmt))
            assert np.allclose(small.planes[0], 255 * level * LEVELS, atol=1)
            assert not small.planes[1:].any()
            assert small.spread == 0


def test_what_is_transparent_is_black():
    picture, clear = canvas(3), torch.zeros(1, 160, 320)
    clear[:, :, 160:] = 1
    for small in (made_small(Frame(picture, clear, 0, 1)), made_small(coded(picture, "yuva444p", alpha=clear))):
        assert not small.planes[:, :, :40].any()
        assert small.planes[0, :, 40:].mean() > 200


@pytest.mark.parametrize("size", [(1, 1), (2, 300), (301, 7), (9, 9), (1080, 1920)])
def test_every_size_becomes_whole_blocks(size):
    small = made_small(coded(torch.rand(3, *size, generator=torch.manual_seed(1)), "yuv420p"))
    height, width = small.planes.shape[1:]
    assert height % 8 == width % 8 == 0
    assert max(height, width) <= 128
    assert new_share(small, small) == 0


def test_motion_of_everything_is_measured():
    one, other = (made_small(Frame(scene(1, 1, start=start)[0], None, 0, 1)) for start in (20, 36))
    assert moved_by(one, other) == (0, -16)
    assert moved_by(other, one) == (0, 16)
    assert new_share(one, other) < 0.4
    assert new_share(one, made_small(Frame(scene(2, 1)[0], None, 0, 1))) > 0.7


def test_the_order_of_two_pictures_does_not_matter():
    frames = [made_small(Frame(scene(seed, 1, start=seed * 9)[0], None, 0, 1)) for seed in (1, 1, 2, 3)]
    for one in frames:
        for other in frames:
            assert new_share(one, other) == new_share(other, one)
