"""Attention of one head with up to 512 dimensions in 8 bits, on what `quantize` prepares.

Since the keys' mean is zero, so is the mean of a query's scores, and the largest is not below zero: padding is keys of
zero, whose score of zero is taken out of the sum of probabilities at the end. Probabilities are relative to a power of
two, so a rescaled E4M3 number is the same number.

There are two ways through the blocks of keys, with the same bits: in turn, and, for `wgmma`, overlapping.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ...errors import InvalidArgumentError
from ..configs import AttentionConfig
from ..conv.conv3d import describe
from ..conv.operands import AttentionOperands
from ..launch import launch
from .flash import load_rows
from .wgmma import finished, in_value_order, pack_e4m3, rescale, unpack_e4m3

P_BITS = 8
"""Probabilities are stored times 2^8: E4M3 holds 448."""


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
def multiply(q, k, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, INTEGER: tl.constexpr):
    """[BLOCK_M, BLOCK_N]: products of queries and keys, as `softmax_step` takes them."""
    if INTEGER:
        # What starts as the bits of 1.5 * 2^23 counts in that float's last place: no conversion is needed.
        products = tl.dot(q, k.T, tl.full((BLOCK_M, BLOCK_N), 0x4B400000, tl.int32), out_dtype=tl.int32)
    else:
        products = tl.dot(q, k.T)
    return products


@triton.jit
def softmax_step(products, qs, ks, running_max, BITS: tl.constexpr, INTEGER: tl.constexpr):
    """A block's probabilities, what earlier ones are multiplied by, and the power of two above the largest score."""
    if INTEGER:
        s = products.to(tl.float32, bitcast=True) * ks[None, :] - (12582912.0 * ks)[None, :]
    else:
        s = products * ks[None, :]
    new_max = tl.maximum(running_max, tl.ceil(tl.max(s, axis=1) * qs))
    rescaling = tl.exp2(running_max - new_max)
    p = tl.exp2(s * qs[:, None] + (BITS - new_max)[:, None])
    return p, rescaling, new_max


@triton.jit
def attend_in_turn(
    q, qs, keys, values, scales, t, part, L, PADDED,
    D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_V: tl.constexpr, TMA: tl.constexpr,
    BITS: tl.constexpr, INTEGER: tl.constexpr, COMPILED: tl.constexpr,
):  # fmt: skip
    """Sums of weighed values [BLOCK_M, BLOCK_V], sums of probabilities and the power they are relative to [BLOCK_M]."""
    running_max = tl.zeros((BLOCK_M,), tl.float32)
    total = tl.zeros((BLOCK_M,), tl.float32)
    acc = tl.zeros((BLOCK_M, BLOCK_V), tl.float32)
    for n in range(0, L, BLOCK_N):
        column = n + tl.arange(0, BLOCK_N)
        ks = tl.load(scales + column, mask=column < L, other=0.0)
        k = load_rows(keys, t, n, 0, L, D, BLOCK_N, D, TMA)
        products = multiply(q, k, BLOCK_M, BLOCK_N, INTEGER)
        p, rescaling, running_max = softmax_step(products, qs, ks, running_max, BITS, INTEGER)
        total = total * rescaling + tl.sum(p, axis=1)
        v = load_values(values, t, n, part, PADDED, D, BLOCK_V, BLOCK_N, TMA)
        acc = tl.dot(p.to(v.dtype), v.T, acc * rescaling[:, None])
        if COMPILED:
            acc = finished(acc)
    return acc, total, running_max


@triton.jit
def weigh(acc, packed, values, t, n, part, PADDED, D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
          BLOCK_V: tl.constexpr, TMA: tl.constexpr, COMPILED: tl.constexpr):  # fmt: skip
    """acc plus the values from token n on, times their probabilities."""
    v = load_values(values, t, n, part, PADDED, D, BLOCK_V, BLOCK_N, TMA)
    return tl.dot(in_value_order(unpack_e4m3(packed, COMPILED), BLOCK_M, BLOCK_N), v.T, acc)


