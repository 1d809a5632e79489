"""Queries, keys and values of one attention head in 8 bits, for `eight_bit`.

Queries and keys have one scale for each token. The keys' mean over all tokens is subtracted from them, and the values'
mean from the values: the first changes no probability, the second is added to the result again, and both take away what
is common to all tokens and would cost the format its range. Values are stored transposed, because Hopper multiplies
8-bit numbers only where the sum's dimension is innermost.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..configs import AttentionConfig
from ..conv.operands import AttentionOperands
from ..launch import launch
from ..layout import CHUNKS, LARGEST_NORM
from .flash import LOG2_E
from .wgmma import token_at


@triton.jit(do_not_specialize=["L", "per_part"])
def partial_statistics_kernel(
    qkv, partials, L, per_part, D: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Sum of the keys, sum, smallest and largest of the values, for one part of the tokens and some dimensions."""
    part, t = tl.program_id(0), tl.program_id(1).to(tl.int64)
    column = tl.program_id(2) * COLUMNS + tl.arange(0, COLUMNS)
    begin = part * per_part
    end = tl.minimum(begin + per_part, L)
    k_sum = tl.zeros((COLUMNS,), tl.float32)
    v_sum = tl.zeros((COLUMNS,), tl.float32)
    low = tl.full((COLUMNS,), float("inf"), tl.float32)
    high = tl.full((COLUMNS,), float("-inf"), tl.float32)
    for first in range(begin, end, ROWS):
        row = first + tl.arange(0, ROWS)
        there = (row < end)[:, None]
        at = qkv + (t * L + row.to(tl.int64))[:, None] * (3 * D) + column[None, :]
        k = tl.load(at + D, mask=there, other=0.0).to(tl.float32)
        v = tl.load(at + 2 * D, mask=there, other=0.0).to(tl.float32)
        k_sum += tl.sum(k, axis=0)
        v_sum += tl.sum(v, axis=0)
        low = tl.minimum(low, tl.min(tl.where(there, v, float("inf")), axis=0))
        high = tl.maximum(high, tl.max(tl.where(there, v, float("-inf")), axis=0))
    at = partials + (t * tl.num_programs(0) + part) * 4 * D + column
    tl.store(at, k_sum)
    tl.store(at + D, v_sum)
    tl.store(at + 2 * D, low)
    tl.store(at + 3 * D, high)


@triton.jit(do_not_specialize=["L", "parts"])
def final_statistics_kernel(partials, common, L, parts, D: tl.constexpr, PARTS: tl.constexpr, COLUMNS: tl.constexpr):
    """Mean of the keys, mean of the values, and the values' scale, for some dimensions of a frame."""
    t = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    part = tl.arange(0, PARTS)
    there = (part < parts)[:, None]
    at = partials + (t * parts + part)[:, None] * 4 * D + column[None, :]
    k_mean = tl.sum(tl.load(at, mask=there, other=0.0), axis=0) / L
    v_mean = tl.sum(tl.load(at + D, mask=there, other=0.0), axis=0) / L
    low = tl.min(tl.load(at + 2 * D, mask=there, other=float("inf")), axis=0)
    high = tl.max(tl.load(at + 3 * D, mask=there, other=float("-inf")), axis=0)
    reach = tl.maximum(tl.maximum(high - v_mean, v_mean - low), 1e-20)
    at = common + t * 3 * D + column
    tl.store(at, k_mean)
    tl.store(at + D, v_mean)
    tl.store(at + 2 * D, reach / 448.0)


