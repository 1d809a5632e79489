"""Small scenes: a camera that drifts over a random canvas."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from seedvr2_engine.jobs.shot import Shot
from seedvr2_engine.jobs.shots.find import ShotFinder
from seedvr2_engine.jobs.shots.small import made_small
from seedvr2_engine.video import Frame

SIZE = (48, 64)


def canvas(seed: int) -> Tensor:
    """A random picture (3,160,320) in [0,1] with detail of every size."""
    rng = torch.Generator().manual_seed(seed)
    total = torch.zeros(1, 3, 160, 320)
    for step in (4, 8, 16, 40):
        noise = torch.rand((1, 3, 160 // step, 320 // step), generator=rng)
        total += F.interpolate(noise, size=(160, 320), mode="bilinear")
    return ((total[0] - total.min()) / (total.max() - total.min())).clamp(0, 1)


def scene(seed: int, frames: int, *, step: int = 1, start: int = 0, shake: int = 0) -> list[Tensor]:
    """Frames (3,48,64) of a canvas, `step` pixels further to the right each; shake: pixels up and down in turn."""
    whole, height, width = canvas(seed), *SIZE
    made = []
    for index in range(frames):
        top, left = 50 + shake * (-1) ** index, start + step * index
        made.append(whole[:, top : top + height, left : left + width])
    return made


def flat(level: float, frames: int) -> list[Tensor]:
    """Frames of one grey."""
    return [torch.full((3, *SIZE), level)] * frames


def found(frames: list[Tensor]) -> tuple[Shot, ...]:
    """The shots of some frames."""
    finder = ShotFinder()
    for index, picture in enumerate(frames):
        finder.add(made_small(Frame(picture.clamp(0, 1), None, index, 1)))
    return finder.finish()


def borders(frames: list[Tensor]) -> list[tuple[int, str]]:
    """Where shots begin, but for the first, and with what."""
    return [(shot.start, shot.border) for shot in found(frames)[1:]]
