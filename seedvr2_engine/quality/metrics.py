"""PSNR and SSIM of pictures, frame by frame, and their summary over a clip."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from ..errors import InvalidArgumentError

_WINDOW_PX = 11
_SIGMA_PX = 1.5
_C1 = 0.01**2
_C2 = 0.03**2


@dataclass(frozen=True)
class FrameQuality:
    """How close one frame is to its reference."""

    psnr_db: float
    """Peak signal-to-noise ratio over all samples, for a peak of 1; infinite for equal frames."""
    ssim: float | None
    """Mean structural similarity, at most 1; None for frames smaller than the 11-pixel window."""


@dataclass(frozen=True)
class ClipQuality:
    """The summary of a clip."""

    frames: int
    psnr_db: float
    """From the squared error of all frames together; the figure to quote."""
    mean_psnr_db: float
    """The mean of the frames' PSNR."""
    min_psnr_db: float
    mean_ssim: float | None
    min_ssim: float | None

    def describe(self) -> str:
        """Return one line for people."""
        line = f"PSNR {self.psnr_db:.2f} dB (worst frame {self.min_psnr_db:.2f} dB)"
        if self.mean_ssim is None or self.min_ssim is None:
            return line
        return f"{line}, SSIM {self.mean_ssim:.4f} (worst frame {self.min_ssim:.4f})"


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    """Return the PSNR in dB of two float tensors of equal shape in [0,1]; infinite if they are equal."""
    return decibel(_mean_squared_error(a, b))


def ssim(a: torch.Tensor, b: torch.Tensor) -> float:
    """Return the mean SSIM of two float (C,H,W) pictures in [0,1], H and W at least 11.

    Wang, Bovik, Sheikh and Simoncelli 2004: 11x11 Gaussian window, sigma 1.5, K1 0.01, K2 0.03, population
    covariance; per channel over the windows that lie wholly inside, then averaged over the channels. Float32 inputs
    are compared in float64, since variances are small differences of large numbers.
    """
    _check(a, b)
    if min(a.shape[-2:]) < _WINDOW_PX:
        raise InvalidArgumentError(f"SSIM: expected pictures of at least {_WINDOW_PX} pixels a side, got {_size(a)}.")
    channels = zip(a.double(), b.double(), strict=True)
    return sum(_channel_ssim(x, y) for x, y in channels) / a.shape[0]


class QualityMeter:
    """Accumulates PSNR and SSIM over the frames of a clip; keeps a few numbers, no frames."""

    def __init__(self) -> None:
        self._frames = 0
        self._mse_sum = 0.0
        self._psnr_sum = 0.0
        self._psnr_min = math.inf
        self._ssims = 0
        self._ssim_sum = 0.0
        self._ssim_min = math.inf

    def add(self, frame: torch.Tensor, reference: torch.Tensor) -> FrameQuality:
        """Compare two float (3,H,W) frames in [0,1], on one device, and return their figures."""
        error = _mean_squared_error(frame, reference)
        quality = FrameQuality(
            psnr_db=decibel(error),
            ssim=ssim(frame, reference) if min(frame.shape[-2:]) >= _WINDOW_PX else None,
        )
        self._frames += 1
        self._mse_sum += error
        self._psnr_sum += quality.psnr_db
        self._psnr_min = min(self._psnr_min, quality.psnr_db)
        if quality.ssim is not None:
            self._ssims += 1
            self._ssim_sum += quality.ssim
            self._ssim_min = min(self._ssim_min, quality.ssim)
        return quality

    def summary(self) -> ClipQuality:
        """Return the figures over all frames so far, which must be of one size; raises if there are none."""
        if self._frames == 0:
            raise InvalidArgumentError("QualityMeter: expected at least one frame, got none; add frames first.")
        return ClipQuality(
            frames=self._frames,
            psnr_db=decibel(self._mse_sum / self._frames),
            mean_psnr_db=self._psnr_sum / self._frames,
            min_psnr_db=self._psnr_min,
            mean_ssim=self._ssim_sum / self._ssims if self._ssims else None,
            min_ssim=self._ssim_min if self._ssims else None,
        )


def _mean_squared_error(a: torch.Tensor, b: torch.Tensor) -> float:
    _check(a, b)
    return float((a.double() - b.double()).square().mean())


def decibel(mean_squared_error: float) -> float:
    """The PSNR in dB for a peak of 1; infinite for no error, NaN for NaN."""
    return math.inf if mean_squared_error == 0 else -10 * math.log10(mean_squared_error)


def _channel_ssim(a: torch.Tensor, b: torch.Tensor) -> float:
    mean_a, mean_b = _blur(a), _blur(b)
    variance_a, variance_b = _blur(a * a) - mean_a**2, _blur(b * b) - mean_b**2
    covariance = _blur(a * b) - mean_a * mean_b
    structure = (2 * mean_a * mean_b + _C1) * (2 * covariance + _C2)
    energy = (mean_a**2 + mean_b**2 + _C1) * (variance_a + variance_b + _C2)
    return float((structure / energy).mean())


def _blur(plane: torch.Tensor) -> torch.Tensor:
    """Gaussian means of (H,W) over the windows that lie wholly inside, (H-10,W-10).

    Eleven shifted additions per axis: a convolution of one channel takes a CPU about ten times as long.
    """
    offsets = range(-(_WINDOW_PX // 2), _WINDOW_PX // 2 + 1)
    weights = [math.exp(-(offset**2) / (2 * _SIGMA_PX**2)) for offset in offsets]
    weights = [weight / sum(weights) for weight in weights]
    for dim in (0, 1):
        length = plane.shape[dim] - _WINDOW_PX + 1
        blurred = plane.narrow(dim, 0, length) * weights[0]
        for start, weight in enumerate(weights[1:], 1):
            blurred.add_(plane.narrow(dim, start, length), alpha=weight)
        plane = blurred
    return plane


def _check(a: torch.Tensor, b: torch.Tensor) -> None:
    if a.shape != b.shape or not (a.is_floating_point() and b.is_floating_point()):
        raise InvalidArgumentError(
            f"Pictures to compare: expected floating point of one shape, got {a.dtype} {tuple(a.shape)} and "
            f"{b.dtype} {tuple(b.shape)}."
        )


def _size(picture: torch.Tensor) -> str:
    return f"{picture.shape[-1]}x{picture.shape[-2]}"
