"""The colour kernels against their references in PyTorch and against the formulas in FP64."""

import logging
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from seedvr2_engine.color import backend, reference
from seedvr2_engine.color.backend import LAB_MATCHING, ColorKernels
from seedvr2_engine.color.methods import correct_color
from seedvr2_engine.color.rank import LEVELS, unchanging_curve
from seedvr2_engine.color.reference import LAB_RANGES, blur_radii
from seedvr2_engine.color.space import from_rgb, lab_to_rgb, rgb_to_lab, to_rgb
from seedvr2_engine.kernels.color import correction

KERNELS = ColorKernels(correction.transfer_detail, correction.count_lab, correction.match_lab, lambda calls: None)
# A pixel, single rows and columns, radii cut to 1 and to 4, more than one tile each way.
SIZES = [(1, 1), (1, 37), (9, 1), (7, 5), (33, 150)]
WITH_ALL_RADII = (128, 129)
LEVEL = 5e-5
"""What one level of L, a and b makes of a picture in [-1, 1], at most, where a step of 8 bits is 8e-3."""


def picture(height: int, width: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Smooth colours with noise on them, some outside [-1, 1]; black, white and saturated patches."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(1, 3, 3, 4, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bilinear", align_corners=True)[0]
    x = 0.7 * smooth + 0.1 * torch.randn(3, height, width, generator=generator)
    corners = torch.tensor([[i >> 2 & 1, i >> 1 & 1, i & 1] for i in range(8)]).T * 2.0 - 1
    patches = corners[:, None, :].expand(3, height // 4, 8)[..., :width]
    x[:, : patches.shape[1], : patches.shape[2]] = patches
    return x.to(dtype)


@pytest.fixture
def kernels(monkeypatch) -> Iterator[None]:
    """The kernels compute, though nothing is on a GPU."""
    monkeypatch.setattr(backend, "_kernels_for", lambda *pictures: KERNELS)


def counted(x: Tensor, kernels: ColorKernels | None = None) -> Tensor:
    counts = torch.zeros(3, LEVELS, dtype=torch.int32)
    if kernels is None:
        reference.count_lab(x, counts)
    else:
        kernels.count_lab(x, counts, LAB_MATCHING)
    return counts


def levels_moved(actual: Tensor, expected: Tensor) -> float:
    """By how many levels a pixel lies elsewhere, on average: the earth mover's distance of both counts."""
    assert torch.equal(actual.sum(dim=1), expected.sum(dim=1))
    difference = (actual.long() - expected.long()).cumsum(dim=1).abs().sum(dim=1)
    return (difference / expected.sum(dim=1)).max().item()


@pytest.mark.parametrize(
    ("size", "dtype"),
    [
        *((size, dtype) for size in SIZES for dtype in (torch.float32, torch.float16, torch.bfloat16)),
        (WITH_ALL_RADII, torch.float16),
    ],
)
def test_detail_is_transferred_to_the_last_bit(size: tuple[int, int], dtype: torch.dtype) -> None:
    content, style = picture(*size, 1, dtype), picture(*size, 2)
    result = correction.transfer_detail(content, style, blur_radii(content))
    assert result.is_contiguous()
    assert torch.equal(result, reference.wavelet(content, style))


def test_pictures_may_be_parts_of_others() -> None:
    clip = torch.randn(3, 2, 40, 150).half()
    content, style = clip[:, 1, 2:36, 3:140], picture(34, 137, 2).movedim(0, -1).contiguous().movedim(-1, 0)
    whole = content.contiguous(), style.contiguous()
    assert not any(x.is_contiguous() for x in (content, style))
    assert torch.equal(
        correction.transfer_detail(content, style, (1, 2, 4)), correction.transfer_detail(*whole, (1, 2, 4))
    )
    assert all(
        torch.equal(counted(x, KERNELS), counted(y, KERNELS)) for x, y in zip((content, style), whole, strict=True)
    )


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_counts_are_the_references(size: tuple[int, int], dtype: torch.dtype) -> None:
    """A value of Lab has an error of about a level; the reference's has the same against FP64."""
    x = picture(*size, 3, dtype)
    counts = counted(x, KERNELS)
    assert levels_moved(counts, counted(x)) <= 1
    KERNELS.count_lab(x, counts, LAB_MATCHING)
    assert torch.equal(counts, 2 * counted(x, KERNELS))


def colors() -> Tensor:
    """All colours in steps of an eighth, very dark ones, and those next to the bends of both curves: (3, 1, N)."""
    step = torch.linspace(-1, 1, 9)
    near = torch.cat([torch.tensor([0, 1e-30, 1e-7, 1e-4, 0.04, 0.0405, 0.0809]) - 1, step])
    return torch.cat([torch.cartesian_prod(step, step, step), torch.cartesian_prod(near, near, near)]).T[:, None]


def test_colors_are_those_of_the_formulas_in_float64() -> None:
    """Curves that change nothing take each value to the middle of its level."""
    x = colors()
    curves = torch.stack([unchanging_curve(within, x.device) for within in LAB_RANGES])
    exact = rgb_to_lab(to_rgb(x.double()))
    for i, within in enumerate(LAB_RANGES):
        size = (within.high - within.low) / LEVELS
        level = ((exact[i] - within.low) / size).floor().clamp(0, LEVELS - 1)
        share = reference.MATCHED_LIGHTNESS if i == 0 else 1
        exact[i] = exact[i].lerp(within.low + (level + 0.5) * size, share)
    expected = from_rgb(lab_to_rgb(exact))
    plain = reference.match_lab(x, curves)
    correction.match_lab(result := x.clone(), curves, LAB_MATCHING)
    for x in (result, plain):
        assert (x - expected).abs().max() <= LEVEL
        assert (x - expected).abs().mean() <= LEVEL / 25


@pytest.mark.parametrize("size", SIZES)
def test_curves_are_applied_as_the_reference_does(size: tuple[int, int]) -> None:
    """Curves that move every colour far, and neighbouring levels alike."""
    x = reference.wavelet(picture(*size, 4), picture(*size, 5))
    curves = torch.stack([unchanging_curve(w, x.device) * 0.6 + 0.2 * w.high for w in LAB_RANGES])
    expected = reference.match_lab(x, curves)
    correction.match_lab(x, curves, LAB_MATCHING)
    assert (x - expected).abs().max() <= LEVEL


def test_slices_have_the_colours_of_the_reference(kernels: None, monkeypatch) -> None:
    content, style = (torch.stack([picture(40, 56, seed + i, torch.bfloat16) for i in range(2)]) for seed in (10, 20))
    style = style.float().clamp(-1, 1)
    result = correct_color(content, style, "lab")
    monkeypatch.undo()
    error = (result - correct_color(content, style, "lab")).abs()
    # A rank that moves by one is seen among so few pixels, but not as a step of 8 bits.
    assert error.max() <= 8e-3
    assert error.mean() <= LEVEL / 5


@pytest.mark.parametrize("flat", [-1.0, -0.3, 0.2, 1.0])
def test_few_colours_find_the_levels_they_were_counted_in(kernels: None, flat: float) -> None:
    """A pixel that is looked up a level too low would get the colour of another one far away."""
    style = torch.full((1, 3, 24, 40), flat)
    style[..., 20:] = torch.tensor([0.4, -0.7, 0.1])[:, None, None]
    torch.testing.assert_close(correct_color(style, style, "lab"), style, atol=1e-4, rtol=0)


def test_not_a_number_stays_visible(kernels: None) -> None:
    content, style = picture(16, 40, 1)[None], picture(16, 40, 2)[None].clamp(-1, 1)
    content[0, 1, 3, 4] = torch.nan
    for method in ("lab", "wavelet"):
        result = correct_color(content, style, method)
        assert result[0, 1 if method == "wavelet" else slice(None), 3, 4].isnan().all()
        assert not result[0, :, 15, 39].isnan().any()


@pytest.mark.parametrize(
    ("capability", "failure", "said"),
    [
        ((7, 5), None, "older than sm_80"),
        ((9, 0), ImportError("No module named 'triton'"), "Triton cannot be imported"),
        ((9, 0), RuntimeError("no C compiler"), "the kernels failed on cuda:0: RuntimeError: no C compiler"),
    ],
)
def test_where_kernels_cannot_be_had_pytorch_serves(monkeypatch, caplog, capability, failure, said) -> None:
    def load() -> ColorKernels:
        raise failure

    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a GPU")
    with caplog.at_level(logging.INFO):
        assert backend.load_kernels(torch.device("cuda:0"), load) is None
    assert [said in record.message for record in caplog.records] == [True]


def test_pictures_on_a_cpu_are_for_pytorch() -> None:
    assert backend._kernels_for(picture(8, 8, 0), picture(8, 8, 1)) is None
