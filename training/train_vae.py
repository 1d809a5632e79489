"""Train the small VAE on procedural clips: `python -m training.train_vae OUT --seconds 1100`.

The schedule runs over training time, not over steps, so that a call of a given length ends with a learning rate
of zero whatever the GPU. `--stop-after` ends a call early; the next call with `--resume` goes on with the schedule.
One process drives one GPU; under `torchrun` several processes share the work and average their gradients.
"""

import argparse
import csv
import math
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from PIL import Image
from torch import Tensor

from seedvr2_engine.models.vae.config import VAEConfig
from training.losses import LossWeights, latent_terms, picture_terms, psnr, total_loss
from training.network import NANO, Network, Weights, fold_soft_norms, initial_weights, norm_silu
from training.optimiser import FlatWeights, Optimiser
from training.quantise import q8_rounded
from training.scenes import ClipShape, SceneBank
from training.state import Progress, load_state, save_state


@dataclass(frozen=True)
class Workload:
    """What one step is made of, to suit a device."""

    shapes: tuple[tuple[float, ClipShape], ...]
    """Probability and shape of a batch."""
    canvases: int
    """Canvases in the bank."""
    canvas_px: int
    """Their size."""
    renew_every: int
    """Steps between two redrawn canvases."""
    held_out: ClipShape
    """Procedural clips that are only measured on."""
    fast: bool = True
    """Whether clips have fast paths and flashes (`scenes.SceneBank`)."""

    def bank(self, rng: torch.Generator, photographs: list[Tensor], *, lines: bool = False) -> SceneBank:
        """A bank of this size, on the generator's device; photographs and lines as `scenes.SceneBank` takes them."""
        return SceneBank(
            rng, canvases=self.canvases, size_px=self.canvas_px, photographs=photographs, fast=self.fast, lines=lines
        )


GPU = Workload(
    # All have about 4.4 million pixels, so every step takes about as long.
    shapes=(
        (0.32, ClipShape(16, 17, 128, 128)),
        (0.12, ClipShape(8, 33, 128, 128)),
        (0.06, ClipShape(4, 65, 128, 128)),
        (0.14, ClipShape(12, 9, 192, 192)),
        (0.14, ClipShape(6, 17, 208, 208)),
        (0.04, ClipShape(4, 5, 360, 640)),
        (0.18, ClipShape(48, 1, 288, 320)),
    ),
    canvases=24,
    canvas_px=1024,
    renew_every=6,
    held_out=ClipShape(8, 9, 256, 256),
)
CPU = Workload(
    # Enough to fine-tune on: a second a step, mostly stills, which cost a third.
    shapes=(
        (0.70, ClipShape(8, 1, 64, 64)),
        (0.15, ClipShape(3, 1, 112, 112)),
        (0.15, ClipShape(2, 5, 64, 64)),
    ),
    canvases=8,
    canvas_px=384,
    renew_every=40,
    held_out=ClipShape(2, 5, 128, 128),
)


@dataclass(frozen=True)
class Settings:
    """One training run."""

    out: Path
    """Folder for the state, the curve and the pictures."""
    seconds: float
    """Length of the whole schedule."""
    stop_after: float
    """Length of this call."""
    resume: Path | None = None
    """Folder of an earlier call's state, whose schedule goes on."""
    start: Path | None = None
    """Folder of a finished run, whose averaged weights begin a new schedule."""
    evaluation: Path | None = None
    """Folder of uint8 .npy clips (T, H, W, 3) to measure on."""
    photographs: Path | None = None
    """Folder of photographs that half of the canvases are cut from."""
    device: str = "cuda"
    """Device of this process."""
    seed: int = 0
    """Of weights and clips."""
    matrix_rate: float = 0.02
    """Peak learning rate of Muon."""
    vector_rate: float = 2e-3
    """Peak learning rate of Adam."""
    quantise_from: float = 0.85
    """Part of the schedule after which the weights are rounded to Q8_0 in the forward pass."""
    report_every: float = 20.0
    """Seconds between two rows of the curve."""
    scale: float = 1.0
    """Factor on the count of clips in a batch."""
    config: VAEConfig = NANO
    """Widths; everything else is the small model's."""
    soft: bool = True
    """Whether norms on the main path are trained soft, which one channel a group needs (`network.fold_soft_norms`)."""
    work: Workload | None = None
    """What a step is made of; None is GPU or CPU."""


