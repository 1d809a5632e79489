"""Rows of tokens in 8 bits: each with a scale of its own, its largest magnitude at the format's limit."""

import triton
import triton.language as tl
from torch import Tensor

from ...quant.quantize import LIMITS, QuantizedTensor
from ..launch import launch
from .operands import Activation

WARPS = 8


@triton.jit
def row_scale(largest, LIMIT: tl.constexpr):
    """The scale of a row: 1 where there are only zeros."""
    return tl.where(largest > 0, largest / LIMIT, 1.0)


@triton.jit
def in_8_bits(value, inverse, LIMIT: tl.constexpr):
    """value * inverse as the format has it, still in float32; INT8, which has the limit 127, rounds halves up."""
    value = value * inverse
    if LIMIT == 127:
        value = tl.floor(value + 0.5)
    return tl.minimum(tl.maximum(value, -LIMIT), LIMIT)


@triton.jit
def activated(x, at, c, mask, WIDTH: tl.constexpr, ACTIVATION: tl.constexpr):
    """A part of a row in float32, after its activation."""
    value = tl.load(x + at + c, mask=mask, other=0.0).to(tl.float32)
    if ACTIVATION == "gated silu":
        up = tl.load(x + at + WIDTH + c, mask=mask, other=0.0).to(tl.float32)
        value = value * tl.sigmoid(value) * up
    if ACTIVATION == "gelu":
        # 0.5 x (1 + tanh(u)) = x sigmoid(2 u)
        value = value * tl.sigmoid(1.5957691216057308 * (value + 0.044715 * value * value * value))
    return value


@triton.jit
def quantize_rows_kernel(
    x, out, scales, WIDTH: tl.constexpr, HEAD: tl.constexpr, TAIL: tl.constexpr, STRIDE: tl.constexpr,
    LIMIT: tl.constexpr, ACTIVATION: tl.constexpr,
):  # fmt: skip
    """One row, in two parts, HEAD and TAIL wide."""
    row = tl.program_id(0).to(tl.int64)
    h = tl.arange(0, HEAD)
    t = HEAD + tl.arange(0, TAIL)
    head = activated(x, row * STRIDE, h, h < WIDTH, WIDTH, ACTIVATION)
    tail = activated(x, row * STRIDE, t, t < WIDTH, WIDTH, ACTIVATION)
    scale = row_scale(tl.maximum(tl.max(tl.abs(head), axis=0), tl.max(tl.abs(tail), axis=0)), LIMIT)
    tl.store(scales + row, scale)
    target = out + row * WIDTH
    kind: tl.constexpr = out.dtype.element_ty
    tl.store(target + h, in_8_bits(head, 1.0 / scale, LIMIT).to(kind), mask=h < WIDTH)
    tl.store(target + t, in_8_bits(tail, 1.0 / scale, LIMIT).to(kind), mask=t < WIDTH)


def halves(width: int) -> tuple[int, int]:
    """Two powers of two that cover a row: the largest one inside it, and one for the rest."""
    head = triton.next_power_of_2(width + 1) // 2
    if head == width:
        return width // 2, width // 2
    return head, triton.next_power_of_2(width - head)


def limit_of(data: Tensor) -> int:
    """The largest magnitude of an 8-bit tensor's format."""
    return int(LIMITS[data.dtype])


def quantize_rows(x: Tensor, activation: Activation, out: QuantizedTensor) -> None:
    """Rows (rows, width), activated, into 8 bits with a scale for each; `reference.quantize_rows` is the reference.

    x is (rows, 2 * width) for "gated silu", gates before what they gate. Computed in float32 and rounded once.
    """
    rows, width = out.data.shape
    head, tail = halves(width)
    launch(
        quantize_rows_kernel, (rows,),
        x, *out, WIDTH=width, HEAD=head, TAIL=tail, STRIDE=x.shape[1], LIMIT=limit_of(out.data),
        ACTIVATION=activation, num_warps=WARPS,
    )  # fmt: skip
