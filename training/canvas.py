"""Procedural still pictures: dead leaves with power-law sizes, shaded and textured, in natural colours.

A scene of opaque leaves with radius density r^-3 has edges at every scale and the 1/f spectrum of photographs
(Lee, Mumford and Huang, "Occlusion models for natural images", 2001). All leaves of a size octave are drawn at
once: each pixel keeps the leaf of smallest depth (an atomic minimum), then is shaded from its leaf's parameters.
"""

import math
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor

from training.textures import FAMILIES, fractal_noise, log_uniform, uniform

SUPERSAMPLING = 2
SMALLEST_RADIUS_PX = 1.0
"""Of leaves, in pixels of the finished canvas."""


@dataclass(frozen=True)
class Leaves:
    """Parameters of N leaves, one entry a leaf, lengths in supersampled pixels."""

    x: Tensor
    """Centre, column."""
    y: Tensor
    """Centre, row."""
    radius: Tensor
    """Half the longest extent, about."""
    angle: Tensor
    """Rotation in radians."""
    aspect: Tensor
    """Short side over long side, in (0, 1]."""
    kind: Tensor
    """0 ellipse, 1 rectangle, 2 polygon, 3 wavy blob, 4 bent strip."""
    corners: Tensor
    """Corners of a polygon, lobes of a blob."""
    bend: Tensor
    """Bend of a strip, depth of a blob's lobes."""
    depth: Tensor
    """In [0, 1); the smallest is seen."""

    def local(self, px: Tensor, py: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """The pixel in its leaf's own axes, in units of the leaf's radius."""
        dx, dy = px - self.x[index], py - self.y[index]
        cos, sin = torch.cos(self.angle[index]), torch.sin(self.angle[index])
        radius = self.radius[index]
        return (dx * cos + dy * sin) / radius, (dy * cos - dx * sin) / radius


def _inside(leaves: Leaves, index: Tensor, u: Tensor, v: Tensor) -> Tensor:
    kind, corners, bend = leaves.kind[index], leaves.corners[index], leaves.bend[index]
    v = torch.where(kind == 4, v - bend * (u * u - 0.3), v) / leaves.aspect[index]
    rho, theta = torch.sqrt(u * u + v * v), torch.atan2(v, u)
    sector = 2 * math.pi / corners
    polygon = rho * torch.cos(torch.remainder(theta, sector) - sector / 2) < torch.cos(sector / 2)
    blob = rho < 0.65 * (1 + bend * torch.sin(corners * theta) + 0.2 * torch.sin(2 * theta + corners))
    box = torch.maximum(u.abs(), v.abs()) < 0.7
    inside = torch.where(kind == 0, rho < 1, box)
    inside = torch.where(kind == 2, polygon, inside)
    return torch.where(kind == 3, blob, inside)


def _octave_counts(size_px: int, smallest_px: float, largest_px: float, cover: float) -> list[tuple[float, int]]:
    """(smallest radius, leaf count) of each octave; r^-3 gives every octave the same area, `cover` canvases."""
    octaves = []
    radius = smallest_px
    while radius < largest_px:
        mean_area = math.pi * radius * radius * 8 / 3 * math.log(2)  # of r^-3 over [radius, 2 radius)
        octaves.append((radius, max(1, round(cover * size_px**2 / mean_area))))
        radius *= 2
    return octaves


def _scatter_leaves(rng: torch.Generator, size_px: int, octaves: list[tuple[float, int]]) -> Leaves:
    """Random leaves; one canvas in four is combed: mostly strips that point about the same way, as in fur or grass."""
    count = sum(n for _, n in octaves)
    combed = bool(uniform(rng, ()) < 0.25)
    kinds = [0.08, 0.04, 0.04, 0.14, 0.7] if combed else [0.3, 0.2, 0.18, 0.22, 0.1]
    comb_angle, comb_spread = float(uniform(rng, (), 0, math.pi)), float(uniform(rng, (), 0.1, 0.8))
    low = torch.cat([torch.full((n,), r, device=rng.device) for r, n in octaves])
    radius = low * torch.rsqrt(1 - 0.75 * uniform(rng, (count,)))
    kind = torch.multinomial(torch.tensor(kinds, device=rng.device), count, replacement=True, generator=rng)
    strip = kind == 4
    aspect = torch.where(strip, uniform(rng, (count,), 0.01, 0.12), uniform(rng, (count,), 0.35, 1.0))
    angle = uniform(rng, (count,), 0, 2 * math.pi)
    if combed:
        angle = comb_angle + comb_spread * torch.randn(count, generator=rng, device=rng.device)
    return Leaves(
        x=uniform(rng, (count,), 0, size_px),
        y=uniform(rng, (count,), 0, size_px),
        radius=radius,
        angle=angle,
        # A strip is never thinner than one supersampled pixel.
        aspect=torch.maximum(aspect, 0.6 / radius),
        kind=kind,
        corners=torch.randint(3, 8, (count,), generator=rng, device=rng.device).float(),
        bend=torch.where(strip, uniform(rng, (count,), -0.5, 0.5), uniform(rng, (count,), 0.05, 0.3)),
        depth=uniform(rng, (count,)),
    )


def visible_leaf(leaves: Leaves, size_px: int, octaves: list[tuple[float, int]]) -> Tensor:
    """Index of the nearest leaf at every pixel, -1 where there is none; (size_px, size_px) int64."""
    device = leaves.x.device
    nearest = torch.full((size_px * size_px,), torch.iinfo(torch.int64).max, device=device)
    first = 0
    for radius, count in octaves:
        box_px = math.ceil(radius * 4) + 2
        axis = torch.arange(box_px, device=device) - box_px // 2
        batch = max(1, (1 << 24) // box_px**2)
        for start in range(first, first + count, batch):
            index = torch.arange(start, min(start + batch, first + count), device=device)[:, None, None]
            px = torch.floor(leaves.x[index]).long() + axis[None, None, :]
            py = torch.floor(leaves.y[index]).long() + axis[None, :, None]
            u, v = leaves.local(px + 0.5, py + 0.5, index)
            shown = _inside(leaves, index, u, v) & (px >= 0) & (px < size_px) & (py >= 0) & (py < size_px)
            key = ((leaves.depth[index] * (1 << 30)).long() << 32) | index
            key = torch.where(shown, key, torch.iinfo(torch.int64).max)
            place = py.clamp(0, size_px - 1) * size_px + px.clamp(0, size_px - 1)
            nearest.scatter_reduce_(0, place.flatten(), key.expand(place.shape).flatten(), "amin")
        first += count
    found = nearest & 0xFFFFFFFF
    return torch.where(nearest == torch.iinfo(torch.int64).max, -1, found).view(size_px, size_px)


def natural_colours(rng: torch.Generator, count: int) -> Tensor:
    """`count` colours of one scene: mostly brightness, some blue-orange, little green-magenta; (count, 3).

    The opponent axes and their relative spreads follow Ruderman, Cronin and Chiao, "Statistics of cone
    responses to natural images" (1998). One scene in four is saturated like paint and plastic.
    """
    vivid = bool(uniform(rng, ()) < 0.25)
    spread = torch.tensor([0.24, 0.18, 0.14] if vivid else [0.24, 0.055, 0.04], device=rng.device)
    tint = torch.randn(3, generator=rng, device=rng.device) * torch.tensor([0.0, 0.06, 0.045], device=rng.device)
    middle = uniform(rng, (1,), 0.25, 0.7)
    axes = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.1, -1.1], [0.6, -1.0, 0.5]], device=rng.device)
    opponent = torch.randn((count, 3), generator=rng, device=rng.device) * spread + tint
    return (middle + opponent @ axes).clamp(0.01, 0.99)


