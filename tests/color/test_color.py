"""Colour methods against the public reference and against their formulas written out."""

import colorsys

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.color import rgb2lab
from torch import Tensor

from seedvr2_engine.color.methods import (
    COLOR_METHODS,
    correct_color,
    correct_frame,
    measure_curves,
    wavelet,
)
from seedvr2_engine.color.rank import LEVELS, ValueRange, count_levels, look_up, matching_curve, to_levels
from seedvr2_engine.color.reference import low_frequencies
from seedvr2_engine.color.space import hsv_to_rgb, lab_to_rgb, rgb_to_hsv, rgb_to_lab, saturation
from seedvr2_engine.errors import InvalidArgumentError
from seedvr2_engine.pipeline.alpha import is_mask, upscale_alpha
from seedvr2_engine.pipeline.chunks import ChunkPlan, chunk_spans, prepend_mirrored
from seedvr2_engine.pipeline.resize import crop_to_output, plan_resize, resample, to_model_input

from ..pipeline.picture_cases import golden_pictures, golden_settings, scene

SET_WIDE = ("lab", "hsv", "wavelet_adaptive")


def pair(frames: int = 2, height: int = 40, width: int = 56) -> tuple[Tensor, Tensor]:
    """Content and style in [-1, 1]: the content has lost saturation, gained a cast, and has colourful fine detail."""
    style = scene(frames, height, width, seed=1)
    content = (0.7 * style + 0.3 * style.mean(dim=1, keepdim=True) + 0.1 * scene(frames, height, width, seed=2)) * 0.9
    stripes = torch.sin(2.1 * torch.arange(width) + torch.tensor([0.0, 2.0, 4.0])[:, None, None])
    return (content + 0.15 * stripes).clamp(0.001, 0.999) * 2 - 1, style * 2 - 1


def to_rgb(x: Tensor) -> Tensor:
    return (x * 0.5 + 0.5).clamp(0, 1)


def rank_match(content: Tensor, style: Tensor) -> Tensor:
    """The definition: sort both, and hand out the style's values by rank."""
    order = content.flatten().argsort(stable=True)
    given_out = style.flatten().sort().values
    last = max(len(order) - 1, 1)
    ranks = torch.arange(len(order)) * (len(given_out) - 1) // last
    matched = torch.empty_like(content.flatten())
    matched[order] = given_out[ranks]
    return matched.view(content.shape)


def blurred(x: Tensor, radius: int) -> Tensor:
    row = torch.tensor([1.0, 2.0, 1.0])
    kernel = (row[:, None] * row / 16).expand(3, 1, 3, 3)
    return F.conv2d(F.pad(x, [radius] * 4, mode="replicate"), kernel, dilation=radius, groups=3)


