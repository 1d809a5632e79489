"""Go on training the decoder of the VAE that ships: `python -m training.tune_decoder OUT --seconds 500`.

The encoder stays as it is, so latents, and the transformer that was trained on them, stay valid. Some batches are
decoded from what the transformer makes of degraded clips, so that the decoder also learns what upscaling gives it.
"""

import argparse
import csv
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from seedvr2_engine.checkpoint.text_embedding import load_text_embedding
from seedvr2_engine.loading_dit import load_dit
from training.degrade import FULL, MILD, degrade, enlarge
from training.dit_data import FrozenVAE
from training.dit_losses import luma, texture_distance, unlikeness
from training.dit_network import TEXT, Restorer
from training.losses import LossWeights, picture_terms, psnr, total_loss
from training.network import NANO, Network, Weights, decoder_part, fold_soft_norms, norm_silu, unfold_soft_norms
from training.optimiser import FlatWeights, Optimiser
from training.quantise import fp8_rounded, q8_rounded
from training.state import Progress, save_state
from training.train_vae import CPU, GPU, Workload, clipped, gpu_norm, learning_rate, load_clips, load_photographs

VAE = Path("training/weights/nano_vae_f16.safetensors")
DIT = Path("seedvr2_engine/nano/nano_dit_q8_0.gguf")
SHARPNESS = {"texture": 0.05, "structure": 0.2}
"""Weights of two terms of `dit_losses` beside those of `LossWeights`: a regression smooths texture away."""
ENLARGED = ((0.5, None), (0.3, MILD), (0.2, FULL))
"""How clips are degraded that the transformer restores: only made smaller, mildly, fully."""
RESTORED_PX = 16
"""Whose multiples the transformer's frames are."""


@dataclass(frozen=True)
class Settings:
    """One run."""

    out: Path
    """Folder for the state and the curve."""
    seconds: float
    """Length of the schedule."""
    vae: Path = VAE
    """FP16 file of the model to go on with."""
    dit: Path = DIT
    """The transformer."""
    evaluation: Path | None = None
    """Folder of uint8 .npy clips (T, H, W, 3) to measure on."""
    photographs: Path | None = None
    """Folder of photographs that half of the canvases are cut from."""
    device: str = "cuda"
    """Of everything."""
    seed: int = 0
    """Of the clips."""
    matrix_rate: float = 0.006
    """Peak learning rate of Muon."""
    vector_rate: float = 1e-3
    """Peak learning rate of Adam."""
    restored: float = 0.2
    """Share of the batches that come from the transformer."""
    quantise_from: float = 0.6
    """Part of the schedule after which weights are rounded to Q8_0."""
    round_from: float = 0.8
    """Part of the schedule after which every other step rounds activations to FP8."""
    report_every: float = 20.0
    """Seconds between two rows of the curve; every fourth is measured and saved."""
    scale: float = 0.5
    """Factor on the clips of a batch."""
    work: Workload | None = None
    """What a step is made of; None is that of `train_vae`."""