@triton.jit
def quantize_tokens_kernel(
    qkv, common, q, k, q_scale, k_scale, L, scale_log2, D: tl.constexpr, ROWS: tl.constexpr, LIMIT: tl.constexpr,
    NORM: tl.constexpr,
):  # fmt: skip
    """The queries (program 0 of the last axis) or the keys of some tokens."""
    t = tl.program_id(1).to(tl.int64)
    is_key = tl.program_id(2)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, D)
    there = row < L
    token = t * L + row
    x = tl.load(qkv + token[:, None] * (3 * D) + is_key * D + column[None, :], mask=there[:, None], other=0.0)
    x = x.to(tl.float32)
    if is_key:
        x -= tl.load(common + t * 3 * D + column)[None, :]
    scale = tl.maximum(tl.max(tl.abs(x), axis=1), 1e-20) / LIMIT
    if LIMIT == 127:
        scale = tl.maximum(scale, tl.sqrt(tl.sum(x * x, axis=1)) / NORM)
    x = x / scale[:, None]
    if LIMIT == 127:
        x = tl.floor(x + 0.5)
    if is_key:
        tl.store(k + token[:, None] * D + column[None, :], x.to(k.dtype.element_ty), mask=there[:, None])
        tl.store(k_scale + token, scale, mask=there)
    else:
        tl.store(q + token[:, None] * D + column[None, :], x.to(q.dtype.element_ty), mask=there[:, None])
        tl.store(q_scale + token, scale * scale_log2, mask=there)


@triton.jit
def quantize_values_kernel(
    qkv, common, v, L, PADDED, D: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, REORDERS: tl.constexpr,
):  # fmt: skip
    """Some tokens' values, transposed, perhaps in `layout.value_order`; padding becomes zero."""
    t = tl.program_id(1).to(tl.int64)
    place = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    row = token_at(place) if REORDERS else place
    column = tl.program_id(2) * COLUMNS + tl.arange(0, COLUMNS)
    there = (row < L)[:, None]
    x = tl.load(qkv + (t * L + row)[:, None] * (3 * D) + 2 * D + column[None, :], mask=there, other=0.0)
    mean = tl.load(common + t * 3 * D + D + column)
    scale = tl.load(common + t * 3 * D + 2 * D + column)
    x = tl.where(there, (x.to(tl.float32) - mean[None, :]) / scale[None, :], 0.0)
    at = v + (t * D + column)[:, None] * PADDED + place[None, :]
    tl.store(at, x.to(v.dtype.element_ty).T, mask=(place < PADDED)[None, :])


def quantize_attention(qkv: Tensor, operands: AttentionOperands, config: AttentionConfig) -> None:
    """qkv (T, L, 3 D), FP16 or BF16 -> the operands of `attend_8bit`. Reference: `reference.quantize_attention`.

    config: that of `attend_8bit`, which tells in what order it wants the values' tokens.
    """
    frames, length, width = qkv.shape
    dim = width // 3
    parts = operands.partials.shape[1]
    columns = min(dim, 64)
    launch(
        partial_statistics_kernel, (parts, frames, dim // columns),
        qkv, operands.partials, length, -(-length // parts), D=dim, ROWS=32, COLUMNS=columns, num_warps=4,
    )  # fmt: skip
    launch(
        final_statistics_kernel, (frames, dim // min(dim, 16)),
        operands.partials, operands.common, length, parts, D=dim, PARTS=CHUNKS, COLUMNS=min(dim, 16), num_warps=4,
    )  # fmt: skip
    launch(
        quantize_tokens_kernel, (triton.cdiv(length, 8), frames, 2),
        qkv, operands.common, operands.q, operands.k, operands.q_scale, operands.k_scale, length,
        LOG2_E * dim**-0.5, D=dim, ROWS=8, LIMIT=127 if operands.q.dtype == torch.int8 else 448,
        NORM=LARGEST_NORM, num_warps=4,
    )  # fmt: skip
    padded = operands.v.shape[2]
    launch(
        quantize_values_kernel, (triton.cdiv(padded, 128), frames, dim // columns),
        qkv, operands.common, operands.v, length, padded, D=dim, ROWS=128, COLUMNS=columns,
        REORDERS=config.overlaps, num_warps=4,
    )  # fmt: skip
