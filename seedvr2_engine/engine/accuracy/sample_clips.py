"""Small procedural clips on which weights are measured when they are loaded; the same in every process.

NumPy computes them: PyTorch's threads took more than a second for so little on a machine of many cores.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

FRAMES = 5


def sample_clips(size: int = 192) -> Tensor:
    """Two procedural clips (2, 3, 5, size, size) in [-1, 1], FP32: a scene and a page."""
    return torch.cat([sample_scene(size), sample_page(size)])


def sample_scene(size: int = 192) -> Tensor:
    """A procedural clip (1, 3, 5, size, size) in [-1, 1], FP32: gradients, edges, texture, a dark corner, motion."""
    rows, columns = np.mgrid[:size, :size]
    texture = np.repeat(np.repeat(_noise(0, 3, size // 2, size // 2), 2, 1), 2, 2)
    ramp = np.stack([rows / size, columns / size, (rows + columns) / (2 * size)])
    corner = (rows > 0.6 * size) & (columns > 0.55 * size)
    frames = []
    for t in range(FRAMES):
        shift = 3 * t
        stripes = (rows + columns + shift) // 6 % 2
        disc = np.stack([stripes, 1 - stripes, 0.3 + 0.4 * stripes])
        inside = (rows - 0.4 * size) ** 2 + (columns - 0.3 * size - shift) ** 2 < (0.25 * size) ** 2
        frame = np.where(inside, disc, ramp)
        frames.append(np.where(corner, 0.05 + 0.5 * np.roll(texture, shift, 2), frame))
    return _clip(np.stack(frames, axis=1))


def sample_page(size: int = 192) -> Tensor:
    """A clip (1, 3, 5, size, size) in [-1, 1] like print: lines of dark strokes on white, of three sizes, scrolling."""
    page = np.ones((size, size + 8))
    top = 4
    for seed, height in enumerate((8, 12, 20) * (size // 48)):
        width = max(1, height // 6)
        strokes = _noise(seed, height // width, page.shape[1] // width) < 0.4
        line = np.repeat(np.repeat(strokes, width, 0), width, 1)
        block = page[top : top + line.shape[0], : line.shape[1]]
        block[line[: block.shape[0]]] = 0.1
        top += height * 3 // 2
    frames = np.stack([page[:, 2 * t : 2 * t + size] for t in range(FRAMES)])
    return _clip(np.broadcast_to(frames, (3, *frames.shape)))


def _noise(seed: int, *shape: int) -> npt.NDArray[np.float64]:
    return np.random.Generator(np.random.PCG64(seed)).random(shape)


def _clip(frames: npt.NDArray[np.float64]) -> Tensor:
    """(3, T, H, W) in [0, 1] as a clip."""
    return torch.from_numpy((frames * 2 - 1).astype(np.float32))[None]
