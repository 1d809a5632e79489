"""What a walk through a file's outer structure finds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray


@dataclass(frozen=True)
class Structure:
    """A file by its own account."""

    missing_bytes: int = 0
    """Bytes that it lacks at its end."""
    fault: str | None = None
    """The first thing that is out of order, as a clause: "something is out of order at byte 123"."""
    pictures: tuple[int, ...] = ()
    """Coded pictures of each video stream, in the order of the streams; empty where the format does not say."""
    slots: tuple[int, ...] = ()
    """Places for pictures, which AVI leaves empty where a picture is shown again."""
    gaps: tuple[int, ...] = ()
    """Bytes before which something between two pictures or sounds may be missing, or where recordings were joined."""
    times: Mapping[int, NDArray[Any]] = field(default_factory=dict)
    """Times at which pictures begin, by the number (PID) of a transport stream's picture stream, in its ticks."""
    is_forged: bool = False
    """Whether it is made of so many tiny parts that reading it would take forever, and that no writer makes."""


class TooManyPartsError(Exception):
    """A file of tiny parts that no writer makes, whose walk would take long."""


class Budget:
    """How many parts of a file may be looked at."""

    def __init__(self, size_bytes: int) -> None:
        self._left = 100_000 + size_bytes // 64

    def spend(self, parts: int = 1) -> None:
        """Count parts; raises TooManyPartsError at the end of the budget."""
        self._left -= parts
        if self._left < 0:
            raise TooManyPartsError


def lacking(end: int, size_bytes: int) -> int:
    """Bytes between the end of a file and the end that it claims."""
    return max(0, end - size_bytes)


def disorder(position: int) -> str:
    """The clause for whatever does not belong at a place."""
    return f"something is out of order at byte {position}"
