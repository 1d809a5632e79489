"""What pictures are compared on: photographs and films of one's own, and text, gradients, dark scenes and motion.

The generated kinds are the same in every process. All clips are square and equally large, so that one set of compiled
kernels serves them.
"""

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from training.scenes import ClipShape, SceneBank

FRAMES = 5
"""Of every moving clip."""
MOST_PHOTOS = 8
LETTERS = "The quick brown fox jumps over the lazy dog 0123456789 & (so on)"
BANK = (3, 512)
"""Canvases, and their size, of the bank that scenes are filmed from."""


def contents(size_px: int, folders: list[Path], *, few: bool = False) -> dict[str, list[Tensor]]:
    """Kind -> clips (1, 3, T, size, size) in [-1, 1]; photographs have one frame, all others five.

    folders: uint8 .npy clips (T, H, W, 3), of one frame a photograph and of more a film, which is motion; missing
    folders and clips smaller than `size_px` are passed over. few: one clip of every kind.
    """
    photos, films = read_clips(size_px, folders)
    most = 1 if few else MOST_PHOTOS
    kinds = {
        "photographs": photos[:: max(1, len(photos) // most)][:most],
        "text": [text(size_px, dark_on_light=True), text(size_px, dark_on_light=False)],
        "gradients": [gradient(size_px, 1.0), gradient(size_px, 0.15)],
        "dark scenes": [dark(size_px, seed) for seed in (3, 4)],
        "motion": [*films, *(scene(size_px, seed) for seed in (5, 6))],
    }
    return {kind: clips[:1] if few else clips for kind, clips in kinds.items() if clips}


def read_clips(size_px: int, folders: list[Path]) -> tuple[list[Tensor], list[Tensor]]:
    """Photographs and films out of .npy files, the middle of each."""
    photos, films = [], []
    for path in sorted(path for folder in folders for path in folder.glob("*.npy")):
        clip = torch.from_numpy(np.load(path, allow_pickle=False))
        height, width = clip.shape[1:3]
        if min(height, width) < size_px:
            continue
        top, left = (height - size_px) // 2, (width - size_px) // 2
        clip = clip[:FRAMES, top : top + size_px, left : left + size_px].permute(3, 0, 1, 2)[None].float() / 127.5 - 1
        if clip.shape[2] == FRAMES:
            films.append(clip)
        else:
            photos.append(clip[:, :, :1])
    return photos, films


def text(size_px: int, *, dark_on_light: bool) -> Tensor:
    """Lines of letters of many sizes, drifting two pixels a frame to the left."""
    paper, ink = ((244, 240, 232), (24, 20, 60)) if dark_on_light else ((12, 14, 20), (250, 236, 170))
    image = Image.new("RGB", (size_px + 2 * FRAMES, size_px), paper)
    draw = ImageDraw.Draw(image)
    y = 4.0
    for height in (10, 12, 14, 18, 24, 34, 48):
        draw.text((6, y), LETTERS, fill=ink, font=ImageFont.load_default(size=height))
        y += 1.25 * height
    page = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 127.5 - 1
    return torch.stack([page[:, :, 2 * t : 2 * t + size_px] for t in range(FRAMES)], dim=1)[None]


def gradient(size_px: int, contrast: float) -> Tensor:
    """A smooth sky of three colours that brightens a little."""
    rows, columns = torch.meshgrid(torch.linspace(0, 1, size_px), torch.linspace(0, 1, size_px), indexing="ij")
    frames = [torch.stack([rows, columns, 0.4 * (rows + columns)]) + 0.02 * t for t in range(FRAMES)]
    return ((torch.stack(frames, dim=1)[None] - 0.5) * contrast * 2).clamp(-1, 1)


def scene(size_px: int, seed: int) -> Tensor:
    """A procedural clip, filmed by a moving camera."""
    bank = SceneBank(torch.Generator().manual_seed(seed), canvases=BANK[0], size_px=BANK[1])
    return bank.film(ClipShape(1, FRAMES, size_px, size_px))


def dark(size_px: int, seed: int) -> Tensor:
    """A procedural clip by night, with one lamp in it."""
    video = (scene(size_px, seed) * 0.5 + 0.5) ** 1.5 * 0.12 + 0.01
    lamp = size_px // 4
    video[..., lamp : lamp + size_px // 24, lamp : lamp + size_px // 24] = 0.95
    return video * 2 - 1
