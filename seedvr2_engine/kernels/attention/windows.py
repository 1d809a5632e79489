"""Attention inside sequences of different lengths, which stand one after the other; results go where they are wanted.

The softmax is computed online (Milakov, Gimelshein 2018) in FP32; only a sequence's last block of keys is masked.
"""

import triton
import triton.language as tl
from torch import Tensor

from ..configs import WindowConfig
from ..conv.conv3d import describe
from ..launch import launch

LOG2_E = 1.4426950408889634


@triton.jit
def load_rows(x, row, end, head, D: tl.constexpr, HEADS: tl.constexpr, ROWS: tl.constexpr, TMA: tl.constexpr):
    """[ROWS, D] of one head from `row` on; with pointers rows from `end` on are zero."""
    if TMA:
        block = x.load([row, head * D])
    else:
        rows = row + tl.arange(0, ROWS)
        at = rows.to(tl.int64)[:, None] * (HEADS * D) + head * D + tl.arange(0, D)[None, :]
        block = tl.load(x + at, mask=(rows < end)[:, None], other=0.0)
    return block


@triton.jit
def attend_block(
    acc, total, running_max, q, k, v, row, end, head, scale_log2,
    D: tl.constexpr, HEADS: tl.constexpr, BLOCK_N: tl.constexpr, TMA: tl.constexpr, MASKS: tl.constexpr,
):  # fmt: skip
    """One step of the online softmax over BLOCK_N keys."""
    keys = load_rows(k, row, end, head, D, HEADS, BLOCK_N, TMA)
    scores = tl.dot(q, keys.T)
    if MASKS:
        scores = tl.where((row + tl.arange(0, BLOCK_N) < end)[None, :], scores, float("-inf"))
    new_max = tl.maximum(running_max, tl.max(scores, axis=1) * scale_log2)
    p = tl.exp2(scores * scale_log2 - new_max[:, None])
    rescaling = tl.exp2(running_max - new_max)
    total = total * rescaling + tl.sum(p, axis=1)
    values = load_rows(v, row, end, head, D, HEADS, BLOCK_N, TMA)
    acc = tl.dot(p.to(values.dtype), values, acc * rescaling[:, None])
    return acc, total, new_max


@triton.jit
def window_attention_kernel(
    q, k, v, work, places, out, scale_log2,
    D: tl.constexpr, HEADS: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, TMA: tl.constexpr,
):  # fmt: skip
    """One head of one block of queries of one sequence."""
    entry = work + tl.program_id(0) * 4
    head = tl.program_id(1)
    first, last = tl.load(entry), tl.load(entry + 1)
    begin, end = tl.load(entry + 2), tl.load(entry + 3)
    queries = load_rows(q, first, last, head, D, HEADS, BLOCK_M, TMA)
    running_max = tl.full((BLOCK_M,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_M,), tl.float32)
    acc = tl.zeros((BLOCK_M, D), tl.float32)
    whole = begin + (end - begin) // BLOCK_N * BLOCK_N
    for row in range(begin, whole, BLOCK_N):
        acc, total, running_max = attend_block(
            acc, total, running_max, queries, k, v, row, end, head, scale_log2, D, HEADS, BLOCK_N, TMA, False
        )
    if whole < end:
        acc, total, running_max = attend_block(
            acc, total, running_max, queries, k, v, whole, end, head, scale_log2, D, HEADS, BLOCK_N, TMA, True
        )
    rows = first + tl.arange(0, BLOCK_M)
    place = tl.load(places + rows, mask=rows < last, other=0)
    at = place.to(tl.int64)[:, None] * (HEADS * D) + head * D + tl.arange(0, D)[None, :]
    tl.store(out + at, (acc / total[:, None]).to(out.dtype.element_ty), mask=(rows < last)[:, None])


def attend_windows(
    qkv: tuple[Tensor, Tensor, Tensor], work: Tensor, places: Tensor, out: Tensor, config: WindowConfig
) -> None:
    """softmax(q k^T / sqrt(D)) v inside every sequence. Reference: `tokens.reference.attend_windows`.

    qkv: (query rows, heads, D), and keys and values (key rows, heads, D), 16-bit, contiguous. work: of
    `tokens.operands.plan_work` for the configuration's block. places (query rows,) int32: the row of out
    (rows, heads * D) for each query.
    """
    q, k, v = qkv
    _, heads, dim = q.shape
    operands: tuple[object, ...] = q, k, v
    if config.uses_tma:
        blocks = config.block_m, config.block_n, config.block_n
        operands = tuple(describe(x.flatten(1), [rows, dim]) for x, rows in zip(qkv, blocks, strict=True))
    launch(
        window_attention_kernel, (len(work), heads),
        *operands, work, places, out, LOG2_E * dim**-0.5, D=dim, HEADS=heads, BLOCK_M=config.block_m,
        BLOCK_N=config.block_n, TMA=config.uses_tma, num_warps=config.warps, num_stages=config.stages,
    )  # fmt: skip
