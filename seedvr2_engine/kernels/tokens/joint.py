"""From projections to joint sequences and back: norm, rotation and place of queries, keys and values in one pass."""

import triton
import triton.language as tl
from torch import Tensor

from ..launch import launch
from .operands import JoinStep, Placement

JOIN_TOKENS, JOIN_WARPS = 4, 4
COPY_ROWS, COPY_COLUMNS, COPY_WARPS = 4, 512, 4


@triton.jit
def norm_and_rotate(value, video, text, is_video, cos, sin, eps, R: tl.constexpr, PAIRS: tl.constexpr):
    """Heads [R, 2 PAIRS] to float32, normalised with their stream's weight and rotated by [R, PAIRS] angles."""
    channel = tl.arange(0, 2 * PAIRS)
    of_video = tl.load(video + channel).to(tl.float32)
    of_text = tl.load(text + channel).to(tl.float32)
    x = value.to(tl.float32)
    x *= (1.0 / tl.sqrt(tl.sum(x * x, axis=1) / (2 * PAIRS) + eps))[:, None]
    # Chosen after the product: choosing a weight for each row would send the weights through shared memory.
    x = tl.where(is_video[:, None], x * of_video[None, :], x * of_text[None, :])
    a, b = tl.split(x.reshape(R, PAIRS, 2))
    return tl.join(a * cos - b * sin, b * cos + a * sin).reshape(R, 2 * PAIRS)


@triton.jit(do_not_specialize=["count", "video_rows"])
def join_parts_kernel(
    qkv, rows, cos, sin, q_video, q_text, k_video, k_text, q, k, v, count, video_rows, eps,
    HEADS: tl.constexpr, PAIRS: tl.constexpr, TOKENS: tl.constexpr, GROUP: tl.constexpr,
    ASKS: tl.constexpr, ANSWERS: tl.constexpr, GATHERS: tl.constexpr,
):  # fmt: skip
    """`TOKENS` joint rows of `GROUP` heads: queries if they ask, keys and values if they answer."""
    WIDTH: tl.constexpr = 2 * PAIRS
    R: tl.constexpr = TOKENS * GROUP
    r = tl.arange(0, R)
    token = tl.program_id(1) * TOKENS + r // GROUP
    head = tl.program_id(0) * GROUP + r % GROUP
    inside = token < count
    mask = inside[:, None]
    source = token.to(tl.int64)
    if GATHERS:
        source = tl.load(rows + token, mask=inside, other=0)
    is_video = source < video_rows
    channel = tl.arange(0, WIDTH)
    # [R, WIDTH], in 16 bytes a thread: what follows stays in each thread's registers, but for the sum. All loads come
    # first, because waiting for them is what takes time here.
    at = (source * (3 * HEADS * WIDTH) + head * WIDTH)[:, None] + channel[None, :]
    if ASKS:
        query = tl.load(qkv + at, mask=mask, other=0.0)
    if ANSWERS:
        key = tl.load(qkv + at + HEADS * WIDTH, mask=mask, other=0.0)
        value = tl.load(qkv + at + 2 * HEADS * WIDTH, mask=mask, other=0.0)
    angle = source[:, None] * PAIRS + tl.arange(0, PAIRS)[None, :]
    c = tl.load(cos + angle, mask=mask, other=0.0)
    s = tl.load(sin + angle, mask=mask, other=0.0)
    target = (token.to(tl.int64) * HEADS + head)[:, None] * WIDTH + channel[None, :]
    if ANSWERS:
        tl.store(v + target, value, mask=mask)
        turned = norm_and_rotate(key, k_video, k_text, is_video, c, s, eps, R, PAIRS)
        tl.store(k + target, turned.to(k.dtype.element_ty), mask=mask)
    if ASKS:
        turned = norm_and_rotate(query, q_video, q_text, is_video, c, s, eps, R, PAIRS)
        tl.store(q + target, turned.to(q.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["video_rows", "windows", "text_tokens"])
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
    """Normalise and rotate queries and keys, and place them and the values.

    Reference: `tokens.reference.join_parts`.

    qkv (rows, 3 * heads * head width) -> outs: queries, keys, values (joint rows, heads, head width) each. The
    queries, or both others, may be None.
    """
    asks, answers = outs[0] is not None, outs[2] is not None
    count, heads, width = next(out.shape for out in outs if out is not None)
    group = 4 if heads % 4 == 0 else 2 if heads % 2 == 0 else 1
    grid = (heads // group, triton.cdiv(count, JOIN_TOKENS))
    launch(
        join_parts_kernel, grid,
        qkv, step.rows, step.cos, step.sin, *step.norm_q, *step.norm_k, *outs, count, step.video_rows, step.eps,
        HEADS=heads, PAIRS=width // 2, TOKENS=JOIN_TOKENS, GROUP=group, ASKS=asks, ANSWERS=answers,
        GATHERS=step.rows is not None, num_warps=JOIN_WARPS,
    )  # fmt: skip


def collect_rows(joint: Tensor, places: Placement, out: Tensor) -> None:
    """Bring what joint sequences gave back to the tokens' rows. Reference: `tokens.reference.collect_rows`.

    joint (joint rows, width) -> out (video rows + clips * text tokens, width): the video's rows, then the text's as
    the mean over its clip's windows, in float32 and rounded once.
    """
    video_rows, width = len(places.video_rows), out.shape[1]
    _, windows, text_tokens = places.text_rows.shape
    programs = triton.cdiv(video_rows, COPY_ROWS) + len(out) - video_rows
    launch(
        collect_rows_kernel, (triton.cdiv(width, COPY_COLUMNS), programs),
        joint, places.video_rows, places.text_rows, out, video_rows, windows, text_tokens,
        WIDTH=width, ROWS=COPY_ROWS, COLUMNS=COPY_COLUMNS, num_warps=COPY_WARPS,
    )  # fmt: skip
