"""What a convolution reads and writes: small value objects shared by the kernels and their references.

Everything is NDHWC. A *window* is a buffer of frames with a table that says which of them each output frame sees,
so a ring buffer of cached frames, the repeated first frame of a clip and a whole clip are the same thing to a kernel,
and a CUDA graph stays valid while the table's contents change.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ...quant import LIMITS

MEAN, M2, LOW, HIGH = range(4)
"""Rows of statistics: mean, sum of squared deviations, and bounds of the smallest and largest value."""

CENTER, GAIN, OFFSET, BOUND = range(4)
"""Rows of a finished norm: y = (x - center) * gain + offset, and the largest magnitude that follows from it."""


WINOGRAD_INPUTS = ((1.0, 0.0, -1.0, 0.0), (0.0, 0.5, 0.5, 0.0), (0.0, -0.5, 0.5, 0.0), (0.0, -1.0, 0.0, 1.0))
"""The four Winograd inputs: sums of frames t-2 to t+1, whose products with sums of taps make frames t and t+1 (see
`conv.paired`)."""
WINOGRAD_TAPS = ((1.0, 0.0, 0.0), (1.0, 1.0, 1.0), (1.0, -1.0, 1.0), (0.0, 0.0, 1.0))
"""The sums of taps."""
WINOGRAD_OUTPUTS = ((1.0, 1.0, 1.0, 0.0), (0.0, 1.0, -1.0, 1.0))
"""The sums of products."""
INT8_REACH = 2**0.25
"""`NormSpec.reach` of INT8. The 20 layers of the nano VAE that bear INT8, mean PSNR of five clips against FP32 with 1,
2^1/4, 2^1/2 and 2^3/4: 53.3, 55.0, 54.7 and 51.9 dB; the others, full of outliers, do not mind up to 2^3/8."""


class FrameWindow(NamedTuple):
    """Frames to be convolved."""

    frames: Tensor
    """(F, H, W, Ci): float8_e4m3fn, int8, float16 or bfloat16; contiguous. A frame's value is data * 2^exponent."""
    exponents: Tensor | None
    """(F,) int32, for 8-bit frames."""
    table: Tensor
    """(T, kernel_t + 1) int32: for each output frame the frames its temporal taps see, oldest first, then the weight
    set it uses (0 unless the weights have several sets)."""


class ConvWeights(NamedTuple):
    """Packed weights of one convolution: `sets` kernels for each of `phases` output phases."""

    data: Tensor
    """(sets * phases * Co, kernel_t * kernel_h * kernel_w * Ci), the window's dtype; contiguous."""
    scale: Tensor | None
    """(sets * phases * Co,) float32, for 8-bit weights: value = data * scale."""
    bias: Tensor
    """(sets * phases, borders, Co) float32. borders is 1, or 4 for a composed upsampler: the bias inside the image
    and what is added to it in the border row, in the border column and in their corner."""


class Additions(NamedTuple):
    """What a convolution's epilogue adds; all 16-bit, of the output's size. Either, both or none."""

    residual: Tensor | None = None
    """(T, Ho, Wo, Co); may be the output itself."""
    shortcut: Tensor | None = None
    """(T, Ho, Wo, Cs), to be multiplied by `shortcut_weight`; its bias is part of the convolution's."""
    shortcut_weight: Tensor | None = None
    """(Co, Cs), the shortcut's dtype."""


class ConvOutput(NamedTuple):
    """Where a convolution writes."""

    y: Tensor
    """(T, Ho, Wo, Co): float16, bfloat16 or float32; contiguous."""
    partials: Tensor | None
    """(T, tiles, rows, Co) float32, rows = 2 or 4 (`ConvProblem.statistic_rows`): mean, M2 and perhaps smallest and
    largest value of each tile (of `tile_counts` pixels), of the values before they are rounded to `y`."""