class Trainer:
    """Weights, optimiser and scenes of one process."""

    def __init__(self, settings: Settings) -> None:
        """Build everything on the settings' device, and load the state to resume from."""
        self.settings = settings
        device = torch.device(settings.device)
        self.rank = dist.get_rank() if dist.is_initialized() else 0
        on_gpu = device.type == "cuda"
        self.dtype = torch.bfloat16 if on_gpu else torch.float32
        norm = gpu_norm() if on_gpu else norm_silu
        self.network = Network(norm, soft=settings.soft, config=settings.config)
        self.shipped = Network(norm, soft=False, config=settings.config)
        rng = torch.Generator(device).manual_seed(settings.seed)
        self.weights = FlatWeights(initial_weights(rng, settings.config))
        self.average = self.weights.vector.clone()
        self.optimiser = Optimiser(self.weights, matrix_rate=settings.matrix_rate, vector_rate=settings.vector_rate)
        self.progress = load_state(settings.resume, self.vectors()) if settings.resume else Progress()
        if settings.start:
            load_state(settings.start, {"average": self.average})
            self.weights.vector.copy_(self.average)
        self.optimiser.steps = self.progress.step
        # Every process films other clips, and a resumed call films new ones; shapes must agree between processes.
        seed = settings.seed + 1000 * self.progress.step + 7 * self.rank
        self.rng = torch.Generator(device).manual_seed(seed)
        self.shapes = random.Random(self.progress.step)
        self.work = settings.work or (GPU if on_gpu else CPU)
        self.bank = self.work.bank(self.rng, load_photographs(settings.photographs, device))
        held_out = SceneBank(torch.Generator(device).manual_seed(999), canvases=6, size_px=self.work.canvas_px)
        self.evaluation = {"procedural": held_out.film(self.work.held_out)} | load_clips(settings.evaluation, device)

    def vectors(self) -> dict[str, Tensor]:
        """What a resumed call needs, by file name."""
        return {
            "weights": self.weights.vector,
            "average": self.average,
            "momentum": self.optimiser.momentum,
            "square": self.optimiser.square,
        }

    def rounded(self, weights: Weights) -> Weights:
        """The weights as the network computes with them: matrices in 16 bits on a GPU."""
        return {name: t.to(self.dtype) if t.ndim > 1 else t for name, t in weights.items()}

    def as_shipped(self, weights: Weights) -> Weights:
        """The weights as the exported file holds them: folded, and rounded to Q8_0."""
        folded = fold_soft_norms(weights) if self.settings.soft else weights
        return self.rounded({name: q8_rounded(name, t) for name, t in folded.items()})

    def losses(self, network: Network, weights: Weights, video: Tensor) -> dict[str, Tensor]:
        """All terms of the loss on one batch."""
        mean, log_variance = network.encode(weights, video)
        noise = torch.randn(mean.shape, generator=self.rng, device=mean.device)
        output = network.decode(weights, mean + noise * torch.exp(log_variance / 2))
        target_variance = NANO.scaling_factor**-2
        return picture_terms(output, video) | latent_terms(mean, log_variance, target_variance)

    def step(self, fraction: float) -> dict[str, Tensor]:
        """One update at `fraction` of the schedule; returns the terms of the loss."""
        _, shape = self.shapes.choices(self.work.shapes, [probability for probability, _ in self.work.shapes])[0]
        shape = replace(shape, count=max(1, round(shape.count * self.settings.scale)))
        if self.progress.step % self.work.renew_every == 0:
            self.bank.renew()
        video = self.bank.film(shape)
        leaves = {name: tensor.detach().requires_grad_() for name, tensor in self.weights.views().items()}
        if fraction < self.settings.quantise_from:
            terms = self.losses(self.network, self.rounded(leaves), video)
        else:
            terms = self.losses(self.shipped, self.as_shipped(leaves), video)
        gradients = torch.autograd.grad(total_loss(terms, LossWeights()), list(leaves.values()))
        gradient = torch.cat([g.flatten() for g in gradients])
        if dist.is_initialized():
            dist.all_reduce(gradient)
            gradient /= dist.get_world_size()
        self.optimiser.step(clipped(gradient, 1.0), learning_rate(fraction, self.progress.step))
        self.progress.step += 1
        decay = min(0.997, 1 - 1 / (1 + self.progress.step / 4))
        self.average.lerp_(self.weights.vector, 1 - decay)
        return {name: term.detach() for name, term in terms.items()}

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """PSNR of the averaged weights' posterior mean, of all frames and of the worst, and the latents' spread."""
        weights = self.as_shipped(self.weights.views(self.average))
        row: dict[str, float] = {}
        for name, video in self.evaluation.items():
            mean, _ = self.shipped.encode(weights, video)
            output = self.shipped.decode(weights, mean)
            row[f"psnr_{name}"] = psnr(output, video)
            if video.shape[2] > 1:
                row[f"worst_{name}"] = min(psnr(*pair) for pair in zip(output.unbind(2), video.unbind(2), strict=True))
            if name == "procedural":
                spread = mean.flatten(0, -2).std(0) * NANO.scaling_factor
                row |= {"latent_std_min": float(spread.min()), "latent_std_max": float(spread.max())}
        return row

    def save(self) -> None:
        """Write the state and the learning curve."""
        save_state(self.settings.out, self.vectors(), self.progress)
        names = list(dict.fromkeys(name for row in self.progress.rows for name in row))
        with (self.settings.out / "learning_curve.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(self.progress.rows)


def gpu_norm() -> Callable[[Tensor, Tensor, Tensor, float], Tensor]:
    """The Triton twin of `norm_silu`; imported here because CPU builds of PyTorch come without Triton."""
    from training.norm_triton import norm_silu_triton

    return norm_silu_triton


def learning_rate(fraction: float, step: int) -> float:
    """Factor in [0, 1]: warm-up over 100 steps, flat for a quarter of the schedule, then a cosine to zero."""
    falling = min(1.0, max(0.0, (fraction - 0.25) / 0.75))
    return min(1.0, (step + 1) / 100) * 0.5 * (1 + math.cos(math.pi * falling))


def clipped(gradient: Tensor, largest_norm: float) -> Tensor:
    """The gradient with its norm limited; all zeros if it is not finite, so one bad batch cannot spoil a run."""
    norm = gradient.norm()
    limited = gradient * (largest_norm / norm.clamp_min(largest_norm))
    return torch.where(torch.isfinite(norm), limited, torch.zeros_like(gradient))


def load_photographs(folder: Path | None, device: torch.device) -> list[Tensor]:
    """Every JPEG of `folder` as uint8 (3, H, W)."""
    pictures = sorted(folder.glob("*.jpg")) if folder else []
    return [torch.from_numpy(np.array(Image.open(p).convert("RGB"))).permute(2, 0, 1).to(device) for p in pictures]


def load_clips(folder: Path | None, device: torch.device) -> dict[str, Tensor]:
    """Every .npy clip (T, H, W, 3) uint8 of `folder`, cut to 4n+1 frames and multiples of 8, as (1, 3, T, H, W)."""
    clips = {}
    for path in sorted(folder.glob("*.npy")) if folder else []:
        clip = torch.from_numpy(np.load(path, allow_pickle=False)).to(device)
        frames, height, width = (clip.shape[0] - 1) // 4 * 4 + 1, clip.shape[1] // 8 * 8, clip.shape[2] // 8 * 8
        video = clip[:frames, :height, :width].permute(3, 0, 1, 2)[None]
        clips[path.stem] = video.float() / 127.5 - 1
    return clips


def report(trainer: Trainer, terms: dict[str, Tensor], *, measure: bool) -> None:
    """Add a row to the curve and print it on one line; after a measurement, save the state."""
    row = {"step": float(trainer.progress.step), "seconds": round(trainer.progress.seconds, 1)}
    row |= {name: round(float(term), 5) for name, term in terms.items()}
    if measure:
        row |= {name: round(value, 3) for name, value in trainer.measure().items()}
    trainer.progress.rows.append(row)
    if measure:
        trainer.save()
    print(" ".join(f"{name} {value:g}" for name, value in row.items()), flush=True)


def train(settings: Settings) -> None:
    """Run one call: until the schedule ends or `stop_after` seconds have passed, then save."""
    trainer = Trainer(settings)
    started, before = time.monotonic(), trainer.progress.seconds
    next_report, reports = settings.report_every, 0
    clock = torch.zeros((), dtype=torch.float64, device=settings.device)
    terms: dict[str, Tensor] = {}
    while True:
        if trainer.progress.step % 5 == 0:
            # Reading the loss waits for the GPU, so that the clock is true; all processes take the first one's.
            if terms:
                terms["pixel"].item()
            clock.fill_(time.monotonic() - started)
            if dist.is_initialized():
                dist.broadcast(clock, src=0)
            spent = float(clock)
            trainer.progress.seconds = before + spent
            if spent >= settings.stop_after or trainer.progress.seconds >= settings.seconds:
                break
            if spent >= next_report and trainer.rank == 0:
                report(trainer, terms, measure=reports % 4 == 3)
                reports += 1
            if spent >= next_report:
                next_report += settings.report_every
        terms = trainer.step(trainer.progress.seconds / settings.seconds)
    if trainer.rank == 0:
        report(trainer, terms, measure=True)


def parse_arguments() -> Settings:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="folder for the state and the learning curve")
    parser.add_argument("--seconds", type=float, required=True, help="length of the whole schedule")
    parser.add_argument("--stop-after", type=float, help="length of this call (default: the whole schedule)")
    parser.add_argument("--resume", type=Path, help="folder of an earlier call")
    parser.add_argument("--start", type=Path, help="folder of a finished run to fine-tune")
    parser.add_argument("--evaluation", type=Path, help="folder of uint8 .npy clips (T, H, W, 3)")
    parser.add_argument("--photographs", type=Path, help="folder of JPEG files (training/photographs.py)")
    parser.add_argument(
        "--widths", type=int, nargs=4, default=NANO.block_out_channels, help="channels of the four levels"
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--matrix-rate", type=float, default=Settings.matrix_rate)
    parser.add_argument("--vector-rate", type=float, default=Settings.vector_rate)
    parser.add_argument("--quantise-from", type=float, default=Settings.quantise_from)
    parser.add_argument("--report-every", type=float, default=Settings.report_every)
    parser.add_argument("--scale", type=float, default=Settings.scale, help="factor on the clips of a batch")
    values = vars(parser.parse_args())
    values["stop_after"] = values["stop_after"] or values["seconds"]
    values["config"] = replace(NANO, block_out_channels=tuple(values.pop("widths")))
    return Settings(**values)


def main() -> None:
    """Command line."""
    settings = parse_arguments()
    if "LOCAL_RANK" in os.environ:
        local = int(os.environ["LOCAL_RANK"])
        torch.cuda.set_device(local)
        dist.init_process_group("nccl")
        settings = replace(settings, device=f"cuda:{local}")
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.benchmark_limit = 4  # of about 10 candidates a layer and shape: saves 20 s a call
    train(settings)
    if dist.is_initialized():
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
