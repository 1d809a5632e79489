"""Thin lines and letters over a canvas: wires, railings, window frames, ropes, signs.

They are what a model with few channels turns into beads, and leaves and photographs have too little of them.
"""

import math

import torch
from torch import Tensor

from training.textures import FAMILIES, log_uniform, uniform

MOST_SHEAVES = 8
"""A sheaf is up to MOST_LINES parallel lines, equally far apart."""
MOST_LINES = 10


def draw_lines(rng: torch.Generator, canvas: Tensor, textures: Tensor) -> Tensor:
    """A canvas (3, P, P) of [0, 1] under some sheaves of lines and a block of letters, anti-aliased.

    textures: of `texture_bank`, whose glyphs the letters are.
    """
    canvas = _write(rng, canvas, textures)
    sheaves = int(torch.randint(1, MOST_SHEAVES + 1, (), generator=rng, device=rng.device))
    for _ in range(sheaves):
        canvas = torch.lerp(canvas, _colour(rng), _sheaf(rng, canvas.shape[-1]))
    return canvas


def _colour(rng: torch.Generator) -> Tensor:
    """(3, 1, 1): white, black or a strong colour, a third each."""
    kind = float(uniform(rng, ()))
    if kind > 2 / 3:
        return uniform(rng, (3, 1, 1))
    shade = float(uniform(rng, (), 0.0, 0.2))
    return torch.full((3, 1, 1), 1 - shade if kind < 1 / 3 else shade, device=rng.device)


def _sheaf(rng: torch.Generator, size_px: int) -> Tensor:
    """Coverage (size_px, size_px) of a sheaf; six in ten are upright or level, some are bent."""
    axis = torch.arange(size_px, device=rng.device, dtype=torch.float32)
    number = [float(x) for x in uniform(rng, (8,))]
    angle = math.pi / 2 * (number[0] > 0.5) if number[1] < 0.6 else math.pi * number[0]
    x = axis[None, :] - number[2] * size_px
    y = axis[:, None] - number[3] * size_px
    along = x * math.cos(angle) + y * math.sin(angle)
    across = y * math.cos(angle) - x * math.sin(angle)
    if number[4] < 0.3:
        across = across + (number[5] - 0.5) * along * along / size_px
    width = float(log_uniform(rng, (), 0.6, 3.0))
    spacing = width + float(log_uniform(rng, (), 2.0, size_px / 8))
    lines = int(torch.randint(1, MOST_LINES + 1, (), generator=rng, device=rng.device))
    nearest = (across / spacing).round().clamp(0, lines - 1) * spacing
    half = float(log_uniform(rng, (), size_px / 30, size_px / 2))
    inside = torch.minimum((width / 2 + 0.5 - (across - nearest).abs()).clamp(0, 1), (half - along.abs()).clamp(0, 1))
    return inside * min(1.0, width)


def _write(rng: torch.Generator, canvas: Tensor, textures: Tensor) -> Tensor:
    """A rectangle of paper with letters on it, or of letters alone."""
    size_px = canvas.shape[-1]
    each = textures.shape[0] // len(FAMILIES)
    first = FAMILIES.index("glyphs") * each
    page = textures[first + int(torch.randint(each, (), generator=rng, device=rng.device))]
    height, width = (int(size_px * float(x)) for x in uniform(rng, (2,), 0.1, 0.5))
    height, width = min(height, page.shape[0]), min(width, page.shape[1])
    top, left = (int(float(x) * (size_px - side)) for x, side in zip(uniform(rng, (2,)), (height, width), strict=True))
    ink = page[:height, :width]
    ink = ((ink - ink.amin()) / (ink.amax() - ink.amin() + 1e-6)).clamp(0, 1)
    canvas = canvas.clone()
    place = canvas[:, top : top + height, left : left + width]
    if float(uniform(rng, ())) < 0.5:
        place.copy_(_colour(rng).expand_as(place))
    place.lerp_(_colour(rng).expand_as(place), ink.expand_as(place))
    return canvas
