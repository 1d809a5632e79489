"""Statistics, exponents, normalisation and quantisation against their references and against PyTorch."""

import pytest
import torch
import torch.nn.functional as F

from seedvr2_engine.kernels import groupnorm, layout, reference
from seedvr2_engine.kernels.configs import ConvConfig, ConvProblem
from seedvr2_engine.kernels.conv.operands import FrameTarget, NormOperands, NormSpec, tile_counts

from .tolerances import assert_close

HEIGHT, WIDTH, TILE = 13, 19, (2, 4)
CONFIG = ConvConfig(*TILE, 32, 32, warps=4, stages=2, uses_tma=True)


def picture(channels: int, offset: float = 10.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    spread = torch.rand(channels, generator=generator) * 3
    shift = torch.randn(channels, generator=generator) * offset
    return (torch.randn(2, HEIGHT, WIDTH, channels, generator=generator) * spread + shift).half()


def run(module: object, x: torch.Tensor, operands: NormOperands, spec: NormSpec, dtype: torch.dtype) -> FrameTarget:
    """All three steps into slots 2 and 1 of a buffer of four frames."""
    channels = x.shape[-1]
    has_range = dtype == torch.int8
    problem = ConvProblem(channels, channels, (3, 3, 3), 2, HEIGHT, WIDTH, "fp16", has_range=has_range)
    partials = reference.partial_statistics(x, problem, CONFIG)
    counts = tile_counts((HEIGHT, WIDTH), TILE, 1)
    chunks = layout.chunk_counts(counts)
    combined = torch.full((2, chunks.numel(), 4, channels), float("nan"))
    affine = torch.full((2, 4, channels), float("nan"))
    exponents = torch.full((4,), 99, dtype=torch.int32) if dtype.itemsize == 1 else None
    frames = torch.zeros(4, HEIGHT, WIDTH, channels, dtype=dtype)
    target = FrameTarget(frames, exponents, torch.tensor([2, 1], dtype=torch.int32))
    module.combine(partials, counts, combined)
    module.finish_statistics(combined, chunks, operands, spec, affine)
    module.normalize(x, affine, operands, spec, target)
    return target


def parameters(channels: int, smooth: bool = False) -> NormOperands:
    generator = torch.Generator().manual_seed(4)
    smoothing = torch.rand(channels, generator=generator) * 40 if smooth else None
    return NormOperands(
        torch.randn(channels, generator=generator), torch.randn(channels, generator=generator), smoothing
    )


@pytest.mark.parametrize("channels", [32, 128])
@pytest.mark.parametrize("activates", [True, False])
def test_sixteen_bits_equal_pytorch(channels: int, activates: bool) -> None:
    x, operands = picture(channels), parameters(channels)
    weight, bias = operands.weight.double(), operands.bias.double()
    expected = F.group_norm(x.double().permute(0, 3, 1, 2), 32, weight, bias, 1e-6)
    expected = (F.silu(expected) if activates else expected).permute(0, 2, 3, 1)
    target = run(groupnorm, x, operands, NormSpec(activates=activates), torch.float16)
    assert_close(target.frames[[2, 1]], expected, torch.float16)
    assert not target.frames[[0, 3]].any(), "a frame outside the target's slots was written"


@pytest.mark.parametrize("module", [groupnorm, reference])
def test_powers_of_two_in_and_out_change_no_bit(module: object) -> None:
    """A tensor stored smaller, with an epsilon to match, gives the same frames, and they may be stored smaller too."""
    x, operands = picture(64), parameters(64)
    # A group whose variance is below epsilon.
    x[..., :2] *= 2**-12
    expected = run(module, x, operands, NormSpec(eps=1e-3), torch.float32)
    smaller = operands._replace(inverse_smoothing=torch.full((64,), 2.0**-4))
    actual = run(module, x.float() * 2**-6, smaller, NormSpec(eps=1e-3 * 2**-12), torch.float32)
    assert torch.equal(actual.frames * 2**4, expected.frames)


@pytest.mark.parametrize("smooth", [True, False])
@pytest.mark.parametrize("spec", [NormSpec(), NormSpec(normalises=False, activates=False)], ids=["norm", "raw"])
@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.int8])
def test_eight_bits_equal_the_reference(dtype: torch.dtype, spec: NormSpec, smooth: bool) -> None:
    if dtype == torch.int8:
        spec = NormSpec(spec.normalises, spec.activates, limit=127.0, exponent_floor=-20)
    x, operands = picture(64), parameters(64, smooth)
    actual, expected = (run(module, x, operands, spec, dtype) for module in (groupnorm, reference))
    assert actual.exponents is not None
    assert expected.exponents is not None
    assert torch.equal(actual.exponents, expected.exponents)
    assert_close(actual.frames.float(), expected.frames.float(), dtype)


