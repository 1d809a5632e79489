"""Time, memory and rates of an upscaling: every stage by itself, all models together, and from file to file."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from ..engine.dit.fused import FusedDiT
from ..engine.served_vae import engine_of
from ..errors import InvalidArgumentError
from ..models.dit.flop import velocity_flop
from ..models.dit.noise import latent_noise
from ..pipeline.chunks import latent_count
from ..pipeline.clip_stages import Models
from ..pipeline.forecast import matrix_rate
from ..pipeline.memory import limit_engine
from ..pipeline.prefetch import prefetched
from ..pipeline.reconstruct import VideoCodec
from ..pipeline.resize import ResizePlan
from ..pipeline.upscaler import Upscaler
from ..plan import VAEShape
from ..plan.execution_plan import Part
from ..video import Frame, FrameSink, SinkOptions, open_sink, open_source
from .stage_runs import StageRuns
from .vae import matrix_tflops, plan_flops

VELOCITY_TOLERANCE = 5e-2
"""Largest relative RMS error of the velocity against the plain model's with PyTorch's own attention."""


@dataclass(frozen=True)
class StageTime:
    """What one stage took."""

    name: str
    milliseconds: float
    """Median over the repeats, for all frames of the clip."""
    frames_per_s: float
    peak_bytes: int | None
    """The most memory on the GPU while it ran, weights included; None on a CPU."""
    flop: float | None
    """Floating-point operations of matrix products and convolutions; None where there are none to speak of."""
    share: float | None
    """Share of the rate of a large matrix product in the same process and number format; of several models together,
    the time that their products would take at those rates over the time they took."""


@dataclass(frozen=True)
class StageWork:
    """The arithmetic of a stage."""

    flop: float
    """Floating-point operations of matrix products and convolutions."""
    least_seconds: float
    """What they would take at the rate of a large matrix product of their number format."""

    def __add__(self, other: StageWork) -> StageWork:
        return StageWork(self.flop + other.flop, self.least_seconds + other.least_seconds)


def check_models(upscaler: Upscaler) -> None:
    """Refuse to measure models that give wrong numbers: raises InvalidArgumentError.

    The velocity of a small clip must be finite, the same three times, and that of the plain model with PyTorch's own
    attention.
    """
    dit, device = upscaler.dit, upscaler.dit.device
    shape = (3, 16, 24)
    video = latent_noise(0, range(shape[0]), shape[1:], channels=dit.config.in_channels, device=device)
    text = latent_noise(1, range(1), (1, 7), channels=dit.config.text_width, device=device)[0, 0]
    conditioning = dit.conditioning(text, 1000.0)
    plain = dit.plain if isinstance(dit, FusedDiT) else dit
    fast, slow = dit.geometry(shape, 7), plain.geometry(shape, 7, attention="sdpa")
    with torch.no_grad():
        first, *others = (dit.velocity(video, fast, conditioning) for _ in range(3))
        expected = plain.velocity(video, slow, conditioning).float()
    error = float((first.float() - expected).norm() / expected.norm())
    same = all(torch.equal(first, other) for other in others)
    if not torch.isfinite(expected).all() or not same or error > VELOCITY_TOLERANCE:
        raise InvalidArgumentError(
            f"transformer: expected finite velocities, the same every time and within {VELOCITY_TOLERANCE:g} of "
            f"the plain model's, found an error of {error:.3g}; nothing is timed."
        )


class Stopwatch:
    """Times work on one device."""

    def __init__(self, device: torch.device, repeats: int) -> None:
        self._device = device
        self._repeats = repeats

    def measure(self, run: Callable[[], object], *, warm_up: bool = True) -> tuple[float, int | None]:
        """Median milliseconds over the repeats, and peak bytes on a GPU."""
        if warm_up:
            run()
        cuda = self._device.type == "cuda"
        if cuda:
            torch.cuda.reset_peak_memory_stats(self._device)
        times_ms = []
        for _ in range(self._repeats):
            self._finish()
            began = time.perf_counter()
            run()
            self._finish()
            times_ms.append((time.perf_counter() - began) * 1e3)
        return statistics.median(times_ms), torch.cuda.max_memory_allocated(self._device) if cuda else None

    def _finish(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


def bench_upscale(
    upscaler: Upscaler, models: Models, resize: ResizePlan, frames: int, repeats: int
) -> Iterator[StageTime]:
    """Measure every stage on a clip of so many random frames, as soon as the models have passed their check."""
    check_models(upscaler)
    # As much memory as the engine has in a run of `seedvr2 upscale`.
    limit_engine(upscaler.vae, upscaler.plan(resize.source))
    device = upscaler.vae.device
    watch = Stopwatch(device, repeats)
    rate = matrix_rate(device, upscaler.dit.dtype)
    runs = StageRuns(models, upscaler.options, resize, frames)

    def stage(name: str, run: Callable[[], object], work: StageWork | None) -> StageTime:
        with torch.no_grad():
            milliseconds, peak = watch.measure(run)
        flop, share = None, None
        if work is not None:
            flop, share = work.flop, work.least_seconds / (milliseconds / 1e3)
        return StageTime(name, milliseconds, frames / milliseconds * 1e3, peak, flop, share)

    def coded(part: Part, run: Callable[[], object]) -> StageWork:
        return _engine_work(upscaler.vae, part, resize, frames) or _counted_work(run, rate)

    with torch.no_grad():
        encode, decode = coded("encode", runs.encode), coded("decode", runs.decode)
    # Kernels and CUDA graphs hide the transformer's products from the counter.
    cell = upscaler.vae.config.spatial_compression
    shape = latent_count(frames), resize.padded[0] // cell, resize.padded[1] // cell
    flop = velocity_flop(upscaler.dit.config, upscaler.dit.geometry(shape, models.text_tokens)).total
    transform = StageWork(flop, flop / rate)
    yield stage("encode", runs.encode, encode)
    yield stage("transformer", runs.transform, transform)
    yield stage("decode", runs.decode, decode)
    yield stage("colours", runs.color, None)

    def models_alone() -> None:
        runs.encode()
        runs.transform()
        runs.decode()

    yield stage("encode + transformer + decode", models_alone, encode + transform + decode)
    yield stage("all, frames in memory", lambda: _use_up(upscaler.upscale(runs.source)), None)
    with TemporaryDirectory() as folder:
        files = _Files(Path(folder), resize, runs.source)
        yield stage("reading and writing", files.copy, None)
        yield stage("all, from file to file", lambda: files.upscale(upscaler), None)


class _Files:
    """A clip on the disk, and a place for the result."""

    def __init__(self, folder: Path, resize: ResizePlan, frames: Iterable[Tensor]) -> None:
        self._source, self._target = folder / "in.mp4", folder / "out.mp4"
        self._resize = resize
        self._options = SinkOptions(overwrite=True, preset="veryfast")
        height, width = resize.source
        with open_sink(self._source, width=width, height=height, options=self._options) as sink:
            for frame in frames:
                sink.write(frame)

    def copy(self) -> None:
        """Read every frame, and write as many of the result's size."""
        blank = torch.rand(3, *self._resize.output)
        with open_source(self._source) as clip, self._sink() as sink:
            for _ in clip:
                sink.write(blank)

    def _sink(self) -> FrameSink:
        height, width = self._resize.output
        return open_sink(self._target, width=width, height=height, options=self._options)

    def upscale(self, upscaler: Upscaler) -> None:
        """Read, upscale and write, each ahead of the next as `seedvr2 upscale` does it."""
        with open_source(self._source) as clip:
            coded = clip.coded(pinned=upscaler.vae.device.type == "cuda")
            pictures = prefetched((frame.rgb if isinstance(frame, Frame) else frame for frame in coded), 4)
            with self._sink() as sink:
                encoded = None if sink.coding is None else sink.coding.of_picture
                for codes in prefetched(upscaler.upscale(pictures, encoded=encoded), 4):
                    sink.write_coded(codes)


def _engine_work(vae: VideoCodec, part: Part, resize: ResizePlan, frames: int) -> StageWork | None:
    """What an engine computes by its plan, for no counter sees into its kernels; None for the plain model."""
    engine = engine_of(vae)
    if engine is None:
        return None
    tflops = matrix_tflops(engine.recipe.precision, engine.device)
    flop = float(plan_flops(engine.plan(VAEShape(part, *resize.padded)), frames))
    return None if tflops is None else StageWork(flop, flop / (tflops * 1e12))


def _counted_work(run: Callable[[], object], rate: float) -> StageWork:
    """Counted in a run that is not timed. rate: FLOP a second of a large matrix product."""
    with FlopCounterMode(display=False) as counter:
        run()
    flop = float(counter.get_total_flops())
    return StageWork(flop, flop / rate)


def _use_up(frames: Iterable[Tensor]) -> None:
    for _ in frames:
        pass
