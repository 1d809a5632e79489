"""What `benchmarks.picture` has to show: crops side by side, and the sensitivity of every layer."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from seedvr2_engine.engine.accuracy.sensitivity import picture
from seedvr2_engine.quality.metrics import decibel

CROP_PX = 128
GAIN = 20
_MARGIN_PX = 14


class Decodes(Protocol):
    """What is needed of an engine."""

    def decode(self, latent: Tensor) -> Tensor:
        """Decode (1, 16, n+1, h, w)."""


def crops(
    path: Path,
    latents: Mapping[str, list[Tensor]],
    exact: Mapping[str, list[Tensor]],
    engines: Mapping[str, Decodes],
) -> None:
    """A sheet: for the first clip of every kind its last frame in FP32, then each engine's and its difference x 20."""
    rows = []
    for kind, zs in latents.items():
        wanted = exact[kind][0][0, :, -1]
        size = min(CROP_PX, wanted.shape[-1])
        top = (wanted.shape[-1] - size) // 2
        window = (slice(None), slice(top, top + size), slice(top, top + size))
        cells = [_labelled(wanted[window], f"{kind}, FP32")]
        for name, engine in engines.items():
            got = picture(engine.decode(zs[0]))[0, :, -1]
            difference = (got - wanted) * GAIN
            label = f"{name} {decibel((got - wanted).square().mean().item()):.1f} dB"
            cells += [_labelled(got[window], label), _labelled(difference[window] + 0.5, f"x {GAIN}")]
        rows.append(np.concatenate(cells, axis=1))
    Image.fromarray(np.concatenate(rows)).save(path, optimize=True)


def _labelled(image: Tensor, label: str) -> np.ndarray:
    pixels = (image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
    cell = Image.new("RGB", (pixels.shape[1] + 2, pixels.shape[0] + _MARGIN_PX), "white")
    cell.paste(Image.fromarray(pixels), (0, _MARGIN_PX))
    ImageDraw.Draw(cell).text((1, 1), label, fill="black")
    return np.array(cell)


def sensitivity_plot(
    path: Path, alone: Mapping[str, Mapping[str, Mapping[str, float]]], shares: Mapping[str, float]
) -> None:
    """PSNR with each layer alone in 8 bits, its worst clip, beside its share of the arithmetic."""
    import matplotlib.pyplot as plt

    names = list(next(iter(alone.values())))
    places = torch.arange(len(names)).numpy()
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(10, 0.24 * len(names) + 1), sharey=True, width_ratios=(3, 1), layout="constrained"
    )
    for format, rows in alone.items():
        left.plot([rows[name]["worst"] for name in names], places, "o", label=format.upper())
    left.set_yticks(places, [name.removeprefix("decoder.") for name in names], fontsize=7)
    left.invert_yaxis()
    left.grid(alpha=0.3)
    left.legend()
    left.set_xlabel("PSNR of the worst clip with this layer alone in 8 bits, dB")
    right.barh(places, [100 * shares[name] for name in names])
    right.set_xlabel("share of the arithmetic, %")
    figure.savefig(path, dpi=90)
    plt.close(figure)
