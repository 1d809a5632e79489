"""PQ pictures through models that have learnt from SDR: onto a scale like SDR's, and exactly back.

A PQ signal stands for absolute light up to 10,000 nits. Taken for an SDR picture it is pale and flat, which is not what
the models know. Here each of R, G and B becomes light again, and light a signal s that follows a power in shadows and
midtones, as SDR does, and a logarithm above, where PQ itself is all but one:

    y = nits / 203                                                  diffuse white is 1 (ITU-R BT.2408, table 1)
    r = (y / KNEE)^(1 / GAMMA)                              y < KNEE
    r = 1 + WIDTH / (GAMMA KNEE) ln(1 + (y - KNEE) / WIDTH)   else  with the same slope where the two meet
    s = r / r(10,000 nits)                                          1 nit is 0.12, 30 nits 0.37, 203 0.60, 1000 0.76

The scale is one for all clips, whatever their metadata say, so that chunks, clips and pictures agree. It works on each
channel in the clip's own primaries: no colour leaves it, and it has an exact inverse. An error of the models in s is
nowhere more than 1.44 times as large in PQ, and above white 1.07 times: highlights lose next to nothing to it. GAMMA is
between 2.4 (a display's, ITU-R BT.1886), which costs shadows more than it gives, and PQ's own course; docs/NOTES.md
has the measurement.

Hybrid log-gamma needs none of this. It was made to be looked at as SDR, with a gamma below and a logarithm above; its
signal passes as it is: light of the scene, without the system gamma, which is a display's.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Literal, get_args

import torch
from torch import Tensor

HdrChoice = Literal["auto", "off"]
"""auto: PQ passes through the models on an SDR-like scale. off: its signal is taken for SDR's as it is."""
HDR_CHOICES: tuple[HdrChoice, ...] = get_args(HdrChoice)

PQ_TRANSFER = 16
"""SMPTE ST 2084 among the transfer characteristics of ITU-T H.273."""
PEAK_NITS = 10_000.0
WHITE_NITS = 203.0

# SMPTE ST 2084, 4.5.
_M1, _M2 = 2610 / 16384, 2523 / 4096 * 128
_C1, _C2, _C3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32

_GAMMA = 3.0
_KNEE = 0.2
_WIDTH = 0.15
_RISE = _WIDTH / (_GAMMA * _KNEE)
_TOP = 1 + _RISE * math.log1p((PEAK_NITS / WHITE_NITS - _KNEE) / _WIDTH)


def nits_from_pq(signal: Tensor) -> Tensor:
    """Light in nits (cd/m2) of a PQ signal in [0, 1]; beyond is clamped. Source: SMPTE ST 2084, equation 4.1."""
    root = _unit(signal) ** (1 / _M2)
    return PEAK_NITS * ((root - _C1).clamp(min=0) / (_C2 - _C3 * root)) ** (1 / _M1)


def pq_from_nits(nits: Tensor) -> Tensor:
    """PQ signal in [0, 1] of light in nits, clamped to 0 to 10,000. Source: SMPTE ST 2084, equation 5.1."""
    power = _unit(nits / PEAK_NITS) ** _M1
    return ((_C1 + _C2 * power) / (1 + _C3 * power)) ** _M2


def model_signal_from_pq(signal: Tensor) -> Tensor:
    """The SDR-like scale, in [0, 1], of a PQ signal in [0, 1], element by element; any floating dtype and device."""
    light = nits_from_pq(signal) / WHITE_NITS
    dark = (light / _KNEE) ** (1 / _GAMMA)
    bright = 1 + _RISE * torch.log1p((light - _KNEE).clamp(min=0) / _WIDTH)
    return torch.where(light < _KNEE, dark, bright) / _TOP


def pq_from_model_signal(signal: Tensor) -> Tensor:
    """The inverse of `model_signal_from_pq`; what is beyond [0, 1] is clamped, what is no number becomes black."""
    scaled = _unit(signal) * _TOP
    dark = _KNEE * scaled**_GAMMA
    bright = _KNEE + _WIDTH * torch.expm1((scaled - 1).clamp(min=0) / _RISE)
    return pq_from_nits(torch.where(scaled < 1, dark, bright) * WHITE_NITS)


class HdrPassage:
    """One PQ clip's way into the models and out of them again.

    No pixel of a result is brighter than the brightest one of its source frame: else the overshoot of a sharpened edge
    would become a highlight of thousands of nits, and MaxCLL untrue.
    """

    def __init__(self, device: torch.device) -> None:
        """device: where the models are, and the arithmetic is done."""
        self._device = device
        self._peaks: deque[Tensor] = deque()

    def inward(self, frames: Iterable[Tensor]) -> Iterator[Tensor]:
        """PQ frames (3 or 4, H, W) in [0, 1] to the SDR-like scale, FP32, where they were; alpha stays as it is."""
        for frame in frames:
            placed = frame.to(self._device, torch.float32)
            self._peaks.append(placed[:3].amax())
            yield _with_alpha(_by_channel(model_signal_from_pq, placed[:3]), placed).to(frame.device)

    def outward(self, pictures: Iterable[Tensor]) -> Iterator[Tensor]:
        """As many results on that scale, (3 or 4, H, W), back to PQ, FP32, where they are."""
        for picture in pictures:
            colors = _by_channel(pq_from_model_signal, picture[:3].float())
            peak = self._peaks.popleft().to(colors.device)
            yield _with_alpha(torch.minimum(colors, peak), picture)


def passage_for(choice: HdrChoice, transfer: int, device: torch.device) -> HdrPassage | None:
    """The passage of a clip of this transfer, an H.273 code point; None where frames pass as they are."""
    return HdrPassage(device) if choice == "auto" and transfer == PQ_TRANSFER else None


def _by_channel(function: Callable[[Tensor], Tensor], colors: Tensor) -> Tensor:
    """Results of an arithmetic whose intermediate values, in the memory of a GPU, are a third of a picture each."""
    return torch.stack([function(channel) for channel in colors])


def _with_alpha(colors: Tensor, frame: Tensor) -> Tensor:
    return colors if frame.shape[0] == 3 else torch.cat([colors, frame[3:].to(colors.dtype)])


def _unit(values: Tensor) -> Tensor:
    return torch.nan_to_num(values, nan=0.0).clamp(0, 1)
