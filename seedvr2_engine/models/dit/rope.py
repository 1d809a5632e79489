"""Rotary position embedding over time, height and width of a window, and over the text.

Source: ByteDance-Seed/SeedVR, `models/dit_v2/rope.py` (3B) and `models/dit/rope.py` (7B), after rotary_embedding_torch.
Pairs of neighbouring channels (2j, 2j+1) are turned by one angle each; the channels left over stay as they are.
"""

import math
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .config import DiTConfig
from .windows import AxisCuts

RopeRounding = Literal["float32", "float16", "bfloat16", "float8"]
"""The number format of the file that the frequencies were read from; the reference computes angles in it.

`float32` is what the model was trained with. The others reproduce what the reference makes of FP16 and GGUF files, of
BF16 files, and of FP8 files (whose frequencies are E4M3, with angles in BF16).
"""

_FORMATS: dict[RopeRounding, tuple[torch.dtype, torch.dtype]] = {
    "float32": (torch.float32, torch.float32),
    "float16": (torch.float16, torch.float16),
    "bfloat16": (torch.bfloat16, torch.bfloat16),
    "float8": (torch.float8_e4m3fn, torch.bfloat16),
}


class Rotation(NamedTuple):
    """Cosines and sines of shape (tokens, 1, head width / 2), float32; 1 and 0 for the channels that stay."""

    cos: Tensor
    sin: Tensor


def rotary_frequencies(config: DiTConfig) -> Tensor:
    """The frequencies of one axis (axis frequencies,), float32: radians a token (3b) or a half extent (7b)."""
    count = config.axis_frequencies
    if config.family == "3b":
        channels = config.head_width // 3
        return 1.0 / 10000 ** (torch.arange(0, 2 * count, 2).float() / channels)
    return torch.linspace(1.0, 128.0, count) * math.pi


def video_angles(
    config: DiTConfig,
    cuts: tuple[AxisCuts, AxisCuts, AxisCuts],
    text_tokens: int,
    rounding: RopeRounding = "float32",
) -> Tensor:
    """The angles (t*h*w, 3 * axis frequencies) of every token in raster order, float32 radians.

    A 3b token counts from its window's corner, its time from the number of text tokens. A 7b token has a position
    from -1 to 1 along each axis of its window, however small that window is.
    """
    time, height, width = (
        _outer(_axis_positions(config, axis_cuts, first), config, rounding)
        for axis_cuts, first in zip(cuts, (text_tokens, 0, 0), strict=True)
    )
    size = (len(time), len(height), len(width), -1)
    parts = (time[:, None, None], height[None, :, None], width[None, None, :])
    return torch.cat([part.expand(size) for part in parts], dim=-1).flatten(0, 2)


def text_angles(config: DiTConfig, text_tokens: int, rounding: RopeRounding = "float32") -> Tensor | None:
    """The angles (text tokens, 3 * axis frequencies) of the text, float32 radians; None if text is not rotated."""
    if config.family == "7b":
        return None
    return _outer(torch.arange(text_tokens).float(), config, rounding).repeat(1, 3)


def rotation(angles: Tensor, head_width: int) -> Rotation:
    """The cosines and sines of (tokens, rotated pairs) angles."""
    # An angle of 0 keeps a pair exactly as it is, which spares cutting the channels apart and joining them again.
    angles = F.pad(angles, (0, head_width // 2 - angles.shape[1])).unsqueeze(1)
    return Rotation(angles.cos(), angles.sin())


def rotate(x: Tensor, by: Rotation) -> Tensor:
    """Turn each pair of channels of x (tokens, heads, head width), float32."""
    a, b = x.reshape(*x.shape[:-1], -1, 2).unbind(-1)
    return torch.stack([a * by.cos - b * by.sin, b * by.cos + a * by.sin], dim=-1).flatten(-2)


def _axis_positions(config: DiTConfig, cuts: AxisCuts, first: int) -> Tensor:
    """The position (extent,) of each coordinate of an axis inside its interval, float32."""
    if config.family == "3b":
        return torch.cat([first + torch.arange(end - start).float() for start, end in cuts])
    return torch.cat([torch.linspace(-1.0, 1.0, end - start) for start, end in cuts])


def _outer(positions: Tensor, config: DiTConfig, rounding: RopeRounding) -> Tensor:
    stored, computed = _FORMATS[rounding]
    frequencies = rotary_frequencies(config).to(stored).to(computed)
    return (positions.to(computed)[:, None] * frequencies).float()
