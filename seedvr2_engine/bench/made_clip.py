"""A clip to measure with: overlapping discs of all sizes with grain, under a camera that moves.

Discs whose radii follow a power law overlap to the edges and the spectrum of photographs ("dead leaves": Lee, Mumford,
Huang, "Occlusion models for natural images", IJCV 2001), so a codec has as much to do as with a filmed clip.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from ..video import SinkOptions, open_sink

_DISCS = 2500
_SMALLEST_PX, _LARGEST_SHARE = 2.0, 0.3
_PAN_PX = 2
_GRAIN = 0.01
_QUALITY = 18.0


def write_clip(path: Path, width: int, height: int, frames: int) -> None:
    """Write the clip as H.264; the same pictures for the same size and number, in every process."""
    options = SinkOptions(overwrite=True, codec="h264", preset="veryfast", quality=_QUALITY)
    with open_sink(path, width=width, height=height, options=options) as sink:
        for picture in clip_frames(width, height, frames):
            sink.write(torch.from_numpy(picture))


def clip_frames(width: int, height: int, frames: int) -> Iterator[npt.NDArray[np.float32]]:
    """Pictures (3, H, W) in [0, 1], FP32: the camera pans over a canvas, a disc crosses, grain is ever new."""
    random = np.random.Generator(np.random.PCG64(0))
    margin = 2 * _PAN_PX * 16
    canvas = _canvas(random, height + margin, width + margin)
    rows, columns = np.mgrid[:height, :width]
    for index in range(frames):
        # There and back again, so that a long clip needs no wide canvas.
        turn = abs((index + 16) % 32 - 16) * _PAN_PX
        picture = canvas[:, turn // 2 : turn // 2 + height, turn : turn + width].copy()
        centre = (index * 3 + width // 4) % width
        inside = (rows - 0.6 * height) ** 2 + (columns - centre) ** 2 < (0.12 * height) ** 2
        picture[:, inside] = np.array([[0.75], [0.35], [0.2]]) * (0.8 + 0.2 * rows[inside] / height)
        picture += _GRAIN * random.standard_normal(picture.shape)
        yield picture.clip(0, 1).astype(np.float32)


def _canvas(random: np.random.Generator, height: int, width: int) -> npt.NDArray[np.float64]:
    canvas = np.full((3, height, width), 0.5)
    largest = _LARGEST_SHARE * min(height, width)
    # Radii with a density of 1/r^3 between the bounds; the largest first would hide nothing of the small ones.
    inverse = random.uniform(1 / largest**2, 1 / _SMALLEST_PX**2, _DISCS)
    for radius in inverse**-0.5:
        y, x = random.uniform(0, height), random.uniform(0, width)
        top, left = max(0, int(y - radius)), max(0, int(x - radius))
        part = canvas[:, top : int(y + radius) + 2, left : int(x + radius) + 2]
        rows, columns = np.mgrid[top : top + part.shape[1], left : left + part.shape[2]]
        inside = (rows - y) ** 2 + (columns - x) ** 2 < radius**2
        shade = 1 + 0.25 * ((rows - y) * random.uniform(-1, 1) + (columns - x) * random.uniform(-1, 1)) / radius
        colour = 0.15 + 0.7 * (0.6 * random.uniform() + 0.4 * random.uniform(size=(3, 1)))
        part[:, inside] = colour * shade[inside]
    return canvas
