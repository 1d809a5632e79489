"""Train the small transformer on the small VAE's latents: `python -m training.train_dit OUT --seconds 500`.

Decoded pictures are compared from the first step on, latents with a weight that falls; then edges too, and near the
end the strength of texture (`dit_losses.Schedule`). Weights are rounded as the file will be all along. The schedule
runs over time, as in `train_vae`; `--stop-after` ends a call early, and `--resume` goes on with it in the next.
"""

import argparse
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from torch import Tensor

from training.dit_data import FrozenVAE, Pairs, Pool, Shape, Source
from training.dit_losses import TERMS, Schedule
from training.dit_measure import STORED_IN, Measure, better_kind
from training.dit_network import Restorer, initial_weights, muon_stacks, trained
from training.dit_step import Batch, Learner, Steps
from training.held_out import held_out_clips, procedural_clips
from training.optimiser import FlatWeights, StackedOptimiser
from training.scenes import ClipShape, SceneBank
from training.state import Progress, load_state, save_state

STORED_AS = {"weights": torch.float16, "average": torch.float16, "momentum": torch.bfloat16}
"""Number formats of a saved state: eight files of less than 16 MiB."""
MEASURE_EVERY = 4
"""Reports between two measurements."""


@dataclass(frozen=True)
class Workload:
    """What training is made of, to suit a device."""

    shapes: tuple[tuple[float, Shape], ...]
    """Probability and shape of a batch."""
    canvases: int
    """Canvases in the bank."""
    canvas_px: int
    """Their size."""
    round_steps: int
    """Steps of a round; in the meantime the clips of one shape are made."""
    held_out: ClipShape
    """Procedural clips that are only measured on."""