@triton.jit
def attend_overlapping(
    q, qs, keys, values, scales, t, part, L, PADDED,
    D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_V: tl.constexpr, TMA: tl.constexpr,
    BITS: tl.constexpr, INTEGER: tl.constexpr, COMPILED: tl.constexpr,
):  # fmt: skip
    """The same: a turn begins the product with the block before's values, and computes its own softmax meanwhile.

    The first turn multiplies probabilities of zero; the last block's product is left for the end.
    """
    running_max = tl.zeros((BLOCK_M,), tl.float32)
    total = tl.zeros((BLOCK_M,), tl.float32)
    acc = tl.zeros((BLOCK_M, BLOCK_V), tl.float32)
    rescaling = tl.full((BLOCK_M,), 1.0, tl.float32)
    packed = pack_e4m3(tl.zeros((BLOCK_M, BLOCK_N), tl.float32), COMPILED)
    for n in range(0, L, BLOCK_N):
        column = n + tl.arange(0, BLOCK_N)
        ks = tl.load(scales + column, mask=column < L, other=0.0)
        k = load_rows(keys, t, n, 0, L, D, BLOCK_N, D, TMA)
        products = multiply(q, k, BLOCK_M, BLOCK_N, INTEGER)
        acc = rescale(acc, rescaling, COMPILED)
        before = tl.maximum(n - BLOCK_N, 0)
        acc = weigh(acc, packed, values, t, before, part, PADDED, D, BLOCK_M, BLOCK_N, BLOCK_V, TMA, COMPILED)
        p, rescaling, running_max = softmax_step(products, qs, ks, running_max, BITS, INTEGER)
        total = total * rescaling + tl.sum(p, axis=1)
        packed = pack_e4m3(p, COMPILED)
    last = (L - 1) // BLOCK_N * BLOCK_N
    acc = weigh(
        acc * rescaling[:, None], packed, values, t, last, part, PADDED, D, BLOCK_M, BLOCK_N, BLOCK_V, TMA, COMPILED
    )
    return acc, total, running_max


@triton.jit
def attention_8bit_kernel(
    queries, keys, values, q_scale, k_scale, common, y, L, PADDED,
    D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_V: tl.constexpr, TMA: tl.constexpr,
    OVERLAPS: tl.constexpr, BITS: tl.constexpr, INTEGER: tl.constexpr, COMPILED: tl.constexpr,
):  # fmt: skip
    """Attend BLOCK_M queries of a frame to all its keys, for BLOCK_V of the values' dimensions."""
    row = tl.program_id(0) // (D // BLOCK_V) * BLOCK_M
    part = tl.program_id(0) % (D // BLOCK_V) * BLOCK_V
    t = tl.program_id(1)
    rows = row + tl.arange(0, BLOCK_M)
    q = load_rows(queries, t, row, 0, L, D, BLOCK_M, D, TMA)
    qs = tl.load(q_scale + t.to(tl.int64) * L + rows, mask=rows < L, other=0.0)
    scales = k_scale + t.to(tl.int64) * L
    if OVERLAPS:
        acc, total, running_max = attend_overlapping(
            q, qs, keys, values, scales, t, part, L, PADDED, D, BLOCK_M, BLOCK_N, BLOCK_V, TMA, BITS, INTEGER, COMPILED
        )
    else:
        acc, total, running_max = attend_in_turn(
            q, qs, keys, values, scales, t, part, L, PADDED, D, BLOCK_M, BLOCK_N, BLOCK_V, TMA, BITS, INTEGER, COMPILED
        )
    padding = (L + BLOCK_N - 1) // BLOCK_N * BLOCK_N - L
    total -= padding * tl.exp2(BITS - running_max)
    out = acc / total[:, None]
    columns = part + tl.arange(0, BLOCK_V)
    at = common + t.to(tl.int64) * 3 * D + columns
    out = out * tl.load(at + 2 * D)[None, :] + tl.load(at + D)[None, :]
    tl.store(y + (t.to(tl.int64) * L + rows)[:, None] * D + columns[None, :], out.to(y.dtype.element_ty),
             mask=(rows < L)[:, None])  # fmt: skip


def attend_8bit(operands: AttentionOperands, y: Tensor, config: AttentionConfig) -> None:
    """softmax(q k^T / sqrt(D)) v for each frame on its own. Reference: `reference.attend_8bit`.

    operands: what `quantize_attention` made for the same config -> y (T, L, D), FP16 or BF16. Raises
    InvalidArgumentError for other shapes or dtypes.
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
        "OVERLAPS": config.overlaps,
        "BITS": P_BITS,
        "INTEGER": integer,
        "COMPILED": not triton.knobs.runtime.interpret,
    }