def plain_wavelet(content: Tensor, style: Tensor) -> Tensor:
    def bands(x: Tensor) -> tuple[Tensor, Tensor]:
        high = torch.zeros_like(x)
        for i in range(5):
            low = blurred(x, min(2**i, max(1, min(x.shape[-2:]) // 8)))
            high, x = high + x - low, low
        return high, x

    return (bands(content)[0] + bands(style)[1]).clamp(-1, 1)


def plain_lab(content: Tensor, style: Tensor) -> Tensor:
    a, b = rgb_to_lab(to_rgb(plain_wavelet(content, style))), rgb_to_lab(to_rgb(style))
    matched = torch.stack([rank_match(a[:, i], b[:, i]) for i in range(3)], dim=1)
    matched[:, 0] = 0.8 * a[:, 0] + 0.2 * matched[:, 0]
    return lab_to_rgb(matched) * 2 - 1


def plain_hsv(content: Tensor, style: Tensor) -> Tensor:
    a, b = rgb_to_hsv(to_rgb(content)), rgb_to_hsv(to_rgb(style))
    result = a[:, 1].clone()
    for i in range(12):
        inside = [(x[:, 0] >= i / 12) & (x[:, 0] < (i + 1) / 12) for x in (a, b)]
        if i == 0:
            inside = [mask | (x[:, 0] >= 11 / 12) for mask, x in zip(inside, (a, b), strict=True)]
        if min(int(mask.sum()) for mask in inside) > 100:
            result[inside[0]] = rank_match(a[:, 1][inside[0]], b[:, 1][inside[1]])
    return hsv_to_rgb(torch.stack([a[:, 0], result, a[:, 2]], dim=1)) * 2 - 1


def plain_adaptive(content: Tensor, style: Tensor) -> Tensor:
    coarse, matched = plain_wavelet(content, style), plain_hsv(content, style)
    extra, left = (saturation(to_rgb(x)) - saturation(to_rgb(style)) for x in (content, coarse))
    share = torch.sigmoid(5 * (extra - 0.15)) * (left > 0.075)
    return coarse * (1 - share[:, None]) + matched * share[:, None]


def plain_adain(content: Tensor, style: Tensor) -> Tensor:
    mean, std = (
        [f(x, dim=(-2, -1), keepdim=True) for x in (content, style)] for f in (torch.mean, lambda x, **k: x.var(**k))
    )
    return (content - mean[0]) / (std[0] + 1e-5).sqrt() * (std[1] + 1e-5).sqrt() + mean[1]


PLAIN = {
    "lab": plain_lab,
    "wavelet": plain_wavelet,
    "wavelet_adaptive": plain_adaptive,
    "hsv": plain_hsv,
    "adain": plain_adain,
}


def assert_near(actual: Tensor, expected: Tensor, method: str) -> None:
    """The tolerance of each method in FP32; ranks that fall into one level make single values of the rest differ."""
    error = (actual - expected.float()).abs()
    if method in ("wavelet", "adain"):
        assert error.max() <= 1e-5
    elif method == "lab":
        assert error.max() <= 2e-3
    else:
        assert (error <= 1e-4).float().mean() >= 0.999


@pytest.mark.parametrize(
    ("case", "method"), [*((case, method) for case in "ac" for method in PLAIN), ("b", "lab"), ("b", "wavelet")]
)
def test_reference_in_float32(case, method):
    cases = golden_pictures("color_cases")
    content, style = cases[f"{case}/content"].float(), cases[f"{case}/style"].float()
    assert_near(correct_color(content, style, method), cases[f"{case}/out_{method}"], method)


@pytest.mark.parametrize("method", PLAIN)
@pytest.mark.parametrize("case", ["a", "c"])
def test_reference_in_bfloat16(case, method):
    """The reference adds up detail in BF16 and rounds the result to it: two steps (8e-3 each) at most, rarely one."""
    cases = golden_pictures("color_cases")
    content, style = cases[f"{case}/content"].bfloat16(), cases[f"{case}/style"]
    actual = correct_color(content, style, method)
    assert actual.dtype == torch.float32
    error = (actual - cases[f"{case}/out_{method}_bf16content"].float()).abs()
    assert (error <= 8e-3).float().mean() >= 0.99
    assert error.max() <= 1.6e-2


def test_reference_of_the_parts():
    cases = golden_pictures("color_cases")
    content, style = cases["c/content"], cases["c/style"]
    low = low_frequencies(content)
    torch.testing.assert_close(low, cases["c/wavelet_low"], atol=1e-5, rtol=0)
    torch.testing.assert_close(content - low, cases["c/wavelet_high"], atol=1e-5, rtol=0)
    torch.testing.assert_close(rgb_to_lab(to_rgb(style)), cases["c/lab_of_style"], atol=1e-4, rtol=0)
    torch.testing.assert_close(rgb_to_hsv(to_rgb(style)), cases["c/hsv_of_style"], atol=1e-6, rtol=0)


@pytest.mark.parametrize("case", [f"p{i}" for i in range(1, 10)])
def test_reference_from_decoded_frames_to_the_result(case):
    cases, settings = golden_pictures("sampler_cases"), golden_settings("sampler_cases")[f"pipeline/{case}"]
    images, decoded, expected = (
        cases[f"pipeline/{case}/{name}"].float().permute(0, 3, 1, 2)
        for name in ("images", "decoded_before_post", "out")
    )
    rgb = torch.stack(list(prepend_mirrored(images[:, :3], settings.get("prepend", 0))))
    plan = plan_resize(images.shape[-2:], resolution=settings["resolution"])
    if "max_resolution" in settings:
        rgb = resample(rgb, plan.resized)
        limit = settings["max_resolution"]
        plan = plan_resize(plan.resized, resolution=settings["resolution"], max_resolution=limit)
    style = crop_to_output(to_model_input(rgb, plan), plan)
    overlap, actual = settings.get("overlap", 0), []
    for span in chunk_spans(len(rgb), ChunkPlan(settings["batch_size"], overlap)):
        # Frames that are shared belong to the earlier chunk there.
        own = slice(span.start + (overlap if span.start else 0), span.stop)
        actual.append(correct_color(decoded[own], style[own], settings["color"]))
    result = to_rgb(torch.cat(actual))[settings.get("prepend", 0) :]
    tolerance = 3e-3 if settings["color"] == "lab" else 1e-5
    torch.testing.assert_close(result, expected[:, :3], atol=tolerance, rtol=0)
    if images.shape[1] == 4:
        # The reference brings alpha to the even size at once, though its colours have lost a column.
        alpha = upscale_alpha(images[:, 3:], decoded, plan.output, mask=is_mask(images[:, 3:]))
        torch.testing.assert_close(alpha, expected[:, 3:], atol=1e-5, rtol=0)


def test_reference_with_a_style_of_another_size():
    cases = golden_pictures("color_cases")
    style = F.interpolate(cases["mismatch/style"], size=(48, 64), mode="bilinear", align_corners=False)
    actual = correct_color(cases["a/content"], style, "wavelet")
    torch.testing.assert_close(actual, cases["mismatch/out_wavelet"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("method", PLAIN)
@pytest.mark.parametrize(("height", "width"), [(40, 56), (16, 20), (150, 140)])
def test_methods_are_what_they_say(method, height, width):
    content, style = pair(2, height, width)
    assert_near(correct_color(content, style, method), PLAIN[method](content, style), method)


@pytest.mark.parametrize("method", COLOR_METHODS)
def test_frames_can_come_one_by_one(method):
    content, style = pair(3)
    curves = measure_curves(iter(list(zip(content, style, strict=True))), method)
    frames = [correct_frame(c, s, method, curves) for c, s in zip(content, style, strict=True)]
    assert torch.equal(torch.stack(frames), correct_color(content, style, method))


@pytest.mark.parametrize("method", COLOR_METHODS)
def test_distributions_belong_to_the_slice_and_the_rest_to_the_frame(method):
    content, style = pair(3)
    together = correct_color(content, style, method)
    alone = torch.cat([correct_color(content[i : i + 1], style[i : i + 1], method) for i in range(3)])
    assert torch.equal(together, alone) == (method not in SET_WIDE)


@pytest.mark.parametrize("method", COLOR_METHODS)
def test_right_colours_stay(method):
    _, style = pair()
    torch.testing.assert_close(correct_color(style, style, method), style, atol=1e-4, rtol=0)


def test_none_changes_nothing():
    content, style = pair()
    assert torch.equal(correct_color(content, style, "none"), content)


@pytest.mark.parametrize("method", ["lab", "hsv"])
def test_equal_colours_stay_equal(method):
    """Sorting would spread a flat area over the colours of the style, in the order of the pixels."""
    _, style = pair(1)
    flat = torch.tensor([0.3, -0.2, 0.5])[:, None, None].expand(style.shape)
    curves = measure_curves([(style[0], style[0])], method)
    out = correct_frame(flat[0], flat[0], method, curves)
    assert out.flatten(1).std(dim=1).max() < 1e-6


@settings(max_examples=30)
@given(st.lists(st.floats(-2, 2, width=32), min_size=1, max_size=60), st.lists(st.floats(0, 1, width=32), min_size=1))
def test_matching_keeps_the_order_and_stays_among_the_style(content, style):
    within = ValueRange(0, 1)
    x, y = torch.tensor(content), torch.tensor(style)
    counts = [count_levels([(to_levels(v, within),) * 2], groups=1)[0, 0] for v in (x, y)]
    out = look_up(to_levels(x, within), matching_curve(counts[0], counts[1], within)[None])
    level = 1 / LEVELS
    assert (out[x.argsort()].diff() >= 0).all()
    assert y.min() - level <= out.min()
    assert out.max() <= y.max() + level


def test_matching_of_values_apart_is_exact():
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randperm(LEVELS // 64, generator=generator)[:n].float() * 64 / LEVELS for n in (5000, 3000))
    within = ValueRange(0, 1)
    counts = [count_levels([(to_levels(v, within),) * 2], groups=1)[0, 0] for v in (x, y)]
    out = look_up(to_levels(x, within), matching_curve(counts[0], counts[1], within)[None])
    torch.testing.assert_close(out, rank_match(x, y), atol=0.51 / LEVELS, rtol=0)


def test_counts_are_those_of_both_and_of_all_frames():
    frames = [(torch.tensor([0, 0, 5]).int(), torch.tensor([LEVELS + 1]).int()), (torch.tensor([5]).int(),) * 2]
    counts = count_levels(frames, groups=2)
    assert counts[0].nonzero().tolist() == [[0, 0], [0, 5]]
    assert counts[0, 0, [0, 5]].tolist() == [2, 2]
    assert counts[1].nonzero().tolist() == [[0, 5], [1, 1]]


def test_not_a_number_stays_visible():
    content, style = pair(1)
    content[0, :, 3, 4] = torch.nan
    assert correct_color(content, style, "lab")[0, :, 3, 4].isnan().all()


def test_hsv_is_that_of_the_standard_library():
    colours = torch.rand(3, 1, 300, generator=torch.Generator().manual_seed(0))
    colours[:, 0, :9] = torch.tensor(
        [[0, 0, 0], [1, 1, 1], [0.5, 0.5, 0.5], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [0, 1, 1], [1, 0, 1]]
    ).T
    expected = torch.tensor([colorsys.rgb_to_hsv(*c) for c in colours[:, 0].T.tolist()]).T
    hsv = rgb_to_hsv(colours)
    torch.testing.assert_close(hsv[:, 0], expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(hsv_to_rgb(hsv), colours, atol=1e-5, rtol=0)


def test_lab_is_that_of_scikit_image():
    colours = torch.rand(3, 20, 30, generator=torch.Generator().manual_seed(0))
    expected = torch.from_numpy(rgb2lab(colours.permute(1, 2, 0).double().numpy())).permute(2, 0, 1).float()
    # The matrices are rounded to four digits there.
    torch.testing.assert_close(rgb_to_lab(colours), expected, atol=0.02, rtol=0)
    torch.testing.assert_close(lab_to_rgb(rgb_to_lab(colours)), colours, atol=1e-4, rtol=0)


def test_wavelet_is_clamped():
    content = torch.where(torch.arange(64) % 2 == 0, 1.0, -1.0).expand(1, 3, 64, 64)
    out = wavelet(content, torch.ones(1, 3, 64, 64))
    assert out.max() == 1
    assert out.min() > -1


@pytest.mark.parametrize(
    ("content", "style", "method", "said"),
    [
        ((2, 3, 8, 8), (2, 3, 8, 9), "lab", "one shape"),
        ((2, 3, 8, 8), (1, 3, 8, 8), "none", "one shape"),
        ((2, 4, 8, 8), (2, 4, 8, 8), "lab", "one shape"),
        ((3, 8, 8), (3, 8, 8), "lab", "one shape"),
        ((1, 3, 8, 8), (1, 3, 8, 8), "sepia", "expected one of lab, .* got 'sepia'"),
        ((0, 3, 8, 8), (0, 3, 8, 8), "lab", "at least one frame"),
    ],
)
def test_wrong_slices_are_refused(content, style, method, said):
    with pytest.raises(InvalidArgumentError, match=said):
        correct_color(torch.zeros(content), torch.zeros(style), method)


@pytest.mark.parametrize("method", SET_WIDE)
def test_forgotten_curves_are_noticed(method):
    content, style = pair(1)
    with pytest.raises(InvalidArgumentError, match="expected the curves"):
        correct_frame(content[0], style[0], method)
