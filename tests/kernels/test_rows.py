"""Rows in 8 bits and the products of such rows against their references."""

import pytest
import torch

from seedvr2_engine.kernels.configs import ProductConfig
from seedvr2_engine.kernels.tokens import gates, product_blocks, product_ends, reference, rows
from seedvr2_engine.kernels.tokens.operands import StreamVectors, TokenStep
from seedvr2_engine.quant.block_scaled import BLOCKS, dequantize_blocks, quantize_blocks
from seedvr2_engine.quant.quantize import LIMITS, BlockScaledTensor, QuantizedTensor, quantize_rows

FORMATS = (torch.int8, torch.float8_e4m3fn)


def room(count: int, width: int, number: torch.dtype) -> QuantizedTensor:
    """Poisoned, so that what is not written shows."""
    data = torch.full((count, width), 0x7F, dtype=torch.uint8).view(number)
    return QuantizedTensor(data, torch.full((count,), float("nan")))


def values(x: QuantizedTensor) -> torch.Tensor:
    return x.data.double() * x.scale[:, None]


def assert_same_numbers(actual: QuantizedTensor, expected: QuantizedTensor) -> None:
    """The same scales up to a last place, and the same numbers but for ones that lie between two."""
    torch.testing.assert_close(actual.scale, expected.scale, rtol=1e-6, atol=0)
    a, b = values(actual), values(expected)
    assert a.isfinite().all()
    step = expected.scale[:, None] if actual.data.dtype == torch.int8 else b.abs() / 8 + expected.scale[:, None] / 512
    assert ((a - b).abs() <= step * 1.001).all()
    assert ((a - b).abs() > step * 1e-3).double().mean() <= 0.01


