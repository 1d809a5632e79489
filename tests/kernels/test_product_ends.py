"""Products in 8 bits with what follows them, against their references."""

import pytest
import torch
import triton.language as tl

from seedvr2_engine.kernels.configs import ProductConfig
from seedvr2_engine.kernels.tokens import product_ends, reference
from seedvr2_engine.kernels.tokens.operands import GatedSum, StreamVectors
from seedvr2_engine.quant.quantize import quantize_rows

INT8, FP8 = torch.int8, torch.float8_e4m3fn
CUTS = [
    ProductConfig(16, 32, 32, 4, 2, uses_tma=False, parts=2),
    ProductConfig(32, 32, 64, 4, 3, uses_tma=True, group=2, parts=1, stays=True),
    ProductConfig(16, 64, 64, 4, 3, uses_tma=True, group=2, parts=4, stays=True),
]
CASES = [
    (INT8, CUTS[0], (1, 32, 16)),
    (FP8, CUTS[0], (33, 80, 24)),
    (FP8, CUTS[1], (50, 208, 40)),
    (INT8, CUTS[1], (70, 80, 72)),
    (FP8, CUTS[2], (33, 80, 72)),
]
"""Number format, cut, and rows, depth and columns; more tiles than programs that stay, and ragged ones."""


def operands(count, depth, columns, number):
    torch.manual_seed(0)
    return (quantize_rows(torch.randn(n, depth) * torch.rand(n, 1), number) for n in (count, columns))


def assert_close(actual, expected) -> None:
    torch.testing.assert_close(actual.float(), expected.float(), rtol=8e-3, atol=1e-3)


@pytest.mark.parametrize(("number", "cut", "shape"), CASES)
def test_gated_sums_equal_the_reference(number, cut, shape) -> None:
    x, weight = operands(*shape, number)
    count, _, columns = shape
    bias = None if cut is CUTS[1] else torch.randn(columns).bfloat16()
    end = GatedSum(torch.randn(count, columns).bfloat16(), StreamVectors(*torch.randn(2, columns)), count * 2 // 3)
    expected = torch.empty(count, columns, dtype=torch.bfloat16)
    reference.add_product(x, weight, bias, end, expected, None)
    out = torch.full_like(expected, float("nan"))
    product_ends.add_product(x, weight, bias, end, out, cut)
    assert_close(out, expected)
    # The tokens themselves may take the sum.
    product_ends.add_product(x, weight, bias, end, end.tokens, cut)
    assert torch.equal(end.tokens, out)


@pytest.mark.parametrize(("number", "cut", "shape"), CASES)
def test_gated_products_equal_the_reference(number, cut, shape) -> None:
    count, depth, columns = shape
    x, weight = operands(count, depth, 2 * columns, number)
    results = []
    for module in (product_ends, reference):
        results.append(torch.full((count, columns), float("nan"), dtype=torch.bfloat16))
        module.multiply_gated(x, weight, results[-1], cut)
    assert_close(*results)


@pytest.mark.parametrize("cut", CUTS)
def test_plain_products_equal_the_reference(cut) -> None:
    x, weight = operands(50, 80, 40, INT8)
    bias, results = torch.randn(40).bfloat16(), []
    for module in (product_ends, reference):
        results.append(torch.full((50, 40), float("nan"), dtype=torch.bfloat16))
        module.multiply(x, weight, bias, results[-1], cut)
    assert_close(*results)


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("scaled", lambda acc, by_row, scales, c, columns: acc.to(tl.float32) * by_row[:, None]),
        ("tile_of", lambda program, rows, columns, height, width, group: (program * 0, program * width)),
    ],
)
def test_a_fault_in_the_kernel_is_noticed(name, fault, monkeypatch) -> None:
    monkeypatch.setattr(product_ends, name, fault)
    with pytest.raises(AssertionError):
        test_gated_products_equal_the_reference(*CASES[1])
