"""What can be measured of one clip, or of its distance to another: closeness, flicker, and jumps at chunk borders."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec

import torch
from torch import Tensor

from ..errors import InvalidArgumentError
from ..pipeline.chunks import STEP_FRAMES, ChunkPlan, chunk_spans
from .metrics import ClipQuality, QualityMeter

PERCEPTUAL_LIBRARIES: dict[str, str] = {"lpips": "lpips", "dists": "DISTS_pytorch"}
"""Distance -> the library that computes it, which brings its network, and may download that network's weights."""

SETTLING_FRAMES = STEP_FRAMES
"""Frames after a border that still count as its zone: one latent."""
CODE_VALUES = 255


@dataclass(frozen=True)
class FrameMeasures:
    """What was measured of one frame; None where there is nothing to measure it by."""

    psnr_db: float | None = None
    ssim: float | None = None
    perceptual: float | None = None
    change: float | None = None
    """Mean absolute difference to the frame before, in steps of 8 bits."""
    flicker: float | None = None
    """Mean absolute second difference of this frame and the two before it, in steps of 8 bits."""


@dataclass(frozen=True)
class ClipMeasures:
    """What was measured of a clip."""

    frames: int
    quality: ClipQuality | None
    """Closeness to the reference, if there is one."""
    perceptual: float | None
    """Mean perceptual distance to the reference, 0 for equal pictures."""
    flicker: float
    """Mean absolute second difference over time, in steps of 8 bits: what neither rests nor moves evenly."""
    change: float
    """Mean absolute difference of neighbouring frames, in steps of 8 bits."""
    border_jumps: tuple[float, ...]
    """For each chunk border: the largest change near it over the largest change inside the chunks beside it."""

    @property
    def worst_border_jump(self) -> float | None:
        """The largest of the border jumps; 1 is invisible."""
        return max(self.border_jumps, default=None)


class ClipMeter:
    """Measures a clip frame by frame; keeps two frames, and a number for each."""

    def __init__(self, perceptual: Callable[[Tensor, Tensor], float] | None = None) -> None:
        self._meter = QualityMeter()
        self._compared = 0
        self._perceptual = perceptual
        self._distance_sum = 0.0
        self._last: list[Tensor] = []
        self._changes: list[float] = []
        self._flicker_sum = 0.0
        self._frames = 0
        self.worst_psnr_db = math.inf
        self.latest = FrameMeasures()
        """Of the frame that was added last."""

    def add(self, frame: Tensor, reference: Tensor | None = None) -> bool:
        """Take the next frame (3, H, W) in [0, 1]; return whether it is the farthest from its reference so far."""
        self._frames += 1
        change = flicker = distance = None
        if self._last:
            change = _mean_absolute(frame - self._last[-1])
            self._changes.append(change)
        if len(self._last) == 2:
            flicker = _mean_absolute(frame - 2 * self._last[1] + self._last[0])
            self._flicker_sum += flicker
        self._last = [*self._last[-1:], frame]
        if reference is None:
            self.latest = FrameMeasures(change=change, flicker=flicker)
            return False
        self._compared += 1
        if self._perceptual is not None:
            distance = self._perceptual(frame, reference)
            self._distance_sum += distance
        quality = self._meter.add(frame, reference)
        self.latest = FrameMeasures(quality.psnr_db, quality.ssim, distance, change, flicker)
        psnr_db = quality.psnr_db
        is_worst = psnr_db < self.worst_psnr_db
        self.worst_psnr_db = min(self.worst_psnr_db, psnr_db)
        return is_worst

    def measures(self, plan: ChunkPlan | None = None) -> ClipMeasures:
        """Everything so far. plan: how the clip was cut, for the jumps at its borders."""
        if self._frames == 0:
            raise InvalidArgumentError("compare: expected at least one frame, got none.")
        return ClipMeasures(
            frames=self._frames,
            quality=self._meter.summary() if self._compared else None,
            perceptual=self._distance_sum / self._compared if self._compared and self._perceptual else None,
            flicker=self._flicker_sum / max(1, self._frames - 2),
            change=sum(self._changes) / max(1, len(self._changes)),
            border_jumps=() if plan is None else border_jumps(self._changes, plan),
        )


def border_jumps(changes: list[float], plan: ChunkPlan) -> tuple[float, ...]:
    """The jump at each border of a clip that was cut by `plan`; changes[i] is that from frame i to frame i + 1.

    A border's zone are the frames that its chunks share and one latent after them. Borders beside which nothing lies
    inside, because chunks consist of zones alone, are left out.
    """
    starts = [span.start for span in chunk_spans(len(changes) + 1, plan)][1:]
    zones = [range(start - 1, min(start + plan.overlap + SETTLING_FRAMES, len(changes))) for start in starts]
    bordering = {index for zone in zones for index in zone}
    jumps = []
    for zone, start in zip(zones, starts, strict=True):
        near = range(max(0, start - plan.step), min(start + plan.chunk_frames, len(changes)))
        inside = [changes[index] for index in near if index not in bordering]
        if inside and zone:
            largest = max(changes[index] for index in zone)
            jumps.append(largest / max(inside) if max(inside) > 0 else (math.inf if largest > 0 else 1.0))
    return tuple(jumps)


def perceptual_distance(name: str, device: torch.device) -> Callable[[Tensor, Tensor], float] | None:
    """A function of two pictures (3, H, W) in [0, 1]: LPIPS or DISTS; None for "none".

    Raises InvalidArgumentError for another name, or if the library is not installed.
    """
    if name == "none":
        return None
    if name not in PERCEPTUAL_LIBRARIES:
        known = ", ".join(("none", *PERCEPTUAL_LIBRARIES))
        raise InvalidArgumentError(f"perceptual distance: expected one of {known}, got {name!r}.")
    library = PERCEPTUAL_LIBRARIES[name]
    if find_spec(library) is None:
        raise InvalidArgumentError(
            f"perceptual distance {name}: expected the library {library}, found none; install it or leave this out."
        )
    module = import_module(library)
    # LPIPS takes pictures in [-1, 1] (here with its default network), DISTS in [0, 1].
    network = module.LPIPS(net="alex") if name == "lpips" else module.DISTS()
    network = network.to(device).eval()
    scale, offset = (2.0, -1.0) if name == "lpips" else (1.0, 0.0)

    @torch.no_grad()
    def distance(a: Tensor, b: Tensor) -> float:
        pictures = (picture[None].to(device) * scale + offset for picture in (a, b))
        return float(network(*pictures))

    return distance


def _mean_absolute(difference: Tensor) -> float:
    return float(difference.abs().mean()) * CODE_VALUES
