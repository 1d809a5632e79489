"""Train the small transformer on the small VAE's latents: `python -m training.train_dit OUT --seconds 400`.

First a regression of latents, which costs no decoding; then of decoded pictures too; then sharper, with the strength of
texture; at the end with weights rounded as the file will be. The schedule runs over training time, as in
`train_vae`; `--stop-after` ends a call early and `--resume` goes on with the schedule in the next.
"""

import argparse
import random
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from training import train_vae
from training.dit_data import (
    SCALES,
    FrozenVAE,
    Pairs,
    Pool,
    fresh_shape,
    held_out_pairs,
    make_pairs,
    pipeline_noise,
)
from training.dit_losses import RestorationWeights, latent_distance, restoration_terms, structure_distance
from training.dit_network import ENDS, Restorer, adam_count, initial_weights, trained
from training.losses import psnr, total_loss
from training.optimiser import FlatWeights, Optimiser
from training.scenes import ClipShape, SceneBank
from training.state import Progress, load_state, save_state
from training.train_vae import clipped, learning_rate, load_clips

STORED_AS = {"weights": torch.float16, "average": torch.float16, "momentum": torch.bfloat16}
"""Number formats of a saved state: eight files of less than 16 MiB."""
MEASURED_PX = (352, 640)
"""Largest height and width that evaluation clips are cut to."""
MEASURED_FRAMES = 9
PROCEDURAL = "procedural"


@dataclass(frozen=True)
class Workload(train_vae.Workload):
    """What one step is made of, to suit a device."""

    decoded_part: int = 4
    """One in so many clips of a batch is decoded when pictures are compared."""


GPU = Workload(
    # 10,000 to 25,000 tokens a step. 240x432 fills the largest window of a frame (405 tokens), 368x640 has several.
    # Windows reach over two latent frames from 17 frames on, over three from 33, and over eight, the most, from 113.
    shapes=(
        (0.30, ClipShape(96, 1, 256, 256)),
        (0.12, ClipShape(56, 1, 240, 432)),
        (0.10, ClipShape(24, 1, 368, 640)),
        (0.22, ClipShape(48, 5, 256, 256)),
        (0.10, ClipShape(64, 9, 160, 160)),
        (0.09, ClipShape(48, 17, 128, 128)),
        (0.04, ClipShape(12, 21, 256, 256)),
        (0.02, ClipShape(48, 33, 96, 96)),
        (0.01, ClipShape(24, 113, 64, 64)),
    ),
    canvases=24,
    canvas_px=1024,
    renew_every=6,
    held_out=ClipShape(8, 5, 256, 256),
)
CPU = Workload(
    shapes=((0.8, ClipShape(16, 1, 64, 64)), (0.2, ClipShape(8, 5, 64, 64))),
    canvases=8,
    canvas_px=384,
    renew_every=40,
    held_out=ClipShape(4, 5, 96, 96),
)


@dataclass(frozen=True)
class Settings:
    """One training run."""

    out: Path
    """Folder for the state."""
    vae: Path
    """FP16 master of the small VAE."""
    seconds: float
    """Length of the whole schedule."""
    stop_after: float
    """Length of this call."""
    resume: Path | None = None
    """Folder of an earlier call's state, whose schedule goes on."""
    evaluation: Path | None = None
    """Folder of uint8 .npy clips (T, H, W, 3) to measure on."""
    device: str = "cuda"
    """Device of this process."""
    seed: int = 0
    """Of weights, clips and noise."""
    matrix_rate: float = 0.015
    """Peak learning rate of Muon."""
    vector_rate: float = 1e-3
    """Peak learning rate of Adam."""
    pictures_from: float = 0.4
    """Part of the schedule after which decoded pictures are compared too."""
    sharper_from: float = 0.7
    """Part of the schedule after which the strength of texture counts."""
    texture: float = 0.1
    """Its weight. At 1 it would win against the squared error, and all missing texture would be invented."""
    quantise_from: float = 0.85
    """Part of the schedule after which the weights are rounded to Q8_0 in the forward pass."""
    report_every: float = 20.0
    """Seconds between two rows of the curve."""


