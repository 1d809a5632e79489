"""Attention inside windows in 8 bits: INT8 or E4M3 scores, E4M3 values; and what prepares its operands.

Sequences begin at multiples of BLOCK rows. Keys have one scale for each BLOCK of them, values a power of two, queries a
scale each, so nothing but a row's factor and the softmax touches a score. Values are stored transposed, because Hopper
multiplies 8-bit numbers only where the sum's dimension is innermost, and in `layout.value_order`, so that a thread
multiplies the probabilities that it has computed.
"""

import triton
import triton.language as tl
from torch import Tensor

from ..configs import WindowConfig
from ..conv.conv3d import describe
from ..launch import launch
from ..tokens.joint import norm_and_rotate
from ..tokens.operands import EightBitQKV, JoinStep
from ..tokens.rows import in_8_bits, row_scale
from .wgmma import finished, in_value_order, token_at
from .windows import LOG2_E, load_rows

BLOCK = 64
"""Keys that share a scale, and that a step of the attention takes."""
PREPARE_WARPS = 8
P_BITS = 8
"""Probabilities are stored times 2^8: E4M3 holds 448."""
RAISED = tl.constexpr(0x4B400000)
OFFSET = tl.constexpr(12582912.0)
"""1.5 * 2^23, whose bits RAISED are: an INT32 that starts there counts in that float's last place."""


