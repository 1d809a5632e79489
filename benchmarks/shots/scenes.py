"""Scenes for made clips: pictures that a camera moves over, procedural ones and, where there are any, photographs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from training.scenes import SceneBank, cut_canvas, sample_bilinear

SIZE = (144, 256)
"""Height and width of all clips."""
CANVAS_PX = 640
CANVASES = 12
BLUR_STEPS = 5
"""Moments within an open shutter."""


@dataclass(frozen=True)
class Path2:
    """Where a camera looks, frame by frame."""

    centre: Tensor
    """(T,2), canvas pixels (x,y)."""
    scale: Tensor
    """(T,), canvas pixels a frame pixel."""

    @property
    def frames(self) -> int:
        """T."""
        return len(self.scale)


class Scenes:
    """Pictures by number, and clips of them; the same for the same seed."""

    def __init__(self, seed: int, photographs: Path | None = None) -> None:
        self.rng = torch.Generator().manual_seed(seed)
        self.canvases = self._photographs(photographs) if photographs else self._drawn()
        self.text = [_page(self, dark) for dark in (False, True)]
        """On paper, and on black."""

    def _drawn(self) -> list[Tensor]:
        return list(SceneBank(self.rng, canvases=CANVASES, size_px=CANVAS_PX).canvases)

    def _photographs(self, folder: Path) -> list[Tensor]:
        files = sorted(folder.glob("*.jpg"))
        stills = [torch.from_numpy(np.array(Image.open(file).convert("RGB"))).permute(2, 0, 1) for file in files]
        return [cut_canvas(self.rng, still, CANVAS_PX) for still in stills]

    def pick(self, count: int) -> list[Tensor]:
        """Different canvases."""
        order = torch.randperm(len(self.canvases), generator=self.rng)
        return [self.canvases[int(order[index % len(order)])] for index in range(count)]

    def number(self, low: float, high: float) -> float:
        """A random number."""
        return low + (high - low) * float(torch.rand((), generator=self.rng))

    def whole(self, low: int, high: int) -> int:
        """A random whole number, both ends included."""
        return int(torch.randint(low, high + 1, (), generator=self.rng))

    def drift(self, frames: int, speed_px: float = 1.5, *, zoom: float = 0.0) -> Path2:
        """A slow and even way over a canvas, somewhere, anywhere."""
        angle = self.number(0, 2 * math.pi)
        steps = torch.arange(frames, dtype=torch.float32)[:, None] * speed_px
        start = torch.tensor([self.number(150, CANVAS_PX - 150), self.number(100, CANVAS_PX - 100)])
        scale = self.number(0.8, 1.4) * (1 + zoom) ** torch.arange(frames, dtype=torch.float32)
        return Path2(start + steps * torch.tensor([math.cos(angle), math.sin(angle)]), scale)

    def shaken(self, path: Path2, most_px: float) -> Path2:
        """A path out of a hand that shakes."""
        jitter = (torch.rand(path.centre.shape, generator=self.rng) * 2 - 1) * most_px
        return Path2(path.centre + jitter, path.scale)

    def whipped(self, path: Path2, begin: int, frames: int, speed_px: float) -> Path2:
        """A path with a dash of so many frames."""
        dash = torch.zeros(path.frames)
        dash[begin : begin + frames] = speed_px
        way = torch.stack([dash.cumsum(0), torch.zeros(path.frames)], dim=1)
        return Path2(path.centre + way, path.scale)


def film(canvas: Tensor, path: Path2, *, shutter: float = 0.5) -> Tensor:
    """Frames (T,3,H,W) in [0,1]; motion is blurred over the part of a frame's time that the shutter is open."""
    rows = torch.arange(SIZE[0])[:, None] - (SIZE[0] - 1) / 2
    columns = torch.arange(SIZE[1]) - (SIZE[1] - 1) / 2
    speed = torch.diff(path.centre, dim=0, append=path.centre[-1:])
    total = torch.zeros(path.frames, 3, *SIZE)
    for moment in torch.linspace(0, shutter, BLUR_STEPS):
        at = path.centre + speed * moment
        x = at[:, 0, None, None] + columns * path.scale[:, None, None] + rows * 0
        y = at[:, 1, None, None] + rows * path.scale[:, None, None] + columns * 0
        total += sample_bilinear(canvas[None], (x[None], y[None])).view(3, -1, *SIZE).transpose(0, 1)
    return (total / BLUR_STEPS).clamp(0, 1)


def _page(scenes: Scenes, dark: bool) -> Tensor:
    """Lines of letters of several sizes, on paper or on black."""
    page = Image.new("RGB", (CANVAS_PX, CANVAS_PX), (12, 12, 12) if dark else (242, 242, 242))
    draw, top = ImageDraw.Draw(page), 8
    while top < CANVAS_PX:
        size = scenes.whole(14, 34)
        letters = "".join(chr(scenes.whole(97, 122)) if scenes.whole(0, 5) else " " for _ in range(60))
        draw.text((8, top), letters, fill="white" if dark else "black", font=ImageFont.load_default(size))
        top += size * 5 // 4
    return torch.from_numpy(np.array(page)).permute(2, 0, 1).float() / 255