class Trainer:
    """Weights, optimiser, clips and what is measured on."""

    def __init__(self, settings: Settings) -> None:
        """Build everything on the settings' device, and load the state to resume from."""
        self.settings = settings
        device = torch.device(settings.device)
        on_gpu = device.type == "cuda"
        self.work = GPU if on_gpu else CPU
        self.vae = FrozenVAE(settings.vae, device)
        weights = initial_weights(torch.Generator(device).manual_seed(settings.seed))
        self.restorer = Restorer(weights, torch.bfloat16 if on_gpu else torch.float32)
        self.weights = FlatWeights(trained(weights))
        self.average = self.weights.vector.clone()
        self.optimiser = Optimiser(
            self.weights, matrix_rate=settings.matrix_rate, vector_rate=settings.vector_rate, adam_names=ENDS
        )
        self.adam_count = adam_count(weights)
        self.progress = load_state(settings.resume, self.vectors()) if settings.resume else Progress()
        self.optimiser.steps = self.progress.step
        # A resumed call films other clips.
        seed = settings.seed + 1000 * self.progress.step
        self.rng = torch.Generator(device).manual_seed(seed)
        self.choices = random.Random(seed)
        self.bank = SceneBank(self.rng, canvases=self.work.canvases, size_px=self.work.canvas_px)
        self.pools = {shape: Pool(shape.count) for _, shape in self.work.shapes}
        held_out = SceneBank(torch.Generator(device).manual_seed(999), canvases=6, size_px=self.work.canvas_px)
        clips = {PROCEDURAL: held_out.film(self.work.held_out)} | load_clips(settings.evaluation, device)
        self.evaluation = {name: held_out_pairs(self.vae, measurable(clip), seed=7) for name, clip in clips.items()}

    def vectors(self) -> dict[str, Tensor]:
        """What a resumed call needs, by file name."""
        return {
            "weights": self.weights.vector,
            "average": self.average,
            "momentum": self.optimiser.momentum,
            "square": self.optimiser.square[: self.adam_count],
        }

    def batch(self) -> Pairs:
        """Clips of a random shape, a part of them new."""
        shape = self.choices.choices([s for _, s in self.work.shapes], [p for p, _ in self.work.shapes])[0]
        pool = self.pools[shape]
        if self.progress.step % self.work.renew_every == 0:
            self.bank.renew()
        while True:
            scale = self.choices.choices([s for _, s in SCALES], [p for p, _ in SCALES])[0]
            pool.add(make_pairs(self.rng, self.vae, self.bank.film(fresh_shape(shape)), scale))
            if pool.filled >= shape.count:
                return pool.draw(self.rng)

    def terms(self, pairs: Pairs, fraction: float) -> dict[str, Tensor]:
        """All terms of the loss on one batch at `fraction` of the schedule."""
        noise = torch.randn(pairs.target.shape, generator=self.rng, device=pairs.target.device)
        output = self.restorer.restore(pairs.condition, noise)
        terms = {"latent": latent_distance(output, pairs.target)}
        if fraction >= self.settings.pictures_from:
            part = slice(max(1, len(output) // self.work.decoded_part))
            terms |= restoration_terms(self.vae.decode(output[part]), pairs.take(part).video())
        return terms

    def step(self, fraction: float) -> dict[str, Tensor]:
        """One update at `fraction` of the schedule; returns the terms of the loss."""
        self.restorer.load(self.weights.views(), quantised=fraction >= self.settings.quantise_from)
        terms = self.terms(self.batch(), fraction)
        texture = self.settings.texture if fraction >= self.settings.sharper_from else 0.0
        loss = total_loss(terms, RestorationWeights(texture=texture))
        gradients = torch.autograd.grad(loss, list(self.restorer.leaves.values()))
        gradient = torch.cat([g.float().flatten() for g in gradients])
        self.optimiser.step(clipped(gradient, 1.0), learning_rate(fraction, self.progress.step))
        self.progress.step += 1
        decay = min(0.995, 1 - 1 / (1 + self.progress.step / 4))
        self.average.lerp_(self.weights.vector, 1 - decay)
        return {name: term.detach() for name, term in terms.items()}

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """PSNR and structure distance of several results, for the procedural clips and for the mean of the others.

        bicubic: enlarged, nothing more. blurred, ceiling: the VAE alone, on the enlarged and on the sharp clip.
        raw, average: the transformer, with the weights as they are and averaged, rounded to Q8_0.
        """
        values: dict[str, list[float]] = {}
        for name, (pairs, enlarged) in self.evaluation.items():
            sharp = pairs.video()
            noise = pipeline_noise(42, tuple(pairs.target.shape[:-1]), sharp.device)
            videos = {
                "bicubic": enlarged,
                "blurred": self.vae.decode(pairs.condition),
                "ceiling": self.vae.decode(pairs.target),
            }
            for kind, vector in (("raw", self.weights.vector), ("average", self.average)):
                self.restorer.load(self.weights.views(vector), quantised=True)
                videos[kind] = self.vae.decode(self.restorer.restore(pairs.condition, noise))
            group = PROCEDURAL if name == PROCEDURAL else "clips"
            for kind, video in videos.items():
                values.setdefault(f"psnr_{group}_{kind}", []).append(psnr(video, sharp))
                values.setdefault(f"distance_{group}_{kind}", []).append(structure_distance(video, sharp))
        return {name: sum(found) / len(found) for name, found in values.items()}


def measurable(clip: Tensor) -> Tensor:
    """The middle of a clip (N, 3, T, H, W), cut to whole tokens and a size that fits into memory at once."""
    frames = min(clip.shape[2], MEASURED_FRAMES)
    height, width = (min(size, limit) // 16 * 16 for size, limit in zip(clip.shape[-2:], MEASURED_PX, strict=True))
    top, left = (clip.shape[-2] - height) // 2, (clip.shape[-1] - width) // 2
    return clip[:, :, :frames, top : top + height, left : left + width]


def report(trainer: Trainer, terms: dict[str, Tensor], *, measure: bool) -> None:
    """Add a row to the curve and print it on one line; after a measurement, save the state."""
    row = {"step": float(trainer.progress.step), "seconds": round(trainer.progress.seconds, 1)}
    row |= {name: round(float(term), 5) for name, term in terms.items()}
    if measure:
        row |= {name: round(value, 4) for name, value in trainer.measure().items()}
    trainer.progress.rows.append(row)
    if measure:
        save_state(trainer.settings.out, trainer.vectors(), trainer.progress, stored_as=STORED_AS)
    print(" ".join(f"{name} {value:g}" for name, value in row.items()), flush=True)


def train(settings: Settings) -> None:
    """Run one call: until the schedule ends or `stop_after` seconds have passed, then measure and save."""
    started = time.monotonic()
    trainer = Trainer(settings)
    before, next_report, reports = trainer.progress.seconds, settings.report_every, 0
    terms: dict[str, Tensor] = {}
    while True:
        if trainer.progress.step % 5 == 0:
            if terms:
                terms["latent"].item()  # Waits for the GPU, so that the clock is true.
            spent = time.monotonic() - started
            trainer.progress.seconds = before + spent
            if spent >= settings.stop_after or trainer.progress.seconds >= settings.seconds:
                break
            if spent >= next_report:
                report(trainer, terms, measure=reports % 4 == 3)
                reports += 1
                next_report += settings.report_every
        terms = trainer.step(trainer.progress.seconds / settings.seconds)
    report(trainer, terms, measure=True)


def parse_arguments() -> Settings:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="folder for the state and the learning curve")
    parser.add_argument("--vae", type=Path, default=Path("training/weights/nano_vae_f16.safetensors"))
    parser.add_argument("--seconds", type=float, required=True, help="length of the whole schedule")
    parser.add_argument("--stop-after", type=float, help="length of this call (default: the whole schedule)")
    parser.add_argument("--resume", type=Path, help="folder of an earlier call")
    parser.add_argument("--evaluation", type=Path, help="folder of uint8 .npy clips (T, H, W, 3)")
    for name in (
        "device",
        "seed",
        "matrix_rate",
        "vector_rate",
        "pictures_from",
        "sharper_from",
        "texture",
        "quantise_from",
        "report_every",
    ):
        default = getattr(Settings, name)
        parser.add_argument("--" + name.replace("_", "-"), type=type(default), default=default)
    values = vars(parser.parse_args())
    values["stop_after"] = values["stop_after"] or values["seconds"]
    return Settings(**values)


def main() -> None:
    """Command line."""
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.benchmark_limit = 3  # of about 10 candidates a layer and shape
    train(parse_arguments())


if __name__ == "__main__":
    main()
