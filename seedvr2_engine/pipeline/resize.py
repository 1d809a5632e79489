"""From the source's size to the model's: one resampling, padding, and the crop of the result.

Sizes are (height, width) in pixels. Pictures are (T, C, H, W).
"""

from dataclasses import dataclass
from fractions import Fraction

import torch.nn.functional as F
from torch import Tensor

from ..color.space import from_rgb
from ..errors import InvalidArgumentError

Size = tuple[int, int]

TOKEN_PX = 16
"""Edge of a token of the transformer, 2 latents of 8 px; the edges of the model's pictures are multiples of it."""
MAX_EDGE_PX = 16384
"""The longest edge that a result may have."""


@dataclass(frozen=True)
class ResizePlan:
    """The sizes that a picture has on its way through the model."""

    source: Size
    """As it comes."""
    resized: Size
    """After the resampling, as asked for."""

    @property
    def padded(self) -> Size:
        """What the model sees: `resized` filled up to multiples of 16 to the right and below."""
        height, width = (edge + -edge % TOKEN_PX for edge in self.resized)
        return height, width

    @property
    def output(self) -> Size:
        """What is kept of the result: edges are even, as chroma-subsampled video needs, so an odd row is left out."""
        height, width = (edge - edge % 2 for edge in self.resized)
        return height, width


def plan_resize(
    source: Size, *, resolution: int | None = None, scale: float | None = None, max_resolution: int | None = None
) -> ResizePlan:
    """The sizes for a source: its shortest edge becomes `resolution`, or both edges are multiplied by `scale`.

    resolution, max_resolution: pixels. The longer edge is rounded down when it follows from the shortest, and both
    to the nearest (half to even) when they follow from `scale`. A result whose longest edge exceeds
    `max_resolution` is made smaller until that edge has exactly this length; the picture is resampled only once.
    Raises InvalidArgumentError when not exactly one of resolution and scale is given, or an edge of the result is
    below 2 or above 16384 px.
    """
    if min(source) < 1:
        raise InvalidArgumentError(f"picture: expected a height and width of at least 1 px, got {source}.")
    if (resolution is None) == (scale is None):
        raise InvalidArgumentError(
            f"size: expected either a resolution or a scale, got resolution {resolution} and scale {scale}."
        )
    height, width = source
    if resolution is not None:
        short = min(source)
        resized = resolution * height // short, resolution * width // short
    else:
        factor = Fraction(scale or 0)
        resized = round(height * factor), round(width * factor)
    longest = max(resized)
    if max_resolution is not None and longest > max_resolution:
        shrink = Fraction(max_resolution, longest)
        resized = round(resized[0] * shrink), round(resized[1] * shrink)
    if min(resized) < 2 or max(resized) > MAX_EDGE_PX:
        raise InvalidArgumentError(
            f"size: expected 2 to {MAX_EDGE_PX} px for each edge of the result, got {resized[1]}x{resized[0]} from "
            f"{width}x{height}; choose another resolution, scale or maximum resolution."
        )
    return ResizePlan(source, resized)


def resample(frames: Tensor, size: Size) -> Tensor:
    """Resample (T, C, H, W) to `size` with an antialiased bicubic kernel (a = -0.5); computed in and returned as FP32.

    The kernel widens when it shrinks, weights outside the picture are left out and the rest sum to one, as Pillow
    does. It overshoots at edges, so the result is not clamped to the range of the input. Frames that have `size`
    already come back with their values untouched.
    """
    if tuple(frames.shape[-2:]) == size:
        return frames.float()
    return F.interpolate(frames.float(), size=size, mode="bicubic", antialias=True, align_corners=False)


def to_model_input(frames: Tensor, plan: ResizePlan) -> Tensor:
    """Pictures (T, 3, H, W) in [0, 1] as the model takes them: (T, 3, *plan.padded) in [-1, 1], FP32.

    The last row and column are repeated to fill up: black ones, as the reference has them, bleed into the picture.
    """
    if tuple(frames.shape[-2:]) != plan.source:
        raise InvalidArgumentError(
            f"picture: expected {plan.source[1]}x{plan.source[0]} like those before, got "
            f"{frames.shape[-1]}x{frames.shape[-2]}; a clip must keep its size."
        )
    resized = from_rgb(resample(frames, plan.resized).clamp(0, 1))
    right, bottom = plan.padded[1] - plan.resized[1], plan.padded[0] - plan.resized[0]
    return F.pad(resized, (0, right, 0, bottom), mode="replicate")


def crop_to_output(frames: Tensor, plan: ResizePlan) -> Tensor:
    """The part of (..., *plan.padded) that is kept; a view. Of a model input it is the reference for the colours."""
    height, width = plan.output
    return frames[..., :height, :width]
