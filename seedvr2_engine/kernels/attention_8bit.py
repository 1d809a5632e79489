# Names of kernels follow Triton: constants of a compilation are in capitals, and have no types of their own.
# ruff: noqa: N803
# mypy: allow-untyped-defs, no-check-untyped-defs
"""Attention of one head with up to 512 dimensions in 8 bits.

Queries and keys have one scale for each token. The keys' mean over all tokens is subtracted from them, and the values'
mean from the values: the first changes no probability, the second is added to the result again, and both take away what
is common to all tokens and would cost the format its range. Values are stored transposed, because Hopper multiplies
8-bit numbers only where the sum's dimension is innermost.

Since the keys' mean is zero, so is the mean of a query's scores, and the highest is not below zero: padding is keys of
zero, whose score of zero is taken out of the sum of probabilities at the end. Probabilities are relative to a power of
two, so a rescaled E4M3 number is the same number.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..errors import InvalidArgumentError
from .attention import LOG2_E, load_rows
from .conv3d import describe
from .dispatch import AttentionConfig
from .launch import launch
from .layout import CHUNKS, LARGEST_NORM
from .operands import AttentionOperands

P_BITS = 8
"""Probabilities are stored times 2^8: E4M3 holds 448."""


@triton.jit
def survey_kernel(
    qkv, survey, L, per_part, D: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
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
    at = survey + (t * tl.num_programs(0) + part) * 4 * D + column
    tl.store(at, k_sum)
    tl.store(at + D, v_sum)
    tl.store(at + 2 * D, low)
    tl.store(at + 3 * D, high)


@triton.jit
def settle_kernel(survey, common, L, parts, D: tl.constexpr, PARTS: tl.constexpr, COLUMNS: tl.constexpr):
    """Mean of the keys, mean of the values, and the values' scale, for some dimensions of a frame."""
    t = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    part = tl.arange(0, PARTS)
    there = (part < parts)[:, None]
    at = survey + (t * parts + part)[:, None] * 4 * D + column[None, :]
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
def quantize_values_kernel(qkv, common, v, L, PADDED, D: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Some tokens' values, transposed; padding becomes zero."""
    t = tl.program_id(1).to(tl.int64)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(2) * COLUMNS + tl.arange(0, COLUMNS)
    there = (row < L)[:, None]
    x = tl.load(qkv + (t * L + row)[:, None] * (3 * D) + 2 * D + column[None, :], mask=there, other=0.0)
    mean = tl.load(common + t * 3 * D + D + column)
    scale = tl.load(common + t * 3 * D + 2 * D + column)
    x = tl.where(there, (x.to(tl.float32) - mean[None, :]) / scale[None, :], 0.0)
    at = v + (t * D + column)[:, None] * PADDED + row[None, :]
    tl.store(at, x.to(v.dtype.element_ty).T, mask=(row < PADDED)[None, :])


@triton.jit
def load_values(values, t, n, part, PADDED, D: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_N: tl.constexpr,
                TMA: tl.constexpr):  # fmt: skip
    """[BLOCK_V, BLOCK_N] of the transposed values [D, PADDED] of frame t."""
    if TMA:
        block = values.load([t, part, n]).reshape(BLOCK_V, BLOCK_N)
    else:
        row = part + tl.arange(0, BLOCK_V)
        column = n + tl.arange(0, BLOCK_N)
        zeros = tl.zeros((BLOCK_V, BLOCK_N), dtype=values.dtype.element_ty)
        at = values + (t.to(tl.int64) * D + row)[:, None] * PADDED + column[None, :]
        block = tl.load(at, mask=(column < PADDED)[None, :], other=zeros)
    return block


@triton.jit
def finished(product):
    """The same numbers, where Triton has to wait for the product.

    Otherwise a product runs on into the loop's next turn, where ptxas cannot tell its registers from those that the
    next one starts with, and waits for every single `wgmma` (its message C7515).
    """
    return tl.inline_asm_elementwise("mov.b32 $0, $1;", "=r,r", [product], dtype=tl.float32, is_pure=True, pack=1)


@triton.jit
def attention_8bit_kernel(
    queries, keys, values, q_scale, k_scale, common, y, L, PADDED,
    D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_V: tl.constexpr, TMA: tl.constexpr,
    BITS: tl.constexpr, INTEGER: tl.constexpr, COMPILED: tl.constexpr,
):  # fmt: skip
    """Attend BLOCK_M queries of a frame to all its keys, for BLOCK_V of the values' dimensions."""
    row = tl.program_id(0) // (D // BLOCK_V) * BLOCK_M
    part = tl.program_id(0) % (D // BLOCK_V) * BLOCK_V
    t = tl.program_id(1)
    rows = row + tl.arange(0, BLOCK_M)
    q = load_rows(queries, t, row, 0, L, D, BLOCK_M, D, TMA)
    qs = tl.load(q_scale + t.to(tl.int64) * L + rows, mask=rows < L, other=0.0)
    highest = tl.zeros((BLOCK_M,), tl.float32)
    total = tl.zeros((BLOCK_M,), tl.float32)
    acc = tl.zeros((BLOCK_M, BLOCK_V), tl.float32)
    scales = k_scale + t.to(tl.int64) * L
    for n in range(0, L, BLOCK_N):
        column = n + tl.arange(0, BLOCK_N)
        ks = tl.load(scales + column, mask=column < L, other=0.0)
        k = load_rows(keys, t, n, 0, L, D, BLOCK_N, D, TMA)
        if INTEGER:
            # What starts as the bits of 1.5 * 2^23 counts in that float's last place: no conversion is needed.
            counted = tl.dot(q, k.T, tl.full((BLOCK_M, BLOCK_N), 0x4B400000, tl.int32), out_dtype=tl.int32)
            s = counted.to(tl.float32, bitcast=True) * ks[None, :] - (12582912.0 * ks)[None, :]
        else:
            s = tl.dot(q, k.T) * ks[None, :]
        higher = tl.maximum(highest, tl.ceil(tl.max(s, axis=1) * qs))
        shrink = tl.exp2(highest - higher)
        p = tl.exp2(s * qs[:, None] + (BITS - higher)[:, None])
        total = total * shrink + tl.sum(p, axis=1)
        highest = higher
        v = load_values(values, t, n, part, PADDED, D, BLOCK_V, BLOCK_N, TMA)
        acc = tl.dot(p.to(v.dtype), v.T, acc * shrink[:, None])
        if COMPILED:
            acc = finished(acc)
    padding = (L + BLOCK_N - 1) // BLOCK_N * BLOCK_N - L
    total -= padding * tl.exp2(BITS - highest)
    out = acc / total[:, None]
    columns = part + tl.arange(0, BLOCK_V)
    at = common + t.to(tl.int64) * 3 * D + columns
    out = out * tl.load(at + 2 * D)[None, :] + tl.load(at + D)[None, :]
    tl.store(y + (t.to(tl.int64) * L + rows)[:, None] * D + columns[None, :], out.to(y.dtype.element_ty),
             mask=(rows < L)[:, None])  # fmt: skip


def quantize_attention(qkv: Tensor, operands: AttentionOperands) -> None:
    """qkv (T, L, 3 D), FP16 or BF16 -> the operands of `attend_8bit`; `reference.quantize_attention` is the twin."""
    frames, length, width = qkv.shape
    dim = width // 3
    parts = operands.survey.shape[1]
    columns = min(dim, 64)
    launch(
        survey_kernel, (parts, frames, dim // columns),
        qkv, operands.survey, length, -(-length // parts), D=dim, ROWS=32, COLUMNS=columns, num_warps=4,
    )  # fmt: skip
    launch(
        settle_kernel, (frames, dim // min(dim, 16)),
        operands.survey, operands.common, length, parts, D=dim, PARTS=CHUNKS, COLUMNS=min(dim, 16), num_warps=4,
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
        qkv, operands.common, operands.v, length, padded, D=dim, ROWS=128, COLUMNS=columns, num_warps=4,
    )  # fmt: skip


def attend_8bit(operands: AttentionOperands, y: Tensor, config: AttentionConfig) -> None:
    """softmax(q k^T / sqrt(D)) v for each frame on its own; `reference.attend_8bit` is the twin.

    operands: what `quantize_attention` made -> y (T, L, D), FP16 or BF16. Raises InvalidArgumentError for other shapes
    or dtypes.
    """
    frames, length, dim = operands.q.shape
    if y.shape != operands.q.shape or y.dtype not in (torch.float16, torch.bfloat16):
        raise InvalidArgumentError(
            f"attention in 8 bits: expected a 16-bit output of shape {(frames, length, dim)}, got {tuple(y.shape)} "
            f"{y.dtype}."
        )
    tensors: tuple[object, ...] = (operands.q, operands.k, operands.v)
    if config.uses_tma:
        tensors = (
            describe(operands.q, [1, config.block_m, dim]),
            describe(operands.k, [1, config.block_n, dim]),
            describe(operands.v, [1, config.block_v, config.block_n]),
        )
    launch(
        attention_8bit_kernel, (triton.cdiv(length, config.block_m) * (dim // config.block_v), frames),
        *tensors, operands.q_scale, operands.k_scale, operands.common, y, length, operands.v.shape[2],
        **attention_constants(dim, config, operands.q.dtype == torch.int8),
        num_warps=config.warps, num_stages=config.stages,
    )  # fmt: skip


def attention_constants(dim: int, config: AttentionConfig, integer: bool) -> dict[str, int]:
    """The kernel's compile-time constants; integer: whether queries and keys are INT8."""
    return {
        "D": dim,
        "BLOCK_M": config.block_m,
        "BLOCK_N": config.block_n,
        "BLOCK_V": config.block_v,
        "TMA": config.uses_tma,
        "BITS": P_BITS,
        "INTEGER": integer,
        "COMPILED": not triton.knobs.runtime.interpret,
    }
