"""Write contact sheets of procedural clips, to look at what the model is trained on."""

import argparse
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from training.scenes import ClipShape, SceneBank


def contact_sheet(video: Tensor, columns: int) -> Image.Image:
    """First, middle and last frame of every clip (N, 3, T, H, W) of [-1, 1], `columns` clips a row."""
    frames = video[:, :, [0, video.shape[2] // 2, -1]]
    tiles = ((frames.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 3, 2, 4, 1)
    rows = tiles.flatten(2, 3).split(columns)
    sheet = torch.cat([torch.cat(list(row), dim=1) for row in rows if len(row) == columns])
    return Image.fromarray(sheet.cpu().numpy())


def main() -> None:
    """Command line: `python -m training.preview OUT.png [--seed N]`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--canvas", type=int, default=512, help="canvas size in pixels")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    rng = torch.Generator(arguments.device).manual_seed(arguments.seed)
    bank = SceneBank(rng, canvases=12, size_px=arguments.canvas)
    contact_sheet(bank.film(ClipShape(count=18, frames=9, height=192, width=192)), columns=3).save(arguments.out)


if __name__ == "__main__":
    main()
