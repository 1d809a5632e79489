"""What is said about a source and an output: before the work what is known by then, the rest when it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..terminal.console import warn

if TYPE_CHECKING:
    from ...video import FrameSink, FrameSource


class Told:
    """Prints the warnings of a source and a sink, each once."""

    def __init__(self, *places: FrameSource | FrameSink) -> None:
        self._places: list[tuple[FrameSource | FrameSink, int]] = [(place, 0) for place in places]

    def also(self, place: FrameSource | FrameSink) -> None:
        """Add one."""
        self._places.append((place, 0))

    def tell(self) -> None:
        """Print what is new."""
        for index, (place, told) in enumerate(self._places):
            for sentence in place.warnings[told:]:
                warn(sentence)
            self._places[index] = (place, len(place.warnings))
