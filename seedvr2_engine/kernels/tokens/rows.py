"""Rows of tokens in 8 bits: each with a scale of its own, its largest magnitude at the format's limit."""

import triton
import triton.language as tl
from torch import Tensor

from ...quant.block_scaled import BLOCKS
from ...quant.quantize import LIMITS, BlockScaledTensor, QuantizedTensor
from ..launch import launch
from .block_rows import store_mxfp8, store_nvfp4
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
def store_rounded(
    head, tail, row, there, out, scales, blocks,
    WIDTH: tl.constexpr, HEAD: tl.constexpr, TAIL: tl.constexpr, LIMIT: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """A row, in two parts, in the format that LIMIT and BLOCK mean: zeros stand where a part is beyond the width."""
    largest = tl.maximum(tl.max(tl.abs(head), axis=0), tl.max(tl.abs(tail), axis=0))
    if BLOCK == 32:
        tl.store(scales + row, 1.0, mask=there)
        target = out + row.to(tl.int64) * WIDTH
        store_mxfp8(head, target, blocks + row.to(tl.int64) * (WIDTH // 32), 0, there, WIDTH, HEAD)
        store_mxfp8(tail, target, blocks + row.to(tl.int64) * (WIDTH // 32), HEAD, there, WIDTH, TAIL)
    elif BLOCK == 16:
        scale = row_scale(largest, 2688)
        tl.store(scales + row, scale, mask=there)
        target = out + row.to(tl.int64) * (WIDTH // 2)
        store_nvfp4(head, scale, target, blocks + row.to(tl.int64) * (WIDTH // 16), 0, there, WIDTH, HEAD)
        store_nvfp4(tail, scale, target, blocks + row.to(tl.int64) * (WIDTH // 16), HEAD, there, WIDTH, TAIL)
    else:
        h = tl.arange(0, HEAD)
        t = HEAD + tl.arange(0, TAIL)
        scale = row_scale(largest, LIMIT)
        tl.store(scales + row, scale, mask=there)
        target = out + row.to(tl.int64) * WIDTH
        kind: tl.constexpr = out.dtype.element_ty
        tl.store(target + h, in_8_bits(head, 1.0 / scale, LIMIT).to(kind), mask=(h < WIDTH) & there)
        tl.store(target + t, in_8_bits(tail, 1.0 / scale, LIMIT).to(kind), mask=(t < WIDTH) & there)


@triton.jit
def quantize_rows_kernel(
    x, out, scales, blocks, WIDTH: tl.constexpr, HEAD: tl.constexpr, TAIL: tl.constexpr, STRIDE: tl.constexpr,
    LIMIT: tl.constexpr, BLOCK: tl.constexpr, ACTIVATION: tl.constexpr,
):  # fmt: skip
    """One row, in two parts, HEAD and TAIL wide."""
    row = tl.program_id(0).to(tl.int64)
    h = tl.arange(0, HEAD)
    t = HEAD + tl.arange(0, TAIL)
    head = activated(x, row * STRIDE, h, h < WIDTH, WIDTH, ACTIVATION)
    tail = activated(x, row * STRIDE, t, t < WIDTH, WIDTH, ACTIVATION)
    store_rounded(head, tail, row, True, out, scales, blocks, WIDTH, HEAD, TAIL, LIMIT, BLOCK)


def halves(width: int) -> tuple[int, int]:
    """Two powers of two that cover a row: the largest one inside it, and one for the rest."""
    head = triton.next_power_of_2(width + 1) // 2
    if head == width:
        return width // 2, width // 2
    return head, triton.next_power_of_2(width - head)


def format_constants(out: QuantizedTensor | BlockScaledTensor) -> tuple[Tensor | None, int, int]:
    """Scales of blocks, if any, the largest magnitude of the format, and how many values a block has (0: a row)."""
    if isinstance(out, BlockScaledTensor):
        return out.blocks, 448, BLOCKS["mxfp8" if out.data.is_floating_point() else "nvfp4"]
    return None, int(LIMITS[out.data.dtype]), 0


def quantize_rows(x: Tensor, activation: Activation, out: QuantizedTensor | BlockScaledTensor) -> None:
    """Rows (rows, width), activated, into 8 or 4 bits; `reference.quantize_rows` is the reference.

    x is (rows, 2 * width) for "gated silu", gates before what they gate. Computed in float32 and rounded once.
    """
    rows = len(out.data)
    width = x.shape[1] // (2 if activation == "gated silu" else 1)
    head, tail = halves(width)
    blocks, limit, block = format_constants(out)
    launch(
        quantize_rows_kernel, (rows,),
        x, out.data, out.scale, blocks, WIDTH=width, HEAD=max(head, block), TAIL=max(tail, block),
        STRIDE=x.shape[1], LIMIT=limit,
        BLOCK=block, ACTIVATION=activation, num_warps=WARPS,
    )  # fmt: skip