@triton.jit
def join_8bit_kernel(
    qkv, rows, cos, sin, q_video, q_text, k_video, k_text, q, k, v, q_scale, k_scale, v_power, padded, video_rows, eps,
    scale_log2,
    HEADS: tl.constexpr, PAIRS: tl.constexpr, ROWS: tl.constexpr, LIMIT: tl.constexpr,
):  # fmt: skip
    """`ROWS` rows of one head: queries and keys normalised, rotated and rounded, values rounded and turned."""
    WIDTH: tl.constexpr = 2 * PAIRS
    first = tl.program_id(1) * ROWS
    head = tl.program_id(0)
    block = head * (padded // ROWS) + tl.program_id(1)
    r = tl.arange(0, ROWS)
    channel = tl.arange(0, WIDTH)
    source = tl.load(rows + first + r)
    inside = source >= 0
    source = tl.maximum(source, 0)
    turned = tl.load(rows + first + token_at(r))
    at = (source * (3 * HEADS * WIDTH) + head * WIDTH)[:, None] + channel[None, :]
    query = tl.load(qkv + at, mask=inside[:, None], other=0.0)
    key = tl.load(qkv + at + HEADS * WIDTH, mask=inside[:, None], other=0.0)
    of_values = (tl.maximum(turned, 0) * (3 * HEADS * WIDTH) + (2 * HEADS + head) * WIDTH)[:, None] + channel[None, :]
    value = tl.load(qkv + of_values, mask=(turned >= 0)[:, None], other=0.0).to(tl.float32)
    angle = source[:, None] * PAIRS + tl.arange(0, PAIRS)[None, :]
    c = tl.load(cos + angle, mask=inside[:, None], other=0.0)
    s = tl.load(sin + angle, mask=inside[:, None], other=0.0)
    is_video = source < video_rows
    target = (first + r).to(tl.int64)[:, None] * (HEADS * WIDTH) + head * WIDTH + channel[None, :]

    key = norm_and_rotate(key, k_video, k_text, is_video, c, s, eps, ROWS, PAIRS)
    of_keys = row_scale(tl.max(tl.max(tl.abs(key), axis=1), axis=0), LIMIT)
    tl.store(k_scale + block, of_keys)
    tl.store(k + target, in_8_bits(key, 1.0 / of_keys, LIMIT).to(k.dtype.element_ty))

    query = norm_and_rotate(query, q_video, q_text, is_video, c, s, eps, ROWS, PAIRS)
    of_queries = row_scale(tl.max(tl.abs(query), axis=1), LIMIT)
    tl.store(q_scale + head * padded + first + r, of_queries * scale_log2)
    tl.store(q + target, in_8_bits(query, (1.0 / of_queries)[:, None], LIMIT).to(q.dtype.element_ty))

    largest = tl.max(tl.max(tl.abs(value), axis=1), axis=0)
    power = tl.where(largest > 0, tl.ceil(tl.log2(largest / 448)), 0.0)
    tl.store(v_power + block, power)
    value = tl.minimum(tl.maximum(value * tl.exp2(-power), -448.0), 448.0).to(v.dtype.element_ty)
    place = (head * WIDTH + channel).to(tl.int64)[:, None] * padded + (first + r)[None, :]
    tl.store(v + place, tl.trans(value))


@triton.jit
def load_columns(v, row, head, padded, D: tl.constexpr, COLUMNS: tl.constexpr, TMA: tl.constexpr):
    """[D, COLUMNS] of one head of the transposed values, from column `row` on; what is outside reads as zero."""
    if TMA:
        block = v.load([head * D, row])
    else:
        columns = row + tl.arange(0, COLUMNS)
        at = (head * D + tl.arange(0, D)).to(tl.int64)[:, None] * padded + columns[None, :]
        block = tl.load(v + at, mask=(columns < padded)[None, :], other=0.0)
    return block


@triton.jit
def attend_block(
    acc, total, running_max, q, q_scale, k, v, k_scale, v_power, row, end, head, padded,
    D: tl.constexpr, HEADS: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, TMA: tl.constexpr,
    MASKS: tl.constexpr, INTEGER: tl.constexpr, BITS: tl.constexpr, COMPILED: tl.constexpr,
):  # fmt: skip
    """One step of the online softmax over BLOCK_N keys; values' powers of two are part of the probabilities."""
    keys = load_rows(k, row, padded, head, D, HEADS, BLOCK_N, TMA)
    if INTEGER:
        raised = tl.full((BLOCK_M, BLOCK_N), RAISED, tl.int32)
        products = tl.dot(q, keys.T, raised, out_dtype=tl.int32).to(tl.float32, bitcast=True)
        offset = OFFSET
    else:
        products = tl.dot(q, keys.T)
        offset = 0.0
    block = head * (padded // BLOCK_N) + row // BLOCK_N
    factor = q_scale * tl.load(k_scale + block)
    power = tl.load(v_power + block)
    if MASKS:
        products = tl.where((row + tl.arange(0, BLOCK_N) < end)[None, :], products, float("-inf"))
    new_max = tl.maximum(running_max, (tl.max(products, axis=1) - offset) * factor + power)
    p = tl.exp2(products * factor[:, None] + (BITS + power - offset * factor - new_max)[:, None])
    rescaling = tl.exp2(running_max - new_max)
    total = total * rescaling + tl.sum(p, axis=1) * tl.exp2(-power)
    values = load_columns(v, row, head, padded, D, BLOCK_N, TMA)
    weights = in_value_order(p.to(values.dtype), BLOCK_M, BLOCK_N)
    acc = tl.dot(weights, values.T, acc * rescaling[:, None])
    if COMPILED:
        acc = finished(acc)
    return acc, total, new_max


@triton.jit
def window_attention_8bit_kernel(
    q, k, v, q_scale, k_scale, v_power, work, places, out, padded,
    D: tl.constexpr, HEADS: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, TMA: tl.constexpr,
    INTEGER: tl.constexpr, BITS: tl.constexpr, COMPILED: tl.constexpr,
):  # fmt: skip
    """One head of one block of queries of one sequence."""
    entry = work + tl.program_id(0) * 4
    head = tl.program_id(1)
    first, last = tl.load(entry), tl.load(entry + 1)
    # Multiples of BLOCK_N, which the compiler cannot see.
    begin, end = tl.load(entry + 2) // BLOCK_N * BLOCK_N, tl.load(entry + 3)
    queries = load_rows(q, first, last, head, D, HEADS, BLOCK_M, TMA)
    rows = first + tl.arange(0, BLOCK_M)
    by_row = tl.load(q_scale + head * padded + rows, mask=rows < last, other=1.0)
    running_max = tl.full((BLOCK_M,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_M,), tl.float32)
    acc = tl.zeros((BLOCK_M, D), tl.float32)
    whole = begin + (end - begin) // BLOCK_N * BLOCK_N
    for row in range(begin, whole, BLOCK_N):
        acc, total, running_max = attend_block(
            acc, total, running_max, queries, by_row, k, v, k_scale, v_power, row, end, head, padded, D, HEADS,
            BLOCK_M, BLOCK_N, TMA, False, INTEGER, BITS, COMPILED,
        )  # fmt: skip
    if whole < end:
        acc, total, running_max = attend_block(
            acc, total, running_max, queries, by_row, k, v, k_scale, v_power, whole, end, head, padded, D, HEADS,
            BLOCK_M, BLOCK_N, TMA, True, INTEGER, BITS, COMPILED,
        )  # fmt: skip
    place = tl.load(places + rows, mask=rows < last, other=0)
    at = place.to(tl.int64)[:, None] * (HEADS * D) + head * D + tl.arange(0, D)[None, :]
    tl.store(out + at, (acc / total[:, None]).to(out.dtype.element_ty), mask=(rows < last)[:, None])


def join_parts_8bit(qkv: Tensor, step: JoinStep, out: EightBitQKV) -> None:
    """Normalise, rotate and place as `joint.join_parts`, and round to 8 bits. Reference: `reference.join_parts_8bit`.

    qkv (rows, 3 * heads * head width), 16 bits. step.rows (padded rows,) int64: the row of qkv for each row of the
    sequences, -1 where there is none.
    """
    padded, heads, width = out.q.shape
    launch(
        join_8bit_kernel, (heads, padded // BLOCK),
        qkv, step.rows, step.cos, step.sin, *step.norm_q, *step.norm_k, *out, padded, step.video_rows, step.eps,
        LOG2_E * width**-0.5, HEADS=heads, PAIRS=width // 2, ROWS=BLOCK,
        LIMIT=448 if out.q.dtype.is_floating_point else 127, num_warps=PREPARE_WARPS,
    )  # fmt: skip


def attend_windows_8bit(x: EightBitQKV, work: Tensor, places: Tensor, out: Tensor, config: WindowConfig) -> None:
    """softmax(q k^T / sqrt(D)) v inside every sequence. Reference: `tokens.reference.attend_windows_8bit`.

    x: of `join_parts_8bit`. work: of `tokens.operands.plan_padded_work`. places (padded rows,) int32: the row of out
    (rows, heads * D), 16 bits, for each query. A configuration takes BLOCK keys a step.
    """
    padded, heads, dim = x.q.shape
    operands: tuple[object, ...] = x.q, x.k, x.v
    if config.uses_tma:
        operands = (
            describe(x.q.flatten(1), [config.block_m, dim]),
            describe(x.k.flatten(1), [BLOCK, dim]),
            describe(x.v, [dim, BLOCK]),
        )
    launch(
        window_attention_8bit_kernel, (len(work), heads),
        *operands, x.q_scale, x.k_scale, x.v_power, work, places, out, padded,
        **window_constants(dim, heads, config, not x.q.dtype.is_floating_point), num_warps=config.warps,
        num_stages=config.stages,
    )  # fmt: skip


def window_constants(dim: int, heads: int, config: WindowConfig, integer: bool) -> dict[str, int]:
    """The kernel's compile-time constants; integer: whether queries and keys are INT8."""
    return {
        "D": dim,
        "HEADS": heads,
        "BLOCK_M": config.block_m,
        "BLOCK_N": BLOCK,
        "TMA": config.uses_tma,
        "INTEGER": integer,
        "BITS": P_BITS,
        "COMPILED": not triton.knobs.runtime.interpret,
    }
