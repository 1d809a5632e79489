"""Procedural grey textures: fractal noise, gratings, checkers, ridges, blobs and pages of glyphs.

Every texture is square and periodic, with zero mean and unit variance, so that a surface can sample it at
any scale and offset and mix it in with a contrast of its own.
"""

import math

import torch
from torch import Tensor

FAMILIES = ("fractal", "oriented", "ridged", "blobs", "grating", "checker", "glyphs")


def standardise(images: Tensor) -> Tensor:
    """Shift and scale each image (..., H, W) to zero mean and unit variance."""
    variance, mean = torch.var_mean(images, dim=(-2, -1), keepdim=True)
    return (images - mean) * torch.rsqrt(variance + 1e-6)


def uniform(rng: torch.Generator, shape: tuple[int, ...], low: float = 0.0, high: float = 1.0) -> Tensor:
    """Uniform random numbers of [low, high) on the generator's device."""
    return low + (high - low) * torch.rand(shape, generator=rng, device=rng.device)


def log_uniform(rng: torch.Generator, shape: tuple[int, ...], low: float, high: float) -> Tensor:
    """Random numbers of [low, high) whose logarithm is uniform."""
    return torch.exp(uniform(rng, shape, math.log(low), math.log(high)))


def fractal_noise(rng: torch.Generator, slopes: Tensor, size_px: int, stretch: Tensor | None = None) -> Tensor:
    """Periodic noise with amplitude spectrum 1/f^slope; photographs have slopes of about 1.

    `slopes` is (N,); `stretch` (N,), 1 for none, squeezes the spectrum across a random direction, which gives
    streaks (wood, hair, water). Result (N, size_px, size_px), standardised.
    """
    fy = torch.fft.fftfreq(size_px, device=rng.device)[:, None]
    fx = torch.fft.rfftfreq(size_px, device=rng.device)[None, :]
    count = slopes.numel()
    if stretch is None:
        radius = torch.sqrt(fy**2 + fx**2).expand(count, -1, -1)
    else:
        angle = uniform(rng, (count, 1, 1), 0.0, math.pi)
        along = fx * torch.cos(angle) + fy * torch.sin(angle)
        across = fy * torch.cos(angle) - fx * torch.sin(angle)
        radius = torch.sqrt((along * stretch[:, None, None]) ** 2 + across**2)
    amplitude = radius.clamp_min(1.0 / size_px) ** -slopes[:, None, None]
    white = torch.randn((count, size_px, size_px), generator=rng, device=rng.device)
    return standardise(torch.fft.irfft2(torch.fft.rfft2(white) * amplitude, s=(size_px, size_px)))


def gratings(rng: torch.Generator, count: int, size_px: int) -> Tensor:
    """Oriented stripes, from soft sine waves to hard bars; (count, size_px, size_px)."""
    axis = torch.arange(size_px, device=rng.device) / size_px
    waves = log_uniform(rng, (count, 1, 1), 4, size_px / 5)
    angle = uniform(rng, (count, 1, 1), 0.0, math.pi)
    # Whole numbers of periods along both axes keep the texture periodic.
    ky, kx = torch.round(waves * torch.sin(angle)), torch.round(waves * torch.cos(angle))
    phase = 2 * math.pi * (ky * axis[:, None] + kx * axis[None, :])
    hardness = log_uniform(rng, (count, 1, 1), 0.5, 12.0)
    duty = uniform(rng, (count, 1, 1), -0.5, 0.5)
    return standardise(torch.tanh(hardness * (torch.sin(phase) + duty)))


def checkers(rng: torch.Generator, count: int, size_px: int) -> Tensor:
    """Checkerboards and tiles with random cell sizes and cell shades; (count, size_px, size_px)."""
    axis = torch.arange(size_px, device=rng.device) / size_px
    cells = torch.round(log_uniform(rng, (count, 2, 1), 2, size_px / 6))
    iy, ix = torch.floor(axis * cells[:, 0])[:, :, None], torch.floor(axis * cells[:, 1])[:, None, :]
    parity = (iy + ix) % 2
    shade = torch.sin(iy * 12.9898 + ix * 78.233) * 43758.5453
    mix = uniform(rng, (count, 1, 1))
    return standardise(parity * mix + (shade - torch.floor(shade)) * (1 - mix))