GPU = Workload(
    # 4,600 to 7,400 tokens a step, and about half a million decoded pixels. 368x640 has several windows, the largest of
    # 15x27 tokens; the demo's clip is as large. Windows reach over three latent frames at 33 frames, and over eight,
    # the most, at 113.
    shapes=(
        (0.30, Shape(ClipShape(192, 1, 192, 192), batch=40, decoded=14, pooled=1920)),
        (0.20, Shape(ClipShape(128, 1, 256, 256), batch=24, decoded=8, pooled=1280)),
        (0.08, Shape(ClipShape(32, 1, 368, 640), batch=8, decoded=2, pooled=256)),
        (0.10, Shape(ClipShape(12, 5, 368, 640), batch=3, decoded=1, pooled=96)),
        (0.20, Shape(ClipShape(64, 5, 192, 192), batch=24, decoded=3, pooled=512)),
        (0.10, Shape(ClipShape(24, 33, 96, 96), batch=20, decoded=2, pooled=144)),
        (0.02, Shape(ClipShape(16, 113, 64, 64), batch=10, decoded=1, pooled=48)),
    ),
    canvases=24,
    canvas_px=1024,
    round_steps=64,
    held_out=ClipShape(4, 5, 256, 256),
)
CPU = Workload(
    shapes=(
        (0.8, Shape(ClipShape(16, 1, 64, 64), batch=12, decoded=6, pooled=128)),
        (0.2, Shape(ClipShape(4, 5, 64, 64), batch=4, decoded=1, pooled=16)),
    ),
    canvases=8,
    canvas_px=384,
    round_steps=8,
    held_out=ClipShape(2, 1, 96, 96),
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
    """Folder of clips as `held_out` reads them."""
    device: str = "cuda"
    """Device of this process."""
    seed: int = 0
    """Of weights, clips and noise."""
    matrix_rate: float = 0.012
    """Peak learning rate of Muon."""
    vector_rate: float = 1e-3
    """Peak learning rate of Adam."""
    structure: float = Schedule.structure
    """Weight of the unlikeness of edges."""
    texture: float = Schedule.texture
    """Weight of the strength of texture. At 1 it would win against the squared error, and all would be invented."""
    report_every: float = 20.0
    """Seconds between two rows of the curve."""
    table: bool = False
    """Whether the other clips of `evaluation` are measured at the end."""


class Streams:
    """Where training and filming run: two streams of a GPU, side by side; on a CPU one after the other."""

    def __init__(self, device: torch.device) -> None:
        self.on_gpu = device.type == "cuda"
        self.work, self.side = (torch.cuda.Stream(device), torch.cuda.Stream(device)) if self.on_gpu else (None, None)

    @contextmanager
    def training(self) -> Iterator[None]:
        """What is launched inside is training."""
        with torch.cuda.stream(self.work) if self.work else nullcontext():
            yield

    @contextmanager
    def filming(self) -> Iterator[None]:
        """What is launched inside is filming; training that is launched afterwards waits for it."""
        if self.work is None or self.side is None:
            yield
            return
        with torch.cuda.stream(self.side):
            yield

    def take_over(self) -> None:
        """Let training wait for what has been filmed so far."""
        if self.work is not None and self.side is not None:
            self.work.wait_stream(self.side)

    def finish(self) -> None:
        """Wait for training."""
        if self.work is not None:
            self.work.synchronize()


class Trainer:
    """Weights, optimiser, clips and what is measured on."""

    def __init__(self, settings: Settings, streams: Streams) -> None:
        """Build everything on the settings' device, and load the state to resume from."""
        self.settings, self.streams = settings, streams
        device = torch.device(settings.device)
        self.work = GPU if streams.on_gpu else CPU
        self.schedule = Schedule(structure=settings.structure, texture=settings.texture)
        torch.backends.cudnn.benchmark_limit = 2  # of about 10 candidates a layer and shape
        vae = FrozenVAE(settings.vae, device)
        weights = initial_weights(torch.Generator(device).manual_seed(settings.seed))
        restorer = Restorer(weights, torch.bfloat16 if streams.on_gpu else torch.float32)
        vector = FlatWeights(trained(weights)).vector
        optimiser = StackedOptimiser(
            vector, muon_stacks(weights), matrix_rate=settings.matrix_rate, vector_rate=settings.vector_rate
        )
        self.learner = Learner(restorer, vae, optimiser)
        self.progress = load_state(settings.resume, self.vectors()) if settings.resume else Progress()
        optimiser.count.fill_(self.progress.step)
        self.learner.keep_or_return()
        # A resumed call films other clips.
        seed = settings.seed + 1000 * self.progress.step
        self.choices = random.Random(seed)
        self.rng = torch.Generator(device).manual_seed(seed + 1)
        filming = torch.Generator(device).manual_seed(seed + 2)
        with streams.filming():
            bank = SceneBank(filming, canvases=self.work.canvases, size_px=self.work.canvas_px)
        self.source = Source(filming, random.Random(seed + 3), vae, bank)
        self.pools = {shape: Pool(shape.pooled) for _, shape in self.work.shapes}
        self.batches: dict[Shape, Batch] = {}
        self.steps = Steps(self.learner, lambda line: print(line, flush=True))
        self.fresh: tuple[Shape, Pairs] | None = None
        clips = held_out_clips(settings.evaluation, choice=True) | procedural_clips(self.work.held_out, device)
        self.measure = Measure(vae, {name: clip.to(device) for name, clip in clips.items()})

    def vectors(self) -> dict[str, Tensor]:
        """What a resumed call needs, by file name."""
        optimiser = self.learner.optimiser
        return {
            "weights": optimiser.vector,
            "average": self.learner.average,
            "momentum": optimiser.momentum,
            "square": optimiser.square,
        }

    def fill_pools(self) -> None:
        """Make the first clips of every shape."""
        torch.backends.cudnn.benchmark = True
        for shape, pool in self.pools.items():
            with self.streams.filming():
                fresh = self.source.make(shape.clips)
            self.streams.take_over()
            pool.add(fresh)
            self.streams.finish()
            self.batches[shape] = Batch.empty(pool, shape)

    def round(self, fraction: float) -> None:
        """Some updates at `fraction` of the schedule, and new clips of the shape that has the most worn ones."""
        step = self.progress.step
        rate = falling_rate(fraction, step)
        replaced = max(0.001, 1 / (1 + step / 4))
        self.learner.set_controls(rate, replaced, self.schedule.weights(fraction))
        self.streams.take_over()
        torch.backends.cudnn.benchmark = True
        if self.fresh:
            # The pairs must not be freed before training has copied them, which `finish` waits for.
            self.pools[self.fresh[0]].add(self.fresh[1])
        shapes = self.choices.choices(
            [s for _, s in self.work.shapes], [p for p, _ in self.work.shapes], k=self.work.round_steps
        )
        for shape in shapes:
            self.batches[shape].fill(self.pools[shape], self.rng)
            self.pools[shape].drawn += shape.batch
            self.steps.run(shape, self.batches[shape])
        self.progress.step += self.work.round_steps
        worn = max(self.pools, key=lambda shape: self.pools[shape].wear)
        with self.streams.filming():
            self.source.bank.renew()
            coming = worn, self.source.make(worn.clips)
        self.streams.finish()
        self.fresh = coming
        if not self.learner.keep_or_return():
            print(f"step {self.progress.step}: the weights ran away; back to those of the round before", flush=True)

    def report(self, *, measure: bool) -> None:
        """Add a row to the curve and print it on one line; after a measurement, save the state."""
        sums = self.learner.sums.tolist()
        self.learner.sums.zero_()
        row = {"step": float(self.progress.step), "seconds": round(self.progress.seconds, 1)}
        if sums[0]:
            row |= {name: round(total / sums[0], 5) for name, total in zip(TERMS, sums[1:], strict=True)}
        row["wear"] = round(max(pool.wear for pool in self.pools.values()), 1)
        if measure:
            vectors = {"raw": self.learner.optimiser.vector, "average": self.learner.average}
            row |= {name: round(v, 4) for name, v in self.measure.row(self.learner.restorer, vectors).items()}
        self.progress.rows.append(row)
        if measure:
            save_state(self.settings.out, self.vectors(), self.progress, stored_as=STORED_AS)
        print(" ".join(f"{name} {value:g}" for name, value in row.items()), flush=True)

    def final_table(self) -> Iterator[str]:
        """The better weights on the clips that nothing was chosen by."""
        device = torch.device(self.settings.device)
        clips = held_out_clips(self.settings.evaluation, choice=False)
        if clips:
            kind = better_kind(self.progress.rows)
            yield f"{kind} weights after {self.progress.step} steps"
            measure = Measure(self.learner.vae, {name: clip.to(device) for name, clip in clips.items()})
            yield from measure.table(self.learner.restorer, self.vectors()[STORED_IN[kind]])


def falling_rate(fraction: float, step: int) -> float:
    """Factor in [0, 1]: warm-up over 200 steps, flat for a seventh of the schedule, then straight down to zero."""
    return min(1.0, (step + 1) / 200) * min(1.0, max(0.0, (1 - fraction) / (1 - 1 / 7)))


def train(settings: Settings) -> None:
    """Run one call, a round at least, until the schedule ends or `stop_after` seconds have passed; measure and save."""
    started = time.monotonic()
    streams = Streams(torch.device(settings.device))
    with streams.training():
        trainer = Trainer(settings, streams)
        trainer.fill_pools()
        if streams.on_gpu:
            torch.cuda.synchronize()
        print(f"ready after {time.monotonic() - started:.0f} s", flush=True)
        before, next_report, reports = trainer.progress.seconds, settings.report_every, 0
        begun = trainer.progress.step
        while True:
            spent = time.monotonic() - started
            trainer.progress.seconds = before + spent
            ended = spent >= settings.stop_after or trainer.progress.seconds >= settings.seconds
            if ended and trainer.progress.step > begun:
                break
            if spent >= next_report:
                reports += 1
                trainer.report(measure=reports % MEASURE_EVERY == 0)
                next_report = max(next_report + settings.report_every, spent)
            trainer.round(trainer.progress.seconds / settings.seconds)
        trainer.report(measure=True)
        if settings.table:
            for line in trainer.final_table():
                print(line, flush=True)


def parse_arguments() -> Settings:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="folder for the state and the learning curve")
    parser.add_argument("--vae", type=Path, default=Path("training/weights/nano_vae_f16.safetensors"))
    parser.add_argument("--seconds", type=float, required=True, help="length of the whole schedule")
    parser.add_argument("--stop-after", type=float, help="length of this call (default: the whole schedule)")
    parser.add_argument("--resume", type=Path, help="folder of an earlier call")
    parser.add_argument("--evaluation", type=Path, help="folder of clips as training.held_out reads them")
    given = {field.name: field.default for field in fields(Settings)}
    for name in ("device", "seed", "matrix_rate", "vector_rate", "structure", "texture", "report_every"):
        parser.add_argument("--" + name.replace("_", "-"), type=type(given[name]), default=given[name])
    parser.add_argument("--table", action="store_true", help="measure the other clips of the folder at the end")
    values = vars(parser.parse_args())
    values["stop_after"] = values["stop_after"] or values["seconds"]
    return Settings(**values)


def main() -> None:
    """Command line."""
    train(parse_arguments())


if __name__ == "__main__":
    main()