@dataclass(frozen=True)
class Surfaces:
    """Appearance of N leaves (the last one is the background), one entry a leaf."""

    colour: Tensor
    """(N, 3)."""
    slope_u: Tensor
    """Change of brightness along u, over one radius."""
    slope_v: Tensor
    """Change of brightness along v."""
    bulge: Tensor
    """Darkening towards the rim."""
    texture: Tensor
    """Index into the texture bank."""
    contrast: Tensor
    """Standard deviation of the texture's modulation; often nearly none."""
    pitch: Tensor
    """Texture pixels a canvas pixel."""


def _paint(rng: torch.Generator, count: int, textures: int) -> Surfaces:
    normal = torch.randn((3, count), generator=rng, device=rng.device)
    # Words and checkers are rarer in the world than grain and streaks.
    weights = torch.tensor([1.0, 0.9, 0.5, 0.5, 0.3, 0.2, 0.25], device=rng.device)
    weights = weights.repeat_interleave(textures // len(FAMILIES))
    return Surfaces(
        colour=natural_colours(rng, count),
        slope_u=normal[0] * 0.15,
        slope_v=normal[1] * 0.15,
        bulge=normal[2].clamp_min(0) * 0.25,
        texture=torch.multinomial(weights, count, replacement=True, generator=rng),
        contrast=log_uniform(rng, (count,), 0.01, 0.6),
        pitch=log_uniform(rng, (count,), 0.2, 1.4),
    )


def fetch_bilinear(textures: Tensor, index: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """Sample periodic textures (K, P, P) at (index, row, column), all of one shape, in texture pixels."""
    size = textures.shape[-1]
    top, left = torch.floor(row), torch.floor(column)
    down, right = row - top, column - left
    y0, x0 = top.long() % size, left.long() % size
    y1, x1 = (y0 + 1) % size, (x0 + 1) % size
    upper = torch.lerp(textures[index, y0, x0], textures[index, y0, x1], right)
    lower = torch.lerp(textures[index, y1, x0], textures[index, y1, x1], right)
    return torch.lerp(upper, lower, down)


def draw_canvas(rng: torch.Generator, size_px: int, textures: Tensor) -> Tensor:
    """One still picture (3, size_px, size_px) in [0, 1], anti-aliased.

    `textures` is a bank of (K, P, P) grey textures (see `texture_bank`). The smallest leaf, the cover, the
    softness and the light are drawn at random, so some canvases are smooth and others crowded with detail.
    """
    fine_px = size_px * SUPERSAMPLING
    smallest = float(log_uniform(rng, (), SMALLEST_RADIUS_PX, 12.0)) * SUPERSAMPLING
    octaves = _octave_counts(fine_px, smallest, fine_px / 3, float(uniform(rng, (), 0.25, 1.1)))
    leaves = _scatter_leaves(rng, fine_px, octaves)
    seen = visible_leaf(leaves, fine_px, octaves)
    paint = _paint(rng, leaves.x.numel() + 1, textures.shape[0])
    axis = torch.arange(fine_px, device=rng.device) + 0.5
    px, py = axis[None, :].expand(fine_px, -1), axis[:, None].expand(-1, fine_px)
    u, v = leaves.local(px, py, seen.clamp_min(0))
    radius_px = leaves.radius[seen.clamp_min(0)]
    free = seen < 0
    u = torch.where(free, px / fine_px * 2 - 1, u)
    v = torch.where(free, py / fine_px * 2 - 1, v)
    radius_px = torch.where(free, fine_px / 2, radius_px)
    at = {f.name: getattr(paint, f.name)[seen] for f in fields(paint)}  # -1 is the background, the last entry
    step = at["pitch"] * radius_px / SUPERSAMPLING
    grain = fetch_bilinear(textures, at["texture"], v * step, u * step)
    light = at["slope_u"] * u + at["slope_v"] * v - at["bulge"] * (u * u + v * v) + at["contrast"] * grain
    picture = at["colour"] * torch.exp(light)[..., None]
    picture = F.avg_pool2d(picture.permute(2, 0, 1)[None], SUPERSAMPLING)
    haze = fractal_noise(rng, uniform(rng, (1,), 1.5, 2.0), size_px) * uniform(rng, (1,), 0.0, 0.25)[:, None, None]
    return (picture * torch.exp(haze)).clamp(0, 1)[0]


def draw_texture_canvas(rng: torch.Generator, size_px: int) -> Tensor:
    """A picture without objects, three colours blended by fractal noise as in sky or walls; (3, size_px, size_px)."""
    slopes = uniform(rng, (3,), 0.9, 2.2)
    noise = fractal_noise(rng, slopes, size_px)
    low, high, third = natural_colours(rng, 3)[:, :, None, None]
    blend = torch.sigmoid(noise * log_uniform(rng, (3, 1, 1), 0.4, 3.0))
    picture = low + (high - low) * blend[0] + (third - low) * 0.3 * (blend[1] - 0.5)
    return (picture * (0.85 + 0.3 * blend[2])).clamp(0, 1)
