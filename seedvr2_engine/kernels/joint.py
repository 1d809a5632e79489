# Names of kernels follow Triton: constants of a compilation are in capitals, and have no types of their own.
# ruff: noqa: N803, N806
# mypy: allow-untyped-defs, no-check-untyped-defs
"""From projections to joint sequences and back: norm, rotation and place of queries, keys and values in one pass."""

import triton
import triton.language as tl
from torch import Tensor

from .token_operands import JoinStep, Placement

JOIN_TOKENS, JOIN_WARPS = 8, 4
COPY_ROWS, COPY_COLUMNS, COPY_WARPS = 4, 512, 4


@triton.jit
def join_parts_kernel(
    qkv, rows, cos, sin, q_video, q_text, k_video, k_text, q, k, v, count, video_rows, eps,
    HEADS: tl.constexpr, PAIRS: tl.constexpr, TOKENS: tl.constexpr, GROUP: tl.constexpr, FIRST: tl.constexpr,
    GATHERS: tl.constexpr,
):  # fmt: skip
    """`TOKENS` joint rows of `GROUP` heads of queries, keys or values."""
    WIDTH: tl.constexpr = 2 * PAIRS
    R: tl.constexpr = TOKENS * GROUP
    part = FIRST + tl.program_id(2)
    r = tl.arange(0, R)
    token = tl.program_id(0) * TOKENS + r // GROUP
    head = tl.program_id(1) * GROUP + r % GROUP
    inside = token < count
    source = token.to(tl.int64)
    if GATHERS:
        source = tl.load(rows + token, mask=inside, other=0)
    pair = tl.arange(0, PAIRS)
    channel = 2 * pair[:, None] + tl.arange(0, 2)[None, :]  # [PAIRS, 2]
    mask = inside[:, None, None]
    # [R, PAIRS, 2]
    at = (source * (3 * HEADS * WIDTH) + (part * HEADS + head) * WIDTH)[:, None, None] + channel[None, :, :]
    value = tl.load(qkv + at, mask=mask, other=0.0).to(tl.float32)
    target = (token.to(tl.int64) * HEADS + head)[:, None, None] * WIDTH + channel[None, :, :]
    if part == 2:
        tl.store(v + target, value.to(v.dtype.element_ty), mask=mask)
    else:
        if part == 0:
            of_video = tl.load(q_video + channel).to(tl.float32)
            of_text = tl.load(q_text + channel).to(tl.float32)
        else:
            of_video = tl.load(k_video + channel).to(tl.float32)
            of_text = tl.load(k_text + channel).to(tl.float32)
        mean_square = tl.sum(tl.sum(value * value, axis=2), axis=1) / WIDTH
        weight = tl.where((source < video_rows)[:, None, None], of_video[None, :, :], of_text[None, :, :])
        normed = value * (1.0 / tl.sqrt(mean_square + eps))[:, None, None] * weight
        a, b = tl.split(normed)  # [R, PAIRS]
        angle = source[:, None] * PAIRS + pair[None, :]
        c = tl.load(cos + angle, mask=inside[:, None], other=0.0)
        s = tl.load(sin + angle, mask=inside[:, None], other=0.0)
        turned = tl.join(a * c - b * s, b * c + a * s)
        if part == 0:
            tl.store(q + target, turned.to(q.dtype.element_ty), mask=mask)
        else:
            tl.store(k + target, turned.to(k.dtype.element_ty), mask=mask)


@triton.jit
def collect_rows_kernel(
    joint, video_places, text_places, out, video_rows, windows, text_tokens,
    WIDTH: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """`ROWS` rows of the video, or one row of the text as the mean over its windows; a block of columns."""
    program = tl.program_id(1)
    video_programs = tl.cdiv(video_rows, ROWS)
    c = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    inside = (c < WIDTH)[None, :]
    i = tl.arange(0, ROWS)
    if program < video_programs:
        row = program * ROWS + i
        mask = (row < video_rows)[:, None] & inside
        place = tl.load(video_places + row, mask=row < video_rows, other=0)
        value = tl.load(joint + place[:, None] * WIDTH + c[None, :], mask=mask, other=0.0)
        tl.store(out + row.to(tl.int64)[:, None] * WIDTH + c[None, :], value, mask=mask)
    else:
        of_text = program - video_programs
        first = (of_text // text_tokens) * windows * text_tokens + of_text % text_tokens
        total = tl.zeros((ROWS, COLUMNS), tl.float32)
        for begin in range(0, windows, ROWS):
            window = begin + i
            there = window < windows
            at = tl.load(text_places + first + window * text_tokens, mask=there, other=0)
            part = tl.load(joint + at[:, None] * WIDTH + c[None, :], mask=there[:, None] & inside, other=0.0)
            total += part.to(tl.float32)
        mean = tl.sum(total, axis=0) / windows
        target = (video_rows + of_text).to(tl.int64) * WIDTH + c
        tl.store(out + target, mean.to(out.dtype.element_ty), mask=c < WIDTH)


def join_parts(qkv: Tensor, step: JoinStep, outs: tuple[Tensor | None, Tensor | None, Tensor | None]) -> None:
    """Normalise and rotate queries and keys, and place them and the values; `reference_tokens.join_parts` is the twin.

    qkv (rows, 3 * heads * head width) -> outs: queries, keys, values (joint rows, heads, head width) each. The first
    ones or the last ones may be None.
    """
    wanted = [index for index, out in enumerate(outs) if out is not None]
    count, heads, width = next(out.shape for out in outs if out is not None)
    group = 4 if heads % 4 == 0 else 2 if heads % 2 == 0 else 1
    grid = (triton.cdiv(count, JOIN_TOKENS), heads // group, len(wanted))
    join_parts_kernel[grid](
        qkv, step.rows, step.cos, step.sin, *step.norm_q, *step.norm_k, *(qkv if out is None else out for out in outs),
        count, step.video_rows, step.eps, HEADS=heads, PAIRS=width // 2, TOKENS=JOIN_TOKENS, GROUP=group,
        FIRST=wanted[0], GATHERS=step.rows is not None, num_warps=JOIN_WARPS,
    )  # fmt: skip


def collect_rows(joint: Tensor, places: Placement, out: Tensor) -> None:
    """Bring what joint sequences gave back to the tokens' rows; `reference_tokens.collect_rows` is the twin.

    joint (joint rows, width) -> out (video rows + clips * text tokens, width): the video's rows, then the text's as
    the mean over its clip's windows, in float32 and rounded once.
    """
    video_rows, width = len(places.video_rows), out.shape[1]
    _, windows, text_tokens = places.text_rows.shape
    programs = triton.cdiv(video_rows, COPY_ROWS) + len(out) - video_rows
    collect_rows_kernel[(triton.cdiv(width, COPY_COLUMNS), programs)](
        joint, places.video_rows, places.text_rows, out, video_rows, windows, text_tokens,
        WIDTH=width, ROWS=COPY_ROWS, COLUMNS=COPY_COLUMNS, num_warps=COPY_WARPS,
    )  # fmt: skip
