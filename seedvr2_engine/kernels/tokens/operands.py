"""What the transformer's kernels are handed.

Tokens are rows: first those of the video, in the window order of a layer, then those of the text.
"""

from dataclasses import dataclass
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
    order: Tensor | None = None
    """(video rows,) int64: which row of x and change each video row is taken from; None: the same one."""
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
