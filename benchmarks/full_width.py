"""A VAE of the public widths, trained for some minutes on procedural clips: weights that mean something.

Random weights exaggerate what rounding costs, and the small VAE has one channel a group, as the public one has not.
The trainer is `training.train_vae`'s; norms are trained as they are, without its soft ones.
"""

import time
from collections.abc import Callable
from pathlib import Path

import torch

from seedvr2_engine.models.vae.config import VAEConfig
from seedvr2_engine.models.vae.model import VideoVAE
from training.scenes import ClipShape
from training.train_vae import Settings, Trainer, Workload

MATRIX_RATE = 0.006
"""With 0.015 the residual stream had left FP16's range after 130 s."""
GPU = Workload(
    # A third of a million pixels: a step is then mostly arithmetic; each further shape takes its time to begin with.
    shapes=((0.6, ClipShape(16, 1, 144, 144)), (0.4, ClipShape(4, 5, 128, 128))),
    canvases=16,
    canvas_px=768,
    renew_every=8,
    held_out=ClipShape(4, 5, 192, 192),
)
SMOKE = Workload(
    shapes=((1.0, ClipShape(1, 1, 32, 32)),),
    canvases=2,
    canvas_px=96,
    renew_every=100,
    held_out=ClipShape(1, 1, 32, 32),
)
"""Only to see that everything runs."""


def train(
    seconds: float,
    device: torch.device,
    say: Callable[[str], None],
    config: VAEConfig | None = None,
    work: Workload | None = None,
) -> VideoVAE:
    """Train for so long; the FP32 model on `device`. Says now and then what it reconstructs held-out clips at."""
    config = config or VAEConfig()
    settings = Settings(
        Path(), seconds, seconds, device=str(device), matrix_rate=MATRIX_RATE, vector_rate=1e-3, quantise_from=2.0,
        config=config, soft=False, work=work or (GPU if device.type == "cuda" else SMOKE),
    )  # fmt: skip
    # Trying algorithms takes 40 s, which only a longer training pays back.
    torch.backends.cudnn.benchmark = seconds > 150
    torch.backends.cudnn.benchmark_limit = 3
    began = time.monotonic()
    trainer = Trainer(settings)
    say(f"{time.monotonic() - began:.0f} s until the first step")
    began, measured = time.monotonic(), 0.0
    while True:
        if trainer.progress.step % 5 == 0:
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            spent = time.monotonic() - began
            if spent >= seconds:
                break
            if spent - measured > max(seconds / 5, 20):
                say(f"{spent:.0f} s, step {trainer.progress.step}: {_figures(trainer)}")
                measured = spent
        trainer.step(min(1.0, spent / seconds))
    say(f"{spent:.0f} s, {trainer.progress.step} steps: {_figures(trainer)}")
    with torch.device("meta"):
        vae = VideoVAE(config)
    weights = trainer.weights.views(trainer.average)
    vae.load_state_dict({name: tensor.clone() for name, tensor in weights.items()}, assign=True)
    return vae.requires_grad_(False).eval()


def _figures(trainer: Trainer) -> str:
    return ", ".join(f"{name} {value:.2f}" for name, value in trainer.measure().items())