@pytest.mark.parametrize("number", FORMATS)
@pytest.mark.parametrize("activation", ["none", "gated silu", "gelu"])
@pytest.mark.parametrize(("count", "width"), [(1, 16), (7, 40), (3, 1100)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_rows_equal_the_reference(number, activation, count, width, dtype) -> None:
    torch.manual_seed(0)
    x = (4 * torch.randn(count, width * (2 if activation == "gated silu" else 1))).to(dtype)
    x[0, 1] = 300.0
    x[-1] = 0
    results = []
    for module in (rows, reference):
        results.append(room(count, width, number))
        module.quantize_rows(x, activation, results[-1])
    assert_same_numbers(*results)
    assert results[0].scale[-1] == 1
    assert values(results[0])[-1].eq(0).all()


@pytest.mark.parametrize("number", FORMATS)
def test_a_row_s_largest_magnitude_becomes_the_limit(number) -> None:
    x = torch.tensor([[1.0, -50.0, 3.0] + [0.0] * 13])
    out = room(1, 16, number)
    rows.quantize_rows(x, "none", out)
    assert out.data.float().abs().max() == LIMITS[number]
    assert values(out)[0, 1] == pytest.approx(-50.0, rel=1e-6)


@pytest.mark.parametrize("number", FORMATS)
@pytest.mark.parametrize("width", [40, 128])
def test_step_gives_8_bits_as_the_reference_does(number, width) -> None:
    torch.manual_seed(0)
    video, text = 11, 5
    vectors = [StreamVectors(*torch.randn(2, width)) for _ in range(3)]
    step = TokenStep(video, torch.randn(16, width).bfloat16(), *vectors)
    x = torch.randn(video + text, width).bfloat16()
    results, sums = [], []
    for module in (gates, reference):
        results.append(room(16, width, number))
        sums.append(torch.full_like(x, float("nan")))
        module.step_tokens(x, step, kept=sums[-1], out=results[-1])
    assert torch.equal(*sums)
    assert_same_numbers(*results)


CUTS = [ProductConfig(16, 16, 32, 4, 2, uses_tma=False), ProductConfig(32, 16, 64, 4, 3, uses_tma=True, group=2)]


@pytest.mark.parametrize("number", FORMATS)
@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize(("count", "depth", "columns"), [(1, 32, 16), (50, 80, 24), (33, 208, 40)])
@pytest.mark.parametrize("has_bias", [False, True])
def test_products_equal_the_reference(number, cut, count, depth, columns, has_bias) -> None:
    torch.manual_seed(0)
    x, weight = (quantize_rows(torch.randn(n, depth) * torch.rand(n, 1), number) for n in (count, columns))
    bias = torch.randn(columns).bfloat16() if has_bias else None
    results = []
    for module in (product_ends, reference):
        results.append(torch.full((count, columns), float("nan"), dtype=torch.bfloat16))
        module.multiply(x, weight, bias, results[-1], cut)
    torch.testing.assert_close(results[0].float(), results[1].float(), rtol=8e-3, atol=1e-3)


def block_room(count: int, width: int, format: str) -> BlockScaledTensor:
    """Poisoned, too."""
    data = torch.full((count, width // (2 if format == "nvfp4" else 1)), 0x7F, dtype=torch.uint8)
    blocks = torch.full((count, width // BLOCKS[format]), 0xFF, dtype=torch.uint8)
    number = torch.uint8 if format == "nvfp4" else torch.float8_e4m3fn
    return BlockScaledTensor(data.view(number), torch.full((count,), float("nan")), blocks)


def assert_same_blocks(actual: BlockScaledTensor, expected: BlockScaledTensor) -> None:
    """The same numbers but for few that lie between two, or whose block's scale does."""
    torch.testing.assert_close(actual.scale, expected.scale, rtol=1e-6, atol=0)
    a, b = dequantize_blocks(actual), dequantize_blocks(expected)
    assert a.isfinite().all()
    assert (actual.blocks != expected.blocks).double().mean() <= 0.01
    largest = b.unflatten(1, (expected.blocks.shape[1], -1)).abs().amax(2, keepdim=True)
    step = largest / 2.9
    assert ((a - b).abs().unflatten(1, (expected.blocks.shape[1], -1)) <= step).all()
    assert ((a - b).abs() > b.abs() * 1e-5).double().mean() <= 0.01


@pytest.mark.parametrize("format", BLOCKS)
@pytest.mark.parametrize("activation", ["none", "gated silu", "gelu"])
@pytest.mark.parametrize(("count", "width"), [(1, 32), (7, 96), (3, 1120)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_block_scaled_rows_equal_the_reference(format, activation, count, width, dtype) -> None:
    torch.manual_seed(0)
    x = (4 * torch.randn(count, width * (2 if activation == "gated silu" else 1))).to(dtype)
    x[0, 1] = 300.0
    x[:, 32:64] *= 1e-3
    x[-1] = 0
    results = []
    for module in (rows, reference):
        results.append(block_room(count, width, format))
        module.quantize_rows(x, activation, results[-1])
    assert_same_blocks(*results)
    assert results[0].scale[-1] == 1
    assert dequantize_blocks(results[0])[-1].eq(0).all()


@pytest.mark.parametrize("format", BLOCKS)
@pytest.mark.parametrize("width", [96, 128])
def test_step_gives_block_scaled_rows_as_the_reference_does(format, width) -> None:
    torch.manual_seed(0)
    vectors = [StreamVectors(*torch.randn(2, width)) for _ in range(3)]
    step = TokenStep(11, torch.randn(16, width).bfloat16(), *vectors)
    x = torch.randn(16, width).bfloat16()
    results, sums = [], []
    for module in (gates, reference):
        results.append(block_room(16, width, format))
        sums.append(torch.full_like(x, float("nan")))
        module.step_tokens(x, step, kept=sums[-1], out=results[-1])
    assert torch.equal(*sums)
    assert_same_blocks(*results)


BLOCK_CUTS = [ProductConfig(16, 16, 64, 4, 2, uses_tma=False), ProductConfig(32, 16, 128, 4, 3, uses_tma=True, group=2)]


@pytest.mark.parametrize("format", BLOCKS)
@pytest.mark.parametrize("cut", BLOCK_CUTS)
@pytest.mark.parametrize(("count", "depth", "columns"), [(1, 32, 16), (50, 96, 24), (33, 224, 40)])
@pytest.mark.parametrize("has_bias", [False, True])
def test_block_scaled_products_equal_the_reference(format, cut, count, depth, columns, has_bias) -> None:
    torch.manual_seed(0)
    x, weight = (quantize_blocks(torch.randn(n, depth) * torch.rand(n, 1), format) for n in (count, columns))
    bias = torch.randn(columns).bfloat16() if has_bias else None
    results = []
    for module in (product_blocks, reference):
        results.append(torch.full((count, columns), float("nan"), dtype=torch.bfloat16))
        module.multiply(x, weight, bias, results[-1], cut)
    torch.testing.assert_close(results[0].float(), results[1].float(), rtol=8e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("row_scale", lambda largest, limit: largest / limit * 2),
        ("in_8_bits", lambda value, inverse, limit: value * inverse + 0.5),
    ],
)
def test_a_fault_in_the_kernel_is_noticed(name, fault, monkeypatch) -> None:
    pytest.importorskip("triton")
    monkeypatch.setattr(rows, name, fault)
    x, results = torch.randn(5, 40), []
    for module in (rows, reference):
        results.append(room(5, 40, torch.int8))
        module.quantize_rows(x, "none", results[-1])
    with pytest.raises(AssertionError):
        assert_same_numbers(*results)
