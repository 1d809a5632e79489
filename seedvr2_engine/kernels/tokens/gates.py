"""What the transformer does to tokens between its matrix products, each pass reading and writing them once.

Computed in float32 and rounded to the tokens' own format, at the places where the plain model rounds.
"""

import triton
import triton.language as tl
from torch import Tensor

from ...quant.quantize import BlockScaledTensor, QuantizedTensor
from ..launch import launch
from .operands import Operand, TokenStep
from .rows import format_constants, halves, store_rounded

STEP_ROWS, STEP_WARPS = 8, 4
SILU_ROWS, SILU_COLUMNS, SILU_WARPS = 4, 1024, 4


@triton.jit
def load_of_stream(video, text, c, inside, is_video):
    """The video's vector or the text's."""
    if is_video:
        vector = tl.load(video + c, mask=inside, other=0.0)
    else:
        vector = tl.load(text + c, mask=inside, other=0.0)
    return vector


@triton.jit
def parts_of_sum(x, change, row, c, mask, WIDTH: tl.constexpr, ADDS: tl.constexpr):
    """A part of a row as it is in memory, and of what is to be added."""
    at = row.to(tl.int64) * WIDTH + c
    value = tl.load(x + at, mask=mask, other=0.0)
    if ADDS:
        delta = tl.load(change + at, mask=mask, other=0.0)
    else:
        delta = value
    return value, delta


@triton.jit
def changed(value, delta, gate, ADDS: tl.constexpr):
    """A part of a row in float32, the gated change added and rounded as the tokens are."""
    number = value.dtype
    value = value.to(tl.float32)
    if ADDS:
        value = (value + delta.to(tl.float32) * gate).to(number).to(tl.float32)
    return value


@triton.jit(do_not_specialize=["video_rows", "rows"])
def step_tokens_kernel(
    x, change, gate_video, gate_text, scale_video, scale_text, shift_video, shift_text, kept, out, out_scale,
    out_blocks, video_rows, rows, eps,
    WIDTH: tl.constexpr, HEAD: tl.constexpr, TAIL: tl.constexpr, ROWS: tl.constexpr, LIMIT: tl.constexpr,
    BLOCK: tl.constexpr,
    ADDS: tl.constexpr, KEEPS: tl.constexpr, GIVES: tl.constexpr, NORMALISES: tl.constexpr,
):  # fmt: skip
    """`ROWS` rows of one stream: x + change * gate, kept; then normalised, scaled and shifted.

    With a LIMIT, what is given is in 8 or 4 bits, and the scales beside it.
    A row is worked on in two parts, HEAD and TAIL wide, because one that is a power of two would leave threads idle.
    """
    program = tl.program_id(0)
    video_programs = tl.cdiv(video_rows, ROWS)
    is_video = program < video_programs
    first = tl.where(is_video, program * ROWS, video_rows + (program - video_programs) * ROWS)
    end = tl.where(is_video, video_rows, rows)
    h = tl.arange(0, HEAD)
    t = HEAD + tl.arange(0, TAIL)
    in_head, in_tail = h < WIDTH, t < WIDTH
    head_gate, tail_gate = 0.0, 0.0
    if ADDS:
        head_gate = load_of_stream(gate_video, gate_text, h, in_head, is_video)
        tail_gate = load_of_stream(gate_video, gate_text, t, in_tail, is_video)
    if NORMALISES:
        head_scale = load_of_stream(scale_video, scale_text, h, in_head, is_video)
        tail_scale = load_of_stream(scale_video, scale_text, t, in_tail, is_video)
        head_shift = load_of_stream(shift_video, shift_text, h, in_head, is_video)
        tail_shift = load_of_stream(shift_video, shift_text, t, in_tail, is_video)
    head_x, head_change = parts_of_sum(x, change, first, h, in_head & (first < end), WIDTH, ADDS)
    tail_x, tail_change = parts_of_sum(x, change, first, t, in_tail & (first < end), WIDTH, ADDS)
    for i in range(ROWS):
        row = first + i
        there = row < end
        head = changed(head_x, head_change, head_gate, ADDS)
        tail = changed(tail_x, tail_change, tail_gate, ADDS)
        # The next row is on its way while this one is worked on: stores below would hold its loads back.
        follows = (row + 1 < end) & (i + 1 < ROWS)
        head_x, head_change = parts_of_sum(x, change, row + 1, h, in_head & follows, WIDTH, ADDS)
        tail_x, tail_change = parts_of_sum(x, change, row + 1, t, in_tail & follows, WIDTH, ADDS)
        target = row.to(tl.int64) * WIDTH
        if KEEPS:
            tl.store(kept + target + h, head.to(kept.dtype.element_ty), mask=in_head & there)
            tl.store(kept + target + t, tail.to(kept.dtype.element_ty), mask=in_tail & there)
        if NORMALISES:
            mean_square = (tl.sum(head * head, axis=0) + tl.sum(tail * tail, axis=0)) / WIDTH
            inverse = 1.0 / tl.sqrt(mean_square + eps)
            head = head * inverse * head_scale + head_shift
            tail = tail * inverse * tail_scale + tail_shift
        if LIMIT:
            store_rounded(head, tail, row, there, out, out_scale, out_blocks, WIDTH, HEAD, TAIL, LIMIT, BLOCK)
        elif GIVES:
            tl.store(out + target + h, head.to(out.dtype.element_ty), mask=in_head & there)
            tl.store(out + target + t, tail.to(out.dtype.element_ty), mask=in_tail & there)