def glyph_atlas(rng: torch.Generator, count: int, height_px: int, width_px: int) -> Tensor:
    """Letter-like bitmaps made of two to four straight or bent strokes; (count, height_px, width_px) in [0,1]."""
    ends = torch.randint(0, 3, (count, 4, 3, 2), generator=rng, device=rng.device) / 2
    used = uniform(rng, (count, 4)) < 0.7
    used[:, :2] = True
    y = (torch.arange(height_px, device=rng.device) + 0.5)[:, None, None, None]
    x = (torch.arange(width_px, device=rng.device) + 0.5)[:, None, None]
    top, left = 1.5, 1.5
    py = top + ends[..., 1] * (height_px - 4)
    px = left + ends[..., 0] * (width_px - 4)
    ink = torch.zeros((height_px, width_px, count), device=rng.device)
    thickness = uniform(rng, (count, 1), 0.5, 1.1)
    for start in range(2):
        ay, ax, by, bx = py[..., start], px[..., start], py[..., start + 1], px[..., start + 1]
        length = ((bx - ax) ** 2 + (by - ay) ** 2).clamp_min(1e-3)
        along = (((x - ax) * (bx - ax) + (y - ay) * (by - ay)) / length).clamp(0, 1)
        distance = torch.sqrt((x - ax - along * (bx - ax)) ** 2 + (y - ay - along * (by - ay)) ** 2)
        stroke = (thickness + 0.5 - distance).clamp(0, 1) * used
        ink = torch.maximum(ink, stroke.amax(dim=-1))
    return ink.permute(2, 0, 1)


def glyph_pages(rng: torch.Generator, count: int, size_px: int) -> Tensor:
    """Pages of words in rows, some sparse like captions; (count, size_px, size_px)."""
    pages = []
    for _ in range(count):
        height = int(torch.randint(7, 21, (), generator=rng, device=rng.device))
        width = max(5, round(height * 0.65))
        rows, columns = -(-size_px // height), -(-size_px // width)
        atlas = glyph_atlas(rng, 40, height, width)
        choice = torch.randint(0, 40, (rows, columns), generator=rng, device=rng.device)
        shown = (uniform(rng, (rows, columns)) < 0.84) & (uniform(rng, (rows, 1)) < 0.8)
        page = atlas[choice] * shown[:, :, None, None]
        page = page.permute(0, 2, 1, 3).reshape(rows * height, columns * width)
        pages.append(page[:size_px, :size_px])
    sign = torch.sign(uniform(rng, (count, 1, 1), -1.0, 1.0))
    return standardise(torch.stack(pages) * sign)


def texture_bank(rng: torch.Generator, per_family: int, size_px: int) -> Tensor:
    """`per_family` textures of every family, in the order of FAMILIES; (7 * per_family, size_px, size_px)."""
    n = per_family
    rough = uniform(rng, (n,), 0.3, 1.8)
    oriented = fractal_noise(rng, uniform(rng, (n,), 0.6, 1.6), size_px, log_uniform(rng, (n,), 3.0, 20.0))
    ridged = standardise(-torch.abs(fractal_noise(rng, uniform(rng, (n,), 0.9, 1.8), size_px)))
    hardness = log_uniform(rng, (n, 1, 1), 1.0, 12.0)
    blobs = torch.tanh(hardness * fractal_noise(rng, uniform(rng, (n,), 1.0, 2.2), size_px))
    families = [
        fractal_noise(rng, rough, size_px),
        oriented,
        ridged,
        standardise(blobs),
        gratings(rng, n, size_px),
        checkers(rng, n, size_px),
        glyph_pages(rng, n, size_px),
    ]
    return torch.cat(families)
