"""Clips that are measured on and never trained on: filmed ones, photographs under a panning camera, procedural ones.

A folder holds uint8 `.npy` clips (T, H, W, 3). Those whose names begin with CHOICE decide between weights while
training; the others are for the result alone.
"""

import random
from pathlib import Path

import torch
from torch import Tensor

from training.scenes import ClipShape, SceneBank
from training.train_vae import load_clips

CHOICE = "choice-"
LARGEST_PX = (352, 640)
"""Largest height and width that clips are cut to."""
CHOICE_PX = (256, 256)
"""The same of those to choose by: one size, so that a GPU need not look for kernels for many."""
LARGEST_FRAMES = 9
PAN_FRAMES = 5
"""Frames of a clip that is made of a photograph."""
PAN_PX = 3
"""Largest step from frame to frame along each edge; steps are whole pixels, so that nothing is resampled."""
BANK_SEED = 424_242
CANVASES, CANVAS_PX = 4, 768


def held_out_clips(folder: Path | None, *, choice: bool) -> dict[str, Tensor]:
    """Names and clips (1, 3, T, H, W) in [-1, 1] of a folder, on the CPU: those to choose by, or all others."""
    loaded = load_clips(folder, torch.device("cpu"))
    names = [name for name in loaded if name.startswith(CHOICE) == choice]
    largest = CHOICE_PX if choice else LARGEST_PX
    return {
        name: measurable(panned(loaded[name], index) if loaded[name].shape[2] == 1 else loaded[name], largest)
        for index, name in enumerate(names)
    }


def procedural_clips(shape: ClipShape, device: torch.device) -> dict[str, Tensor]:
    """Clips from a bank that training does not draw."""
    bank = SceneBank(torch.Generator(device).manual_seed(BANK_SEED), canvases=CANVASES, size_px=CANVAS_PX)
    return {f"procedural {index + 1}": clip[None] for index, clip in enumerate(bank.film(shape))}


def panned(still: Tensor, seed: int) -> Tensor:
    """A photograph (1, 3, 1, H, W) seen by a camera that moves by whole pixels: (1, 3, PAN_FRAMES, h, w)."""
    choices = random.Random(seed)
    steps = [choices.randint(-PAN_PX, PAN_PX) for _ in range(2)]
    travel = [abs(step) * (PAN_FRAMES - 1) for step in steps]
    height, width = (size - way for size, way in zip(still.shape[-2:], travel, strict=True))
    frames = []
    for time in range(PAN_FRAMES):
        top, left = (step * time + (way if step < 0 else 0) for step, way in zip(steps, travel, strict=True))
        frames.append(still[..., top : top + height, left : left + width])
    return torch.cat(frames, dim=2)


def measurable(clip: Tensor, largest: tuple[int, int]) -> Tensor:
    """The middle of a clip (N, 3, T, H, W), cut to whole tokens and a size that fits into memory at once."""
    frames = min(clip.shape[2], LARGEST_FRAMES)
    height, width = (min(size, limit) // 16 * 16 for size, limit in zip(clip.shape[-2:], largest, strict=True))
    top, left = (clip.shape[-2] - height) // 2, (clip.shape[-1] - width) // 2
    return clip[:, :, :frames, top : top + height, left : left + width]