@triton.jit(do_not_specialize=["rows"])
def gate_silu_kernel(gate_up, out, rows, WIDTH: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """A block of silu(gate) * up."""
    row = tl.program_id(1).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    c = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    mask = (row < rows)[:, None] & (c < WIDTH)[None, :]
    at = gate_up + row[:, None] * (2 * WIDTH) + c[None, :]
    gate = tl.load(at, mask=mask, other=0.0).to(tl.float32)
    up = tl.load(at + WIDTH, mask=mask, other=0.0).to(tl.float32)
    value = gate * tl.sigmoid(gate) * up
    tl.store(out + row[:, None] * WIDTH + c[None, :], value.to(out.dtype.element_ty), mask=mask)


def step_tokens(x: Tensor, step: TokenStep, *, kept: Tensor | None, out: Operand | None) -> None:
    """Add a gated change to tokens and normalise them. Reference: `tokens.reference.step_tokens`.

    x (rows, width), 16 bits or float32; kept: the sum, may be x itself; out: what is normalised.
    Both have the rows that are wanted, no more than x: leaving out the text's rows leaves the text out. An `out` in
    8 or 4 bits gets its scales as well.
    """
    data, out_scale, blocks, limit, block = out, None, None, 0, 0
    if isinstance(out, (QuantizedTensor, BlockScaledTensor)):
        data, out_scale = out.data, out.scale
        blocks, limit, block = format_constants(out)
    rows = next(len(tensor) for tensor in (kept, data) if tensor is not None)
    width = x.shape[1]
    video_rows = min(step.video_rows, rows)
    gate, scale, shift = (pair or (None, None) for pair in (step.gate, step.scale, step.shift))
    head, tail = halves(width)
    grid = (triton.cdiv(video_rows, STEP_ROWS) + triton.cdiv(rows - video_rows, STEP_ROWS),)
    launch(
        step_tokens_kernel, grid,
        x, step.change, *gate, *scale, *shift, kept, data, out_scale, blocks, video_rows, rows, step.eps,
        WIDTH=width, HEAD=max(head, block), TAIL=max(tail, block), ROWS=STEP_ROWS, LIMIT=limit, BLOCK=block,
        ADDS=step.change is not None, KEEPS=kept is not None, GIVES=data is not None,
        NORMALISES=step.scale is not None, num_warps=STEP_WARPS,
    )  # fmt: skip


def gate_silu(gate_up: Tensor, out: Tensor) -> None:
    """(rows, 2 * width), gates before what they gate -> (rows, width). Reference: `tokens.reference.gate_silu`."""
    rows, width = out.shape
    grid = (triton.cdiv(width, SILU_COLUMNS), triton.cdiv(rows, SILU_ROWS))
    launch(
        gate_silu_kernel, grid,
        gate_up, out, rows, WIDTH=width, ROWS=SILU_ROWS, COLUMNS=SILU_COLUMNS, num_warps=SILU_WARPS,
    )  # fmt: skip
