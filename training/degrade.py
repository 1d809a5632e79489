"""From a sharp clip to one as people have it: blurred, resampled, noisy and compressed, twice over.

The two rounds are those of Real-ESRGAN (Wang, Xie, Dong and Shan, 2021, "high-order degradation"), which SeedVR2 (Wang
et al., 2025) follows for video; the last round ends with the codec. Blurs are products of transfer functions and are
applied in the frequency domain. Every clip of a batch draws its own faults; sizes and resampling kernels are shared.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from seedvr2_engine.pipeline.resize import resample
from training.compress import jpeg, video_coded
from training.textures import log_uniform, uniform

MARGIN_PX = 16
"""Mirrored pixels around a picture while it is blurred."""
CELL_PX = 16
Size = tuple[int, int]


@dataclass(frozen=True)
class Round:
    """How likely and how strong the faults of one round are."""

    blur: float
    """Share of clips that are blurred."""
    sigma_px: float
    """Largest deviation of the Gaussian blur."""
    noise: float
    """Share of clips with noise."""
    noise_level: float
    """Largest deviation of the noise; pictures are of [0, 1]."""
    coded: float
    """Share of clips that are compressed."""
    quality: tuple[float, float]
    """Range of the compression's quality, 1 to 100."""


@dataclass(frozen=True)
class Strength:
    """Both rounds of a degradation."""

    rounds: tuple[Round, Round]
    """The one at the clip's own size, and the one that ends at the small size."""
    least_between: float
    """Smallest size between the rounds, as a part of the final size."""
    most_between: float
    """Largest size between the rounds, as a part of the clip's own."""
    clean: float
    """Share of clips that are made smaller and nothing else."""
    even: bool
    """Whether deviations are drawn evenly from their range, or their logarithms are, which favours weak faults."""

    def draw(self, rng: torch.Generator, shape: tuple[int, ...], low: float, high: float) -> Tensor:
        """Random deviations."""
        return uniform(rng, shape, low, high) if self.even else log_uniform(rng, shape, low, high)


MILD = Strength(
    rounds=(
        Round(blur=0.75, sigma_px=2.2, noise=0.5, noise_level=0.08, coded=0.4, quality=(40, 95)),
        Round(blur=0.4, sigma_px=1.1, noise=0.4, noise_level=0.05, coded=0.65, quality=(30, 95)),
    ),
    least_between=0.75,
    most_between=1.1,
    clean=0.15,
    even=False,
)
"""What people's better clips have: some of the faults, mostly weak ones."""
FULL = Strength(
    rounds=(
        Round(blur=1.0, sigma_px=3.0, noise=1.0, noise_level=30 / 255, coded=1.0, quality=(30, 95)),
        Round(blur=0.8, sigma_px=1.5, noise=1.0, noise_level=25 / 255, coded=1.0, quality=(30, 95)),
    ),
    least_between=0.4,
    most_between=1.5,
    clean=0.0,
    even=True,
)
"""After the ranges and shares of Real-ESRGAN (its `options/train_realesrgan_x2plus.yml`): all faults on every clip."""


def degrade(rng: torch.Generator, clips: Tensor, size: Size, strength: Strength = MILD) -> Tensor:
    """Clips (N, 3, T, H, W) in [-1, 1] -> the same at `size` (height, width), in [0, 1], with 8-bit steps."""
    sharp = (clips + 1) / 2
    height, width = sharp.shape[-2:]
    first, second = strength.rounds
    middle = math.exp(
        _number(rng, math.log(strength.least_between * size[0] / height), math.log(strength.most_between))
    )
    between = _whole_cells(height * middle), _whole_cells(width * middle)
    x = _blurred(rng, sharp, first, strength)
    x = _resized(rng, x, between)
    x = _compressed(rng, _noisy(rng, x, first, strength), first, is_last=False)
    x = _blurred(rng, x, second, strength)
    x = _noisy(rng, _resized(rng, x, size), second, strength)
    x = _compressed(rng, x, second, is_last=True)
    x = torch.where(_some(rng, len(x), strength.clean), _as_frames(sharp, lambda frames: resample(frames, size)), x)
    return torch.round(x.clamp(0, 1) * 255) / 255


def enlarge(low: Tensor, size: Size) -> Tensor:
    """What the transformer is conditioned on, before encoding: (N, 3, T, h, w) in [0, 1] at `size`, in [-1, 1]."""
    return _as_frames(low, lambda frames: resample(frames, size)).clamp(0, 1) * 2 - 1