@dataclass
class Tuner:
    """Weights of the decoder, their optimiser, and what batches are made with."""

    settings: Settings
    progress: Progress = field(default_factory=Progress)

    def __post_init__(self) -> None:
        settings = self.settings
        device = torch.device(settings.device)
        on_gpu = device.type == "cuda"
        self.dtype = torch.bfloat16 if on_gpu else torch.float32
        norm: Callable[..., Tensor] = gpu_norm() if on_gpu else norm_silu
        self.vae = FrozenVAE(settings.vae, device)
        self.soft = Network(norm, soft=True)
        self.shipped = Network(norm, soft=False)
        self.rounding = Network(norm, soft=False, rounded=fp8_rounded)
        decoder = unfold_soft_norms(decoder_part(load_file(settings.vae, device=str(device))))
        self.weights = FlatWeights(decoder)
        self.average = self.weights.vector.clone()
        self.optimiser = Optimiser(self.weights, matrix_rate=settings.matrix_rate, vector_rate=settings.vector_rate)
        self.rng = torch.Generator(device).manual_seed(settings.seed)
        self.choices = random.Random(settings.seed)
        self.work = settings.work or (GPU if on_gpu else CPU)
        self.bank = replace(self.work, fast=True).bank(
            self.rng, load_photographs(settings.photographs, device), lines=True
        )
        self.restorer = load_restorer(settings.dit, device, self.dtype) if settings.restored else None
        self.evaluation = load_clips(settings.evaluation, device)

    def as_computed(self, weights: Weights, *, shipped: bool) -> Weights:
        """Weights for `soft`, or as the file holds them for `shipped`: folded and rounded to Q8_0."""
        if shipped:
            weights = {name: q8_rounded(name, t) for name, t in fold_soft_norms(weights).items()}
        return {name: t.to(self.dtype) if t.ndim > 1 else t for name, t in weights.items()}

    @torch.no_grad()
    def latents(self, video: Tensor) -> Tensor:
        """Latents of clips, from the encoder with the posterior's noise, or from the transformer."""
        sides = video.shape[-2:]
        fits = all(side % RESTORED_PX == 0 for side in sides)
        source = video
        restored = self.restorer is not None and fits and self.choices.random() < self.settings.restored
        if restored:
            strength = self.choices.choices([s for _, s in ENLARGED], [share for share, _ in ENLARGED])[0]
            small = (sides[0] // 2, sides[1] // 2)
            low = shrunk(video, small) if strength is None else degrade(self.rng, video, small, strength)
            source = enlarge(low, (sides[0], sides[1]))
        mean, deviation = self.vae.encode(source)
        noise = torch.randn(mean.shape, generator=self.rng, device=mean.device)
        latent = mean + deviation * noise
        if restored:
            assert self.restorer is not None
            fresh = torch.randn(mean.shape, generator=self.rng, device=mean.device)
            latent = self.restorer.restore(latent, fresh).float()
        return latent / NANO.scaling_factor

    def step(self, fraction: float) -> dict[str, Tensor]:
        """One update at `fraction` of the schedule; returns the terms of the loss."""
        settings, step = self.settings, self.progress.step
        _, shape = self.choices.choices(self.work.shapes, [probability for probability, _ in self.work.shapes])[0]
        shape = replace(shape, count=max(1, round(shape.count * settings.scale)))
        if step % self.work.renew_every == 0:
            self.bank.renew()
        video = self.bank.film(shape)
        latent = self.latents(video)
        leaves = {name: tensor.detach().requires_grad_() for name, tensor in self.weights.views().items()}
        shipped = fraction >= settings.quantise_from
        network = self.shipped if shipped else self.soft
        if fraction >= settings.round_from and step % 2:
            network = self.rounding
        output = network.decode(self.as_computed(leaves, shipped=shipped), latent)
        terms = picture_terms(output, video)
        loss = total_loss(terms, LossWeights())
        sharpness = {
            "texture": texture_distance(output, video),
            "structure": unlikeness(luma(output) / 2, luma(video) / 2, 1e-10),
        }
        loss = loss + torch.stack([SHARPNESS[name] * term for name, term in sharpness.items()]).sum()
        gradients = torch.autograd.grad(loss, list(leaves.values()))
        gradient = torch.cat([g.flatten() for g in gradients])
        self.optimiser.step(clipped(gradient, 1.0), learning_rate(fraction, step))
        self.progress.step += 1
        decay = min(0.997, 1 - 1 / (1 + self.progress.step / 4))
        self.average.lerp_(self.weights.vector, 1 - decay)
        return {name: term.detach() for name, term in (terms | sharpness).items()}

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """PSNR of the averaged weights as they would ship, of all frames and of the worst."""
        weights = self.as_computed(self.weights.views(self.average), shipped=True)
        row: dict[str, float] = {}
        for name, video in self.evaluation.items():
            mean, _ = self.vae.encode(video)
            output = self.shipped.decode(weights, mean / NANO.scaling_factor)
            row[f"psnr_{name}"] = psnr(output, video)
            if video.shape[2] > 1:
                row[f"worst_{name}"] = min(psnr(*pair) for pair in zip(output.unbind(2), video.unbind(2), strict=True))
        return row

    def report(self, terms: dict[str, Tensor], *, measure: bool) -> None:
        """Add a row to the curve and print it; after a measurement, save."""
        row = {"step": float(self.progress.step), "seconds": round(self.progress.seconds, 1)}
        row |= {name: round(float(term), 5) for name, term in terms.items()}
        if measure:
            row |= {name: round(value, 3) for name, value in self.measure().items()}
        self.progress.rows.append(row)
        if measure:
            save_state(self.settings.out, {"average": self.average, "weights": self.weights.vector}, self.progress)
            names = list(dict.fromkeys(name for row in self.progress.rows for name in row))
            with (self.settings.out / "learning_curve.csv").open("w", newline="") as file:
                writer = csv.DictWriter(file, names)
                writer.writeheader()
                writer.writerows(self.progress.rows)
        print(" ".join(f"{name} {value:g}" for name, value in row.items()), flush=True)


def shrunk(video: Tensor, size: tuple[int, int]) -> Tensor:
    """Clips (N, 3, T, H, W) of [-1, 1], only made smaller, as (N, 3, T, h, w) of [0, 1]."""
    frames = F.interpolate(video.transpose(1, 2).flatten(0, 1), size, mode="bicubic", antialias=True)
    return frames.unflatten(0, (video.shape[0], video.shape[2])).transpose(1, 2).clamp(-1, 1) / 2 + 0.5


def load_restorer(path: Path, device: torch.device, dtype: torch.dtype) -> Restorer:
    """The transformer of a file, as training computes with it."""
    weights = dict(load_dit(path).state_dict()) | {TEXT: load_text_embedding(path)}
    return Restorer({name: weight.to(device, torch.float32) for name, weight in weights.items()}, dtype)


def train(settings: Settings) -> None:
    """Run the schedule and save."""
    tuner = Tuner(settings)
    started, next_report, reports = time.monotonic(), settings.report_every, 0
    terms: dict[str, Tensor] = {}
    while tuner.progress.seconds < settings.seconds:
        terms = tuner.step(tuner.progress.seconds / settings.seconds)
        if tuner.progress.step % 5:
            continue
        terms["pixel"].item()  # waits for the GPU, so that the clock is true
        tuner.progress.seconds = time.monotonic() - started
        if tuner.progress.seconds >= next_report:
            tuner.report(terms, measure=reports % 4 == 3)
            reports, next_report = reports + 1, next_report + settings.report_every
    tuner.report(terms, measure=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="folder for the state and the learning curve")
    parser.add_argument("--seconds", type=float, required=True, help="length of the schedule")
    parser.add_argument("--vae", type=Path, default=VAE, help="FP16 file of the model to go on with")
    parser.add_argument("--dit", type=Path, default=DIT, help="the transformer")
    parser.add_argument("--evaluation", type=Path, help="folder of uint8 .npy clips (T, H, W, 3)")
    parser.add_argument("--photographs", type=Path, help="folder of JPEG files (training/photographs.py)")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seed", type=int, default=Settings.seed)
    for name in ("matrix_rate", "vector_rate", "restored", "quantise_from", "round_from", "report_every", "scale"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=float, default=getattr(Settings, name))
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.benchmark_limit = 4
    train(Settings(**vars(parser.parse_args())))


if __name__ == "__main__":
    main()
