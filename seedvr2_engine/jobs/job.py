"""A job: one clip from file to file, divided into units by its plan alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from ..pipeline.memory import Division
from ..pipeline.options import UpscaleOptions
from ..pipeline.setup import ModelFiles, Setup, plan_setup
from ..video import SinkOptions, SourceInfo
from ..video.writing.pictures.animation_sink import is_animation
from .cut import Cut
from .shot import Shot, whole
from .units.unit import Unit, check_shots, cut_units, unit_length


@dataclass(frozen=True)
class Precisions:
    """Number formats and places of the models, as `plan_setup` takes them."""

    vae: str = "auto"
    dit: str = "auto"
    offload: str = "auto"

    def setup(self, models: ModelFiles, device: torch.device) -> Setup:
        """What will run on a device."""
        return plan_setup(models, device, precision=self.vae, dit_precision=self.dit, offload=self.offload)


@dataclass(frozen=True)
class JobOptions:
    """How a job is run, beside what is computed."""

    shots: tuple[Shot, ...] | None = None
    """Where models, noise and colours start anew; None takes the clip as one shot."""
    restart: bool = False
    """Whether units of earlier runs are thrown away."""
    keeps_folder: bool = False
    """Whether the job's folder stays when the output is finished."""
    unit_frames: int | None = None
    """Frames of a unit at least, chunks apart; None follows from the clip."""


@dataclass(frozen=True)
class Job:
    """One clip, or sequence of pictures, that is to be upscaled."""

    source: str
    target: Path
    models: ModelFiles
    options: UpscaleOptions
    sink: SinkOptions
    cut: Cut = field(default_factory=Cut)
    precisions: Precisions = field(default_factory=Precisions)
    job: JobOptions = field(default_factory=JobOptions)


@dataclass(frozen=True)
class JobPlan:
    """What a job is divided into."""

    division: Division
    shots: tuple[Shot, ...]
    units: tuple[Unit, ...]

    def resolved(self, options: UpscaleOptions) -> UpscaleOptions:
        """The options with nothing left open, so that every device cuts the clip alike."""
        chunks = self.division.chunks
        return replace(
            options, chunk_frames=chunks.chunk_frames, overlap=chunks.overlap, vae_span=self.division.vae_span
        )


def plan_units(
    info: SourceInfo, setup: Setup, options: UpscaleOptions, job: JobOptions, division: Division | None = None
) -> JobPlan:
    """Divide the frames that are read of a source; raises InvalidArgumentError for shots that are not its.

    division: how its chunks are cut, where that is known from an earlier run; by default as fits on the setup's device.
    """
    frames, size = info.selected_frames, (info.height, info.width)
    shots = whole(frames) if job.shots is None else job.shots
    check_shots(shots, frames)
    division = division or setup.plan(options, size).division
    output = options.resize(size).output
    length = unit_length(frames, output) if job.unit_frames is None else job.unit_frames
    return JobPlan(division, shots, cut_units(shots, division, options, length))


def can_be_divided(target: Path, info: SourceInfo, cut: Cut) -> bool:
    """Whether a clip can be done in units.

    Not where frames may be missing, of which only reading says how many; and animated pictures are no clips.
    """
    return cut.damaged == "refuse" and info.kind != "image" and not is_animation(target, info)


def needs_folder(units: Sequence[Unit]) -> bool:
    """Whether finished units are kept: there are several."""
    return len(units) > 1
