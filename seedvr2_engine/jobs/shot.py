"""A shot: frames that belong together, of which none has anything to do with the frames before."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from ..errors import InvalidArgumentError

Border = Literal["start", "cut", "fade", "given"]
"""How a shot begins: with the clip; at once, from one frame to the next; out of black or white, in which the shot
before ended; or where somebody said so."""
BORDERS: tuple[Border, ...] = get_args(Border)


@dataclass(frozen=True)
class Shot:
    """One shot, counted in the frames that a source gives: its frame 0 is the first one that the pipeline gets."""

    start: int
    """Its first frame."""
    stop: int
    """The frame after its last one."""
    border: Border = "start"
    """What it begins with."""

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.stop:
            raise InvalidArgumentError(
                f"shot: expected at least one frame, from 0 on, got frames {self.start} to before {self.stop}."
            )
        if self.border not in BORDERS:
            raise InvalidArgumentError(f"shot: expected a border out of {', '.join(BORDERS)}, got {self.border!r}.")

    def __len__(self) -> int:
        return self.stop - self.start


def whole(frames: int) -> tuple[Shot, ...]:
    """All frames of a source as one shot."""
    return (Shot(0, frames),)


def divided(frames: int, borders: Iterable[tuple[int, Border]]) -> tuple[Shot, ...]:
    """The shots of a source of so many frames that begin at these frames, in order, between 1 and `frames` - 1."""
    starts: list[tuple[int, Border]] = [(0, "start"), *borders]
    stops = [start for start, _ in starts[1:]] + [frames]
    return tuple(Shot(start, stop, border) for (start, border), stop in zip(starts, stops, strict=True))
