"""What a command asks for, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from ..terminal.console import per_second

if TYPE_CHECKING:
    from ...jobs.cut import Cut
    from ...jobs.job import JobOptions, Precisions
    from ...jobs.shots.choice import ShotChoice
    from ...pipeline.options import UpscaleOptions
    from ...pipeline.setup import Setup
    from ...pipeline.upscaler import Upscaler
    from ...video import SinkOptions


@dataclass(frozen=True)
class Job:
    """One input and one output."""

    source: str
    """A clip, a picture, a folder or pattern of pictures."""
    target: Path
    makes_folder: bool = False
    """Whether the target's folder is made: where it is for several results."""

    @property
    def is_done(self) -> bool:
        """Whether it is of a folder and has its output, which only ever appears whole; its own input is none."""
        target = self.target
        if not self.makes_folder or not target.is_file() or target.stat().st_size == 0:
            return False
        return not target.samefile(self.source)


@dataclass(frozen=True)
class Result:
    """What one job came to."""

    output: Path
    frames: int
    source_size: tuple[int, int]
    """(width, height)"""
    size: tuple[int, int]
    """(width, height)"""
    chunk_frames: int
    overlap: int
    seconds: float
    encoder_wait_seconds: float | None = None
    """How long computing stood still because the results before had not been written; None where it is not measured, in
    units."""
    missing_frames: int = 0
    """Frames that the source promises and that could not be read."""
    is_incomplete: bool = False
    """Whether anything is missing from the source, be it that nobody knows how many frames."""

    def describe(self) -> str:
        """One line for people."""
        chunks = f", chunks of {self.chunk_frames} frames" if self.frames > 1 else ""
        overlap = f" that share {self.overlap}" if chunks and self.overlap and self.frames > self.chunk_frames else ""
        return (
            f"{self.output}: {self.frames} frame{'s' if self.frames > 1 else ''}, "
            f"{self.source_size[0]}x{self.source_size[1]} to {self.size[0]}x{self.size[1]}, in {self.seconds:.1f} s "
            f"({per_second(self.frames, self.seconds)}){chunks}{overlap}"
        )


@dataclass(frozen=True)
class Request:
    """What all jobs of a command share."""

    setup: Setup
    options: UpscaleOptions
    sink: SinkOptions
    cut: Cut
    work: JobOptions | None = None
    """How long clips are done in units; None does none in units."""
    precisions: Precisions | None = None
    """What was asked for of the models' number formats."""
    shots: ShotChoice = "off"
    """Where models, noise and colours start anew."""
    devices: tuple[str, ...] | None = None
    """Devices that were named; None is the setup's own."""

    def begins(self, job: Job) -> bool:
        """Whether a job is to be done: it is not skipped because its output is there."""
        return self.sink.overwrite or not job.is_done

    @cached_property
    def upscaler(self) -> Upscaler:
        """The models, loaded when the first job has found its files in order."""
        return self.setup.load(self.options)
