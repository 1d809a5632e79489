"""Everything about a run of the transformer that follows from the shapes alone, computed once."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ...errors import InvalidArgumentError
from .attention import AttentionKind
from .config import DiTConfig
from .rope import RopeRounding, Rotation, rotation, text_angles, video_angles
from .windows import WindowLayout, layout_windows, window_cuts

LatentShape = tuple[int, int, int, int]
"""Clips, latent frames, latent height, latent width."""


@dataclass(frozen=True)
class Geometry:
    """Windows, token orders and rotations for clips of one shape with a text of one length.

    Layers alternate between two window layouts, the regular and the shifted one. The video tokens stand in the window
    order of the layer that works on them, so that they move once for each layer and not for each of q, k and v.
    """

    shape: LatentShape
    """The shape of the latents."""
    layouts: tuple[WindowLayout, WindowLayout]
    """The windows of even and of odd layers."""
    rotations: tuple[Rotation, Rotation]
    """The rotations of the video tokens in each layout's window order."""
    text_rotation: Rotation | None
    """The rotation of the text tokens, clip after clip, if text is rotated."""
    permutations: tuple[Tensor | None, Tensor | None]
    """Row numbers that bring tokens from the other layout's order into each layout's; None if the orders agree."""
    restore: Tensor
    """Row numbers that bring tokens from the last layer's order back into raster order."""
    attention: AttentionKind
    """How windows of different sizes are computed."""

    @property
    def text_tokens(self) -> int:
        """Text tokens of each clip."""
        return self.layouts[0].text_tokens


@dataclass(frozen=True)
class Execution:
    """How a geometry is to be computed, as against what follows from the shapes."""

    device: torch.device
    """Where the tables go."""
    attention: AttentionKind
    """How windows of different sizes are computed."""
    rounding: RopeRounding = "float32"
    """The number format of the rotary frequencies and angles."""


def plan_geometry(config: DiTConfig, shape: LatentShape, text_tokens: int, execution: Execution) -> Geometry:
    """Compute the windows and rotations for latents of `shape` and `text_tokens` of text."""
    batch, frames, height, width = shape
    patch = config.patch_size
    if min(shape) < 1 or height % patch or width % patch:
        raise InvalidArgumentError(
            f"video: expected latents whose height and width are positive multiples of {patch}, got {height}x{width} "
            f"(height x width) and {frames} frames; pad the picture to a multiple of {8 * patch} px."
        )
    if text_tokens < 1:
        raise InvalidArgumentError(f"text: expected at least one text token, got {text_tokens}.")
    grid = frames, height // patch, width // patch
    layouts, rotations = [], []
    for shifted in (False, True):
        cuts = window_cuts(*grid, shifted=shifted)
        layout = layout_windows(batch, cuts, text_tokens)
        angles = video_angles(config, cuts, text_tokens, execution.rounding).repeat(batch, 1)
        layouts.append(layout)
        rotations.append(_placed(rotation(angles[layout.order], config.head_width), execution.device))
    regular, shifted_layout = layouts
    ranks = torch.argsort(regular.order), torch.argsort(shifted_layout.order)
    text = text_angles(config, text_tokens, execution.rounding)
    text_rotation = None if text is None else rotation(text.repeat(batch, 1), config.head_width)
    same = torch.equal(regular.order, shifted_layout.order)
    device = execution.device
    return Geometry(
        shape=shape,
        layouts=(regular.to(device), shifted_layout.to(device)),
        rotations=(rotations[0], rotations[1]),
        text_rotation=None if text_rotation is None else _placed(text_rotation, device),
        permutations=(
            None if same else ranks[1][regular.order].to(device),
            None if same else ranks[0][shifted_layout.order].to(device),
        ),
        restore=ranks[(config.layers - 1) % 2].to(device),
        attention=execution.attention,
    )


def _placed(by: Rotation, device: torch.device) -> Rotation:
    return Rotation(by.cos.to(device), by.sin.to(device))