def _as_frames(clips: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Apply a change of pictures (N, C, H, W) to clips (N, C, T, H, W)."""
    count, frames = clips.shape[0], clips.shape[2]
    return change(clips.transpose(1, 2).flatten(0, 1)).unflatten(0, (count, frames)).transpose(1, 2)


def _some(rng: torch.Generator, count: int, share: float) -> Tensor:
    """True for about `share` of the clips; (N, 1, 1, 1, 1)."""
    return uniform(rng, (count, 1, 1, 1, 1)) < share


def _whole_cells(size_px: float) -> int:
    """To the nearest multiple of CELL_PX, so that a GPU plans few transforms; larger than the margin."""
    return max(2, round(size_px / CELL_PX)) * CELL_PX


def _number(rng: torch.Generator, low: float, high: float) -> float:
    return float(uniform(rng, (1,), low, high))


def _blurred(rng: torch.Generator, clips: Tensor, by: Round, strength: Strength) -> Tensor:
    height, width = clips.shape[-2:]
    grid = (height + 2 * MARGIN_PX, width + 2 * MARGIN_PX)
    sigma = strength.draw(rng, (len(clips), 1, 1), 0.2, by.sigma_px)
    transfer = transfer_functions(rng, sigma, grid, by.sigma_px)
    # The mirror needs more pixels than the margin has.
    padded = F.pad(clips.flatten(1, 2), (MARGIN_PX,) * 4, mode="reflect").unflatten(1, clips.shape[1:3])
    spectrum = torch.fft.rfft2(padded) * transfer[:, None, None]
    soft = torch.fft.irfft2(spectrum, s=padded.shape[-2:])
    soft = soft[..., MARGIN_PX : MARGIN_PX + height, MARGIN_PX : MARGIN_PX + width]
    return torch.where(_some(rng, len(clips), by.blur), soft, clips)


def transfer_functions(rng: torch.Generator, sigma: Tensor, size: Size, largest_px: float) -> Tensor:
    """Random lenses (N, H, W // 2 + 1) on the grid of `torch.fft.rfft2`: real and 1 for the mean.

    Each is a Gaussian of deviation `sigma` (N, 1, 1), round or stretched; a few also defocus (a disc), shake (a line)
    or cut off (ringing).
    """
    fy = torch.fft.fftfreq(size[0], device=rng.device)[:, None]
    fx = torch.fft.rfftfreq(size[1], device=rng.device)
    radius = torch.sqrt(fy * fy + fx * fx)
    shape = tuple(sigma.shape)
    angle = uniform(rng, shape, 0, math.pi)
    along, across = fx * angle.cos() + fy * angle.sin(), fy * angle.cos() - fx * angle.sin()
    wide = sigma
    narrow = wide * torch.where(uniform(rng, shape) < 0.5, uniform(rng, shape, 0.3, 1.0), 1.0)
    gaussian = torch.exp(-2 * math.pi**2 * ((along * wide) ** 2 + (across * narrow) ** 2))
    reach = (2 * math.pi * radius * uniform(rng, shape, 0.8, 1.3 * largest_px)).clamp_min(1e-4)
    disc = 2 * torch.special.bessel_j1(reach) / reach
    line = torch.sinc(along * uniform(rng, shape, 1.0, 2.5 * largest_px))
    cut = torch.sigmoid((uniform(rng, shape, 0.2, 0.5) - radius) * 80)
    result = gaussian
    for share, lens in ((0.2, disc), (0.12, line), (0.12, cut)):
        result = result * torch.where(uniform(rng, shape) < share, lens, 1.0)
    return result


def _resized(rng: torch.Generator, clips: Tensor, size: Size) -> Tensor:
    """Resampled by one of the kernels in use; area averages only when shrinking."""
    kind = ("area", "bilinear", "bicubic")[int(torch.randint(0, 3, (), generator=rng, device=rng.device))]
    if kind == "area" and size[0] >= clips.shape[-2]:
        kind = "bilinear"
    if kind == "area":
        return _as_frames(clips, lambda frames: F.interpolate(frames, size, mode=kind))
    return _as_frames(clips, lambda frames: F.interpolate(frames, size, mode=kind, antialias=True)).clamp(0, 1)


def _noisy(rng: torch.Generator, clips: Tensor, by: Round, strength: Strength) -> Tensor:
    """With a sensor's noise: a constant part and one that grows with the light, grey or coloured."""
    shape = (len(clips), 1, 1, 1, 1)
    white = torch.randn(clips.shape, generator=rng, device=rng.device)
    white = torch.where(_some(rng, len(clips), 0.4), white[:, :1], white)
    level = strength.draw(rng, shape, 0.003, by.noise_level)
    shot = uniform(rng, shape)
    deviation = level * torch.sqrt(1 - shot + 2 * shot * clips)
    return (clips + white * deviation * _some(rng, len(clips), by.noise)).clamp(0, 1)


def _compressed(rng: torch.Generator, clips: Tensor, by: Round, *, is_last: bool) -> Tensor:
    quality = uniform(rng, (len(clips),), *by.quality)
    as_video = is_last and clips.shape[2] > 1
    coded = video_coded(clips, quality) if as_video else jpeg(clips, quality)
    return torch.where(_some(rng, len(clips), by.coded), coded, clips)