def test_the_exponent_is_the_smallest_that_holds_the_frame() -> None:
    x, operands = picture(64), parameters(64)
    spec = NormSpec(limit=127.0, exponent_floor=-20)
    target = run(groupnorm, x, operands, spec, torch.int8)
    largest = target.frames[[2, 1]].float().abs().amax((1, 2, 3))
    assert (largest > 62).all(), "a frame used less than half of its range"
    assert (largest <= 127).all()


def test_what_exceeds_the_limit_is_clipped_before_the_exponent_rises() -> None:
    """Of frames whose largest values cover an octave some are clipped, and no exponent is larger than it must be."""
    operands = parameters(64)
    spec, roomy = (NormSpec(limit=127.0, exponent_floor=-20, reach=reach) for reach in (2**0.25, 1.0))
    narrower = 0
    for gain in (1.0, 1.2, 1.4, 1.6, 1.8):
        scaled = NormOperands(operands.weight * gain, operands.bias * gain)
        actual, expected, whole = (
            run(module, picture(64), scaled, one, torch.int8)
            for module, one in ((groupnorm, spec), (reference, spec), (reference, roomy))
        )
        assert torch.equal(actual.exponents, expected.exponents)
        assert_close(actual.frames.float(), expected.frames.float(), torch.int8)
        for slot in (2, 1):
            exponent, unclipped = actual.exponents[slot].item(), whole.exponents[slot].item()
            largest = actual.frames[slot].float().abs().max()
            assert largest <= 127
            if exponent < unclipped:
                narrower += 1
                assert exponent == unclipped - 1
                assert largest == 127
                # Everything that fits is twice as fine as it would be.
                fits = whole.frames[slot].abs() < 63
                assert ((actual.frames[slot] / 2 - whole.frames[slot]).abs()[fits] <= 1).all()
    assert 0 < narrower < 10


def test_without_the_range_the_frame_is_bounded_by_its_deviations() -> None:
    x, operands = picture(64), parameters(64)
    target = run(groupnorm, x, operands, NormSpec(exponent_floor=-20), torch.float8_e4m3fn)
    largest = target.frames[[2, 1]].float().abs().amax((1, 2, 3))
    assert (largest <= 448).all()
    # A tile of eight pixels bounds its largest deviation within a factor of the root of eight.
    assert (largest > 448 / 2 / 8**0.5).all()


def test_large_means_do_not_cancel() -> None:
    x, operands = picture(32, offset=1000.0), parameters(32)
    expected = F.group_norm(x.double().permute(0, 3, 1, 2), 32, operands.weight.double(), operands.bias.double(), 1e-6)
    target = run(groupnorm, x, operands, NormSpec(activates=False), torch.float16)
    assert_close(target.frames[[2, 1]], expected.permute(0, 2, 3, 1), torch.float16)


def test_counts_cover_the_picture() -> None:
    counts = tile_counts((HEIGHT, WIDTH), TILE, phases=4)
    assert counts.sum() == 4 * HEIGHT * WIDTH
    assert layout.chunk_counts(counts).sum() == counts.sum()
    assert layout.chunk_counts(counts).numel() <= layout.CHUNKS


def test_many_tiles_of_a_chunk_are_merged_block_by_block() -> None:
    """From 1080p on a chunk has more tiles than are merged at a time."""
    tiles, channels = 128 * layout.CHUNKS, 32
    partials = torch.rand(1, tiles, 2, channels, generator=torch.Generator().manual_seed(5))
    # The means of the second half of a chunk are far from those of the first.
    partials[:, :, 0] += (torch.arange(tiles) // 64 % 2 * 10.0)[:, None]
    counts = torch.full((tiles,), 128, dtype=torch.int32)
    actual, expected = (torch.full((1, layout.CHUNKS, 4, channels), float("nan")) for _ in "ab")
    groupnorm.combine(partials, counts, actual)
    reference.combine(partials, counts, expected)
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


def test_a_frame_that_is_negative_everywhere_has_a_bound() -> None:
    operands = NormOperands(torch.zeros(64), torch.full((64,), -1.278))
    target = run(groupnorm, picture(64), operands, NormSpec(limit=127.0, exponent_floor=-20), torch.int8)
    values = target.frames[[2, 1]].float() * torch.exp2(target.exponents[[2, 1]].float())[:, None, None, None]
    torch.testing.assert_close(values, torch.full_like(values, -0.27846), atol=2e-3, rtol=0)
