"""Whole upscalings by the tiny models, and what they gave: as means of blocks of 10x14 pixels.

    python -m tests.pipeline.synthetic_golden

writes tests/golden/pipeline_synthetic.safetensors anew, which is right only where the numbers were meant to change.
"""

import torch
from safetensors.torch import save_file
from torch import Tensor

from seedvr2_engine.pipeline.options import UpscaleOptions
from seedvr2_engine.pipeline.upscaler import Upscaler

from ..conftest import GOLDEN, build_tiny_vae
from ..models.dit.dit_cases import build_tiny

FILE = GOLDEN / "pipeline_synthetic.safetensors"
CASES: dict[str, dict[str, object]] = {
    "lab, clip": {"color": "lab", "vae_span": "clip", "alpha": "mask"},
    "lab, chunk": {"color": "lab", "vae_span": "chunk", "overlap": 3},
    "wavelet, clip": {"color": "wavelet", "vae_span": "clip", "overlap": 3, "prepend_frames": 2},
    "wavelet, chunk": {"color": "wavelet", "vae_span": "chunk", "alpha": "gradient"},
    "wavelet_adaptive, clip": {"color": "wavelet_adaptive", "vae_span": "clip"},
    "wavelet_adaptive, chunk": {"color": "wavelet_adaptive", "vae_span": "chunk", "alpha": "mask"},
    "hsv, clip": {"color": "hsv", "vae_span": "clip"},
    "hsv, chunk": {"color": "hsv", "vae_span": "chunk", "prepend_frames": 1},
    "adain, clip": {"color": "adain", "vae_span": "clip", "alpha": "gradient", "input_noise": 0.5},
    "adain, chunk": {"color": "adain", "vae_span": "chunk", "latent_noise": 0.3, "overlap": 0},
    "none, clip": {"color": "none", "vae_span": "clip", "latent_noise": 0.2, "seed": 7},
    "none, chunk": {"color": "none", "vae_span": "chunk", "input_noise": 0.4, "noise": "reference"},
}
"""What is not named is one frame of overlap, and the defaults."""


def source_frames(alpha: str) -> list[Tensor]:
    """Eight frames (3 or 4, 20, 28) in [0, 1]: slow waves that move, with or without alpha."""
    t, y, x = torch.meshgrid(torch.arange(8.0), torch.arange(20.0), torch.arange(28.0), indexing="ij")
    waves = [
        torch.sin(0.21 * x + 0.13 * y * (c + 1) - 0.4 * t + c) + 0.5 * torch.cos(0.9 * x - 0.5 * y) for c in range(3)
    ]
    video = torch.stack(waves, dim=1) * 0.25 + 0.45
    if alpha:
        disc = (x - 10 - t) ** 2 + (y - 9) ** 2
        drawn = (disc < 40).float() if alpha == "mask" else torch.exp(-disc / 60)
        video = torch.cat([video, drawn[:, None]], dim=1)
    return list(video)


def upscaled(name: str) -> Tensor:
    """The case's result as means of blocks (8, 3 or 4, 4, 4)."""
    options = {"scale": 2, "chunk_frames": 5, "overlap": 1, **CASES[name]}
    frames = source_frames(str(options.pop("alpha", "")))
    text = torch.sin(torch.arange(7 * 64).float()).view(7, 64)
    upscaler = Upscaler(build_tiny("3b"), build_tiny_vae(), UpscaleOptions(**options), text=text)  # type: ignore[arg-type]
    return torch.nn.functional.avg_pool2d(torch.stack(list(upscaler.upscale(frames))), (10, 14))


if __name__ == "__main__":
    save_file({name: upscaled(name) for name in CASES}, FILE)
