"""Alpha follows the edges of the upscaled colours, for any number of frames and any size."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from seedvr2_engine.errors import InvalidArgumentError
from seedvr2_engine.pipeline.alpha import edge_strength, guided_filter, is_mask, upscale_alpha
from seedvr2_engine.pipeline.resize import resample

from .picture_cases import golden_pictures, scene


def disc(frames: int, height: int, width: int) -> Tensor:
    """A mask of a moving disc: (T, 1, H, W)."""
    y, x = torch.arange(height)[:, None] + 0.5, torch.arange(width) + 0.5
    centres = torch.arange(frames)[:, None, None] + width / 2 - frames / 2
    return ((x - centres) ** 2 + (y - height / 2) ** 2 < (height / 3) ** 2).float()[:, None]


def picture_of(alpha: Tensor, size: tuple[int, int]) -> Tensor:
    """A bright disc on a dark ground where the alpha says, upscaled: (T, 3, *size) in [-1, 1]."""
    sharp = F.interpolate(alpha, size=size, mode="nearest")
    return (0.2 + 0.6 * sharp + 0.02 * scene(len(alpha), *size)) * 2 - 1


@pytest.mark.parametrize(("kind", "mask"), [("binary", True), ("gradient", False)])
def test_reference(kind, mask):
    cases = golden_pictures("color_cases")
    alpha, rgb = cases[f"alpha/{kind}_in"], cases["alpha/upscaled_rgb"]
    assert is_mask(alpha) == mask
    actual = upscale_alpha(alpha, rgb, (60, 80), mask=mask)
    torch.testing.assert_close(actual, cases[f"alpha/{kind}_out"], atol=1e-5, rtol=0)


def test_reference_edges():
    cases = golden_pictures("color_cases")
    actual = edge_strength(cases["alpha/upscaled_rgb"] * 0.5 + 0.5)
    torch.testing.assert_close(actual, cases["alpha/edges"], atol=1e-5, rtol=0)


def test_edges_by_hand():
    picture = torch.zeros(1, 3, 5, 6)
    picture[..., 3:] = 1.0
    strength = edge_strength(picture)[0, 0]
    assert (strength[:, 2:4] == 1).all()
    assert (strength[:, :2] == 0).all()
    assert (strength[:, 4:] == 0).all()
    assert (edge_strength(torch.full((2, 3, 5, 6), 0.4)) == 0).all()


def test_edges_of_a_weaker_step_by_hand():
    picture = torch.zeros(1, 3, 5, 12)
    picture[..., 3:] = 0.4
    picture[..., 8:] = 1.0
    # 0.4 and 1.0 are 102 and 255 in 8 bit, so the steps are 102 and 153.
    strength = edge_strength(picture)[0, 0, 2] * 255
    assert strength.round().tolist() == [0, 0, 102 * 255 // 153, 102 * 255 // 153, 0, 0, 0, 255, 255, 0, 0, 0]


def test_edges_are_weighed_like_luma():
    picture = torch.zeros(1, 3, 5, 24)
    for channel in range(3):
        picture[:, channel, :, 8 * channel + 3 : 8 * channel + 6] = 1.0
    strength = edge_strength(picture)[0, 0, 2] * 255
    # 255 times 0.299, 0.587 and 0.114, rounded.
    luma = (76, 150, 29)
    assert [round(float(strength[8 * i + 3])) for i in range(3)] == [v * 255 // 150 for v in luma]


@pytest.mark.parametrize("telling", [True, False], ids=["picture shows the mask", "picture does not"])
def test_masks_are_hardened_as_specified(telling):
    alpha = disc(1, 20, 26)
    grain = scene(1, 40, 52, seed=5)
    rgb = (picture_of(alpha, (40, 52)) + 0.3 * grain).clamp(-1, 1) if telling else 0.2 * grain
    if not telling:
        # One strong edge away from the mask's makes those along it weak.
        rgb[..., :6, :] = -1
    picture = rgb * 0.5 + 0.5
    coarse = resample(alpha, (40, 52)).clamp(0, 1)
    soft = guided_filter(picture.mean(dim=1, keepdim=True), coarse, 2)[0, 0]
    edges = edge_strength(picture)[0, 0]
    expected = torch.empty(40, 52)
    for i in range(40):
        for j in range(52):
            q, e = float(soft[i, j]), float(edges[i, j])
            near = float(edges[max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2].max())
            at_edge = min(e / 0.25, 1.0)
            m = q * (1 - at_edge) + at_edge / (1 + math.exp(-12 * (q - 0.5)))
            m = float(q > 0.5) if near < 0.05 else m
            m = float(m > 0.5) if near < 0.03 or (0.3 < m < 0.7 and e <= 0.15) else m
            expected[i, j] = min(max(m, 0.0), 1.0)
    actual = upscale_alpha(alpha, rgb, (40, 52), mask=True)[0, 0]
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=0)


def test_guided_filter_is_what_it_says():
    guide = scene(1, 9, 11)[:, :1]
    values = scene(1, 9, 11, seed=3)[:, 1:2]
    radius = 2

    def mean(x: Tensor) -> Tensor:
        out = torch.zeros(9, 11, dtype=torch.float64)
        for i in range(9):
            for j in range(11):
                window = x[max(i - radius, 0) : i + radius + 1, max(j - radius, 0) : j + radius + 1]
                out[i, j] = window.sum() / 25
        return out

    g, v = guide[0, 0].double(), values[0, 0].double()
    slope = (mean(g * v) - mean(g) * mean(v)) / (mean(g * g) - mean(g) ** 2 + 0.002)
    expected = mean(slope) * g + mean(mean(v) - slope * mean(g))
    torch.testing.assert_close(guided_filter(guide, values, radius)[0, 0].double(), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("frames", range(1, 8))
@pytest.mark.parametrize("kind", ["mask", "gradient"])
def test_any_number_of_frames(frames, kind):
    alpha = disc(frames, 20, 26)
    if kind == "gradient":
        alpha = F.avg_pool2d(alpha, 9, stride=1, padding=4)
    assert is_mask(alpha) == (kind == "mask")
    rgb = picture_of(alpha, (40, 52))
    out = upscale_alpha(alpha, rgb, (40, 52), mask=kind == "mask")
    assert out.shape == (frames, 1, 40, 52)
    assert out.min() >= 0
    assert out.max() <= 1
    alone = [upscale_alpha(alpha[i : i + 1], rgb[i : i + 1], (40, 52), mask=kind == "mask") for i in range(frames)]
    assert torch.equal(out, torch.cat(alone))


def test_edges_are_those_of_the_picture():
    alpha = disc(1, 20, 26)
    out = upscale_alpha(alpha, picture_of(alpha, (80, 104)), (80, 104), mask=True)
    wanted = F.interpolate(alpha, size=(80, 104), mode="nearest")
    plain = resample(alpha, (80, 104)).clamp(0, 1)
    assert (out - wanted).abs().mean() < 0.6 * (plain - wanted).abs().mean()


def test_alpha_lies_where_its_picture_lies():
    """A picture of odd size loses a row and a column; alpha must lose the same, not shrink into the rest."""
    alpha = F.avg_pool2d(disc(1, 21, 25), 5, stride=1, padding=2)
    whole = picture_of(alpha, (63, 75))
    out = upscale_alpha(alpha, whole[..., :62, :74], (63, 75), mask=False)
    expected = upscale_alpha(alpha, whole, (63, 75), mask=False)[..., :62, :74]
    torch.testing.assert_close(out[..., :50, :60], expected[..., :50, :60], atol=1e-5, rtol=0)


def test_pictures_brighter_than_the_middle_are_pictures_too():
    """The reference takes a picture without values below 0 for one in [0, 1]."""
    alpha = disc(1, 20, 26)
    rgb = picture_of(alpha, (40, 52)) * 0.25 + 0.7
    assert rgb.min() >= 0
    guide = (rgb * 0.5 + 0.5).mean(dim=1, keepdim=True)
    expected = guided_filter(guide, resample(alpha, (40, 52)).clamp(0, 1), 3).clamp(0, 1)
    assert torch.equal(upscale_alpha(alpha, rgb, (40, 52), mask=False), expected)


@pytest.mark.parametrize(
    ("black", "white", "middle", "mask"),
    [(96, 0, 4, True), (0, 96, 4, True), (48, 48, 4, True), (94, 0, 6, False), (0, 94, 6, False), (60, 0, 40, False)],
)
def test_a_mask_is_black_and_white_in_more_than_95_percent(black, white, middle, mask):
    alpha = torch.cat([torch.full((count,), value) for count, value in ((black, 0.09), (white, 0.91), (middle, 0.5))])
    assert is_mask(alpha) == mask


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_flat_alpha_stays_in_the_middle(value):
    alpha = torch.full((1, 1, 20, 26), value)
    out = upscale_alpha(alpha, scene(1, 40, 52) * 2 - 1, (40, 52), mask=is_mask(alpha))
    torch.testing.assert_close(out[..., 8:-8, 8:-8], torch.full((1, 1, 24, 36), value), atol=2e-2, rtol=0)


@pytest.mark.parametrize(
    ("alpha", "rgb", "resized", "said"),
    [
        ((5, 1, 8, 8), (4, 3, 16, 16), (16, 16), "as many pictures"),
        ((4, 3, 8, 8), (4, 3, 16, 16), (16, 16), "as many pictures"),
        ((4, 1, 8, 8), (4, 1, 16, 16), (16, 16), "as many pictures"),
        ((4, 8, 8), (4, 3, 16, 16), (16, 16), "as many pictures"),
        ((4, 1, 8, 8), (4, 3, 16, 16), (15, 16), "at least"),
    ],
)
def test_what_does_not_belong_together_is_refused(alpha, rgb, resized, said):
    with pytest.raises(InvalidArgumentError, match=said):
        upscale_alpha(torch.zeros(alpha), torch.zeros(rgb), resized, mask=False)
