"""What a job is divided into, by its plan alone: never by the machines that run it, their speed or their number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...errors import InvalidArgumentError
from ...pipeline.chunks import Entry
from ...pipeline.memory import Division
from ...pipeline.options import UpscaleOptions
from ..shot import Shot
from .entry import entry_at, first_frames

UNIT_PIXELS = 250_000_000
"""Pixels of the results of a unit, at most but for the last chunk: 270 frames of 1280x720, a minute at 4.5 a second."""
UNITS_PER_JOB = 32
"""Into about so many units a job is divided at least, so that several devices end at about the same time."""


@dataclass(frozen=True)
class Unit:
    """Neighbouring chunks of one shot."""

    number: int
    """Its place in the job."""
    shot: Shot
    first_chunk: int
    """Of the shot."""
    stop_chunk: int
    """The chunk after its last one."""
    start: int
    """The first frame that it gives, counted in those that the source gives."""
    stop: int
    """The frame after the last one that it gives."""
    entry: Entry
    """Where the work begins where the unit before was not computed just now."""

    @property
    def frames(self) -> int:
        """How many it gives."""
        return self.stop - self.start

    @property
    def reads_from(self) -> int:
        """The first frame of the source that is read for it, where the unit before was not computed just now."""
        return self.shot.start + self.entry.first_frame

    @property
    def warm_up_frames(self) -> int:
        """Frames that are read only so that its own become right."""
        return self.start - self.reads_from

    def follows(self, other: Unit) -> bool:
        """Whether whoever has just computed the other one goes on with it."""
        return self.shot == other.shot and self.number == other.number + 1


def unit_length(frames: int, output: tuple[int, int]) -> int:
    """Frames of a unit for a clip of so many frames whose results are (height, width); chunks are not cut for it."""
    height, width = output
    most = max(1, UNIT_PIXELS // (height * width))
    return most if frames <= most else min(most, max(1, frames // UNITS_PER_JOB))


def cut_units(shots: Sequence[Shot], division: Division, options: UpscaleOptions, length: int) -> tuple[Unit, ...]:
    """Divide shots into units of about `length` frames, which begin where chunks of the transformer do."""
    units: list[Unit] = []
    for shot in shots:
        begins = first_frames(division, options, len(shot))
        # Chunks of nothing but frames put before the shot belong to the first unit.
        borders = [0]
        for chunk, begin in enumerate(begins):
            if begin > 0 and begin >= max(0, begins[borders[-1]]) + length:
                borders.append(chunk)
        for first, stop in zip(borders, [*borders[1:], len(begins)], strict=True):
            start = shot.start + max(0, begins[first])
            end = shot.stop if stop == len(begins) else shot.start + begins[stop]
            entry = entry_at(first, division, options, len(shot))
            units.append(Unit(len(units), shot, first, stop, start, end, entry))
    return tuple(units)


def check_shots(shots: Sequence[Shot], frames: int) -> None:
    """Raise InvalidArgumentError unless shots follow each other from a source's first frame to its last."""
    expected = 0
    for shot in shots:
        if shot.start != expected:
            raise InvalidArgumentError(
                f"shots: expected one that begins at frame {expected}, where the one before ends, got {shot.start}."
            )
        expected = shot.stop
    if expected != frames:
        raise InvalidArgumentError(
            f"shots: expected the last one to end with the clip after {frames} frames, got {expected}; find them anew."
        )
