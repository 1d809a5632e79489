"""What a job tells while it runs, in order; plain values, which also pass from process to process."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ...pipeline.clip_stages import Stage
from ...pipeline.memory import Division
from ..units.unit_file import Stored


@dataclass(frozen=True)
class Remarked:
    """A sentence that a user should read."""

    sentence: str


@dataclass(frozen=True)
class Planned:
    """Before the first unit begins."""

    shots: int
    units: int
    frames: int
    finished_units: int
    """By earlier runs."""
    finished_frames: int
    """By earlier runs."""
    folder: Path
    """Where finished units are."""


@dataclass(frozen=True)
class UnitStarted:
    """A device begins with a unit."""

    device: str
    """Its name, with a number where it is named several times: cuda:0, cpu (2)."""
    unit: int
    warm_up_frames: int
    """Frames that are computed only so that the unit's own become right; 0 where the device goes on."""


@dataclass(frozen=True)
class UnitAdvanced:
    """A frame of a unit has passed a stage, or its warm-up's."""

    device: str
    unit: int
    stage: Stage
    done: int
    """Frames of the unit that are finished."""


@dataclass(frozen=True)
class UnitFinished:
    """A unit is in the job's folder."""

    device: str
    unit: int
    stored: Stored
    seconds: float


@dataclass(frozen=True)
class UnitFailed:
    """A unit was not finished, and is given out again unless the job ends with this."""

    device: str
    unit: int | None
    """None where the device failed before it had one."""
    reason: str
    """One sentence."""
    attempt: int
    is_final: bool = False
    """Whether another attempt would end in the same way."""


@dataclass(frozen=True)
class Joined:
    """So many frames are in the output."""

    frames: int


@dataclass(frozen=True)
class Finished:
    """The output has its name."""

    output: Path
    frames: int
    seconds: float
    warnings: tuple[str, ...]
    """What could not be kept, in sentences."""
    division: Division
    """How chunks were cut, by the run that began the job."""


Event = Remarked | Planned | UnitStarted | UnitAdvanced | UnitFinished | UnitFailed | Joined | Finished
