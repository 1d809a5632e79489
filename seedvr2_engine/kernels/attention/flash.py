"""Exact attention of one head with up to 512 dimensions, over the positions of each frame.

The output of a program is BLOCK_M queries by BLOCK_V of the value's dimensions: an accumulator of all 512 would take
the whole register file of an SM. Programs that share queries repeat their scores, which costs half of one product per
extra part. Scores never leave the program; the softmax is computed online (Milakov, Gimelshein 2018) in FP32.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ...errors import InvalidArgumentError
from ..configs import AttentionConfig
from ..conv.conv3d import describe
from ..launch import launch


@triton.jit
def load_rows(qkv, t, row, column, L, ROW: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, TMA: tl.constexpr):
    """[ROWS, COLUMNS] of frame t's matrix [L, ROW]; rows from L on are zero."""
    if TMA:
        block = qkv.load([t, row, column]).reshape(ROWS, COLUMNS)
    else:
        rows = row + tl.arange(0, ROWS)
        columns = column + tl.arange(0, COLUMNS)
        zeros = tl.zeros((ROWS, COLUMNS), dtype=qkv.dtype.element_ty)
        first = qkv + t.to(tl.int64) * L * ROW
        block = tl.load(first + rows[:, None] * ROW + columns[None, :], mask=(rows < L)[:, None], other=zeros)
    return block


@triton.jit
def attention_kernel(
    queries, keys, values, y, L, scale_log2,
    D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_V: tl.constexpr, TMA: tl.constexpr,
):  # fmt: skip
    """Attend BLOCK_M queries of a frame to all its keys; `queries`, `keys` and `values` are one tensor [T, L, 3 D]."""
    # Programs that stream the same keys and values run side by side.
    row = tl.program_id(0) // (D // BLOCK_V) * BLOCK_M
    part = tl.program_id(0) % (D // BLOCK_V) * BLOCK_V
    t = tl.program_id(1)
    q = load_rows(queries, t, row, 0, L, 3 * D, BLOCK_M, D, TMA)
    running_max = tl.full((BLOCK_M,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_M,), tl.float32)
    acc = tl.zeros((BLOCK_M, BLOCK_V), tl.float32)
    for n in range(0, L, BLOCK_N):
        k = load_rows(keys, t, n, D, L, 3 * D, BLOCK_N, D, TMA)
        scores = tl.dot(q, k.T) * scale_log2
        scores = tl.where((n + tl.arange(0, BLOCK_N) < L)[None, :], scores, float("-inf"))
        new_max = tl.maximum(running_max, tl.max(scores, axis=1))
        rescaling = tl.exp2(running_max - new_max)
        p = tl.exp2(scores - new_max[:, None])
        total = total * rescaling + tl.sum(p, axis=1)
        running_max = new_max
        v = load_rows(values, t, n, 2 * D + part, L, 3 * D, BLOCK_N, BLOCK_V, TMA)
        acc = tl.dot(p.to(v.dtype), v, acc * rescaling[:, None])
    rows = row + tl.arange(0, BLOCK_M)
    offsets = rows[:, None] * D + part + tl.arange(0, BLOCK_V)[None, :]
    acc = acc / total[:, None]
    tl.store(y + t.to(tl.int64) * L * D + offsets, acc.to(y.dtype.element_ty), mask=(rows < L)[:, None])


LOG2_E = 1.4426950408889634


def attend(qkv: Tensor, y: Tensor, config: AttentionConfig) -> None:
    """softmax(q k^T / sqrt(D)) v for each frame on its own. Reference: `reference.attend`.

    qkv (T, L, 3 D): queries, keys and values side by side, FP16 or BF16, contiguous -> y (T, L, D), same dtype.
    Raises InvalidArgumentError for other shapes or dtypes.
    """
    frames, length, width = qkv.shape
    dim = width // 3
    if y.shape != (frames, length, dim) or y.dtype != qkv.dtype or qkv.dtype not in (torch.float16, torch.bfloat16):
        raise InvalidArgumentError(
            f"attention: expected a 16-bit output of shape {(frames, length, dim)} for qkv {tuple(qkv.shape)} "
            f"{qkv.dtype}, got {tuple(y.shape)} {y.dtype}."
        )
    if config.uses_tma:
        operands = (
            describe(qkv, [1, config.block_m, dim]),
            describe(qkv, [1, config.block_n, dim]),
            describe(qkv, [1, config.block_n, config.block_v]),
        )
    else:
        operands = (qkv, qkv, qkv)
    launch(
        attention_kernel, (triton.cdiv(length, config.block_m) * (dim // config.block_v), frames),
        *operands, y, length, LOG2_E * dim**-0.5,
        D=dim, BLOCK_M=config.block_m, BLOCK_N=config.block_n, BLOCK_V=config.block_v, TMA=config.uses_tma,
        num_warps=config.warps, num_stages=config.stages,
    )  # fmt: skip
