"""What the transformer's kernels are handed.

Tokens are rows: first those of the video, in raster order, then those of the text.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor

from ...quant.quantize import BlockScaledTensor, QuantizedTensor

Operand: TypeAlias = Tensor | QuantizedTensor | BlockScaledTensor
"""Rows that a matrix product takes: 16 bits (or float32), or fewer with a scale for each row and perhaps each block."""
Activation = Literal["none", "gated silu", "gelu"]
"""What happens to rows before they are quantised. "gated silu": (rows, 2 * width), gates before what they gate."""


class StreamVectors(NamedTuple):
    """One vector for the video rows and one for the text rows; used in float32."""

    video: Tensor
    text: Tensor


@dataclass(frozen=True)
class TokenStep:
    """What happens to tokens between two matrix products: a gated change is added, then they are normalised.

    out = (x + change * gate) normalised * scale + shift; without scale and shift the sum itself.
    """

    video_rows: int
    """Rows of the video; the text's are the others."""
    change: Tensor | None = None
    """(rows of x, width), what is added times `gate`."""
    gate: StreamVectors | None = None
    """(width,) each."""
    scale: StreamVectors | None = None
    """(width,) each; None: not normalised."""
    shift: StreamVectors | None = None
    """(width,) each, wherever there is a scale."""
    eps: float = 1e-5
    """Added to the mean square."""


@dataclass(frozen=True)
class JoinStep:
    """How queries, keys and values become joint sequences: normalised, rotated, placed."""

    video_rows: int
    """Rows of the video in the projections; the text's are the others."""
    heads: int
    """Heads in each of the three parts."""
    rows: Tensor | None
    """(joint rows,) int64: the row of the projections that each joint row is taken from; None: the same one."""
    norm_q: StreamVectors
    """(head width,) each."""
    norm_k: StreamVectors
    """(head width,) each."""
    cos: Tensor
    """(rows, head width / 2) float32, of the rows of the projections."""
    sin: Tensor
    """The same."""
    eps: float = 1e-5
    """Added to the mean square of a head."""


class GatedSum(NamedTuple):
    """What a product's result is added to, times a gate."""

    tokens: Tensor
    """(rows, columns), of the result's dtype."""
    gate: StreamVectors
    """(columns,) float32 each."""
    video_rows: int
    """Rows of the video; the text's are the others."""


class EightBitQKV(NamedTuple):
    """Queries, keys and values of joint sequences in 8 bits; sequences begin at multiples of 64 rows."""

    q: Tensor
    """(padded rows, heads, head width) int8 or float8_e4m3fn; a value is this times its row's scale."""
    k: Tensor
    """The same; a value is this times its block's scale. Zero in the padding."""
    v: Tensor
    """(heads * head width, padded rows) float8_e4m3fn, in `layout.value_order`; a value is this times 2^power of its
    block. Zero in the padding."""
    q_scale: Tensor
    """(heads, padded rows) float32, times log2(e) / sqrt(head width)."""
    k_scale: Tensor
    """(heads, padded rows / 64) float32."""
    v_power: Tensor
    """The same; whole numbers."""

    @classmethod
    def empty(cls, padded: int, heads: int, width: int, number: torch.dtype, device: torch.device) -> "EightBitQKV":
        """Room for so many rows; number: of queries and keys."""
        q, k = (torch.empty(padded, heads, width, dtype=number, device=device) for _ in range(2))
        v = torch.empty(heads * width, padded, dtype=torch.float8_e4m3fn, device=device)
        scales = (torch.empty(heads, count, device=device) for count in (padded, padded // 64, padded // 64))
        return cls(q, k, v, *scales)


class Placement(NamedTuple):
    """Where the rows of a video and its text are in the joint sequences, int64."""

    video_rows: Tensor
    """(video rows,)"""
    text_rows: Tensor
    """(clips, windows of a clip, text tokens)"""


def plan_work(q_bounds: list[int], k_bounds: list[int], block_m: int) -> Tensor:
    """The programs' queries and keys, (programs, 4) int32: first query, end of the queries, first key, end of the keys.

    Bounds: where each sequence begins, and the end. The longest sequences come first, so that short ones fill the end.
    """
    spans = zip(q_bounds, q_bounds[1:], k_bounds, k_bounds[1:], strict=False)
    rows = [
        (first, min(first + block_m, q_end), k_begin, k_end)
        for q_begin, q_end, k_begin, k_end in sorted(spans, key=lambda span: span[2] - span[3])
        for first in range(q_begin, q_end, block_m)
    ]
    return torch.tensor(rows, dtype=torch.int32)


def pad_bounds(bounds: list[int], block: int) -> list[tuple[int, int]]:
    """Begin and end of each sequence where all begin at multiples of `block`; bounds as for `plan_work`."""
    spans, begin = [], 0
    for first, last in pairwise(bounds):
        spans.append((begin, begin + last - first))
        begin += -(-(last - first) // block) * block
    return spans


def plan_padded_work(spans: list[tuple[int, int]], block_m: int) -> Tensor:
    """As `plan_work`, of sequences that ask themselves, for the spans of `pad_bounds`."""
    rows = [
        (first, min(first + block_m, end), begin, end)
        for begin, end in sorted(spans, key=lambda span: span[0] - span[1])
        for first in range(begin, end, block_m)
    ]
    return torch.tensor(rows, dtype=torch.int32)