def tile_counts(grid_px: tuple[int, int], tile_px: tuple[int, int], phases: int) -> Tensor:
    """Pixels of each tile, (tiles,) int32, in the kernel's order: phase, row, column."""
    (height, width), (tile_h, tile_w) = grid_px, tile_px
    rows = torch.tensor([min(tile_h, height - h) for h in range(0, height, tile_h)], dtype=torch.int32)
    columns = torch.tensor([min(tile_w, width - w) for w in range(0, width, tile_w)], dtype=torch.int32)
    return (rows[:, None] * columns[None, :]).flatten().repeat(phases)


class FrameTarget(NamedTuple):
    """Where normalised frames are written: slots of a buffer that a `FrameWindow` reads later."""

    frames: Tensor
    """(F, H, W, C): float8_e4m3fn, int8, float16 or bfloat16; contiguous."""
    exponents: Tensor | None
    """(F,) int32, for 8-bit frames."""
    slots: Tensor
    """(T,) int32: the buffer frame that each of the T frames goes to; no two alike."""


class NormOperands(NamedTuple):
    """A norm's parameters on the device."""

    weight: Tensor | None
    """(C,) float32, where the spec normalises."""
    bias: Tensor | None
    """(C,) float32, where the spec normalises."""
    inverse_smoothing: Tensor | None = None
    """(C,) float32: what each channel is multiplied by before it is rounded; the next weights carry the inverse."""


class FrameScale(NamedTuple):
    """How a frame finds the power of two by which it is stored in 8 bits; the fields are `NormSpec`'s."""

    limit: float
    exponent_floor: int
    reach: float


def frame_scale(dtype: torch.dtype, *, is_smoothed: bool = True) -> FrameScale:
    """The rule for frames of a format, E4M3 or INT8 (16 bits have no scale); is_smoothed: of an INT8 layer's input."""
    if dtype == torch.int8:
        return FrameScale(LIMITS[dtype], 0 if is_smoothed else -20, INT8_REACH)
    return FrameScale(LIMITS[torch.float8_e4m3fn], -2, 1.0)


@dataclass(frozen=True)
class NormSpec:
    """What is done to a tensor between two convolutions."""

    normalises: bool = True
    """Whether GroupNorm is applied; without it the tensor is only quantised."""
    activates: bool = True
    """Whether SiLU is applied."""
    limit: float = 448.0
    """Largest magnitude of the target's format: 448 for FP8 E4M3, 127 for INT8; unused for 16 bits."""
    exponent_floor: int = -2
    """Smallest exponent of a frame. FP8 keeps its precision over a wide range, so a floor makes neighbouring frames
    share one exponent nearly always; INT8 with smoothing has its steps in the smoothing and wants 0."""
    reach: float = 1.0
    """How many times the limit a frame's largest value may be before its exponent rises; INT8 clips what exceeds the
    limit, which costs less than a step twice as wide (`INT8_REACH`)."""
    groups: int = 32
    """Groups of consecutive channels."""
    eps: float = 1e-6
    """Added to the variance."""


class AttentionOperands(NamedTuple):
    """Queries, keys and values in 8 bits."""

    q: Tensor
    """(T, L, D): int8 or float8_e4m3fn; contiguous."""
    k: Tensor
    """(T, L, D), the queries' dtype: the keys less their mean over all tokens."""
    v: Tensor
    """(T, D, L padded to a multiple of 16): float8_e4m3fn, the values less their mean; in `layout.value_order` where
    attention overlaps."""
    q_scale: Tensor
    """(T, L) float32: query = q * q_scale, times log2(e) / sqrt(D)."""
    k_scale: Tensor
    """(T, L) float32: key - mean = k * k_scale."""
    common: Tensor
    """(T, 3, D) float32: the keys' mean, the values' mean, the values' scale."""
    partials: Tensor
    """(T, up to 128 parts of the tokens, 4, D) float32: keys' and values' sums, the values' smallest and largest."""
