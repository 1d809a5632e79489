"""Which frames of a source a run takes, and how they are read."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from ..spans import span

if TYPE_CHECKING:
    from ..video import FrameSource
    from ..video.reading.fields.decide import Deinterlace, Detelecine
    from ..video.reading.source import Damaged


@dataclass(frozen=True)
class Cut:
    """Which frames of a source are read."""

    start: int = 0
    """Frames to skip."""
    frames: int | None = None
    """Frames to take; all if None."""
    damaged: Damaged = "refuse"
    """What happens where it is damaged."""
    rate: Fraction | None = None
    """Frames per second of a sequence of pictures; the usual one if None."""
    deinterlace: Deinterlace = "auto"
    """What becomes of interlaced frames."""
    detelecine: Detelecine = "auto"
    """What becomes of film with 3:2 pulldown."""

    def open(self, source: str) -> FrameSource:
        """These frames of a source."""
        from ..video import open_source

        with span("opening"):
            return open_source(
                source,
                start=self.start,
                frames=self.frames,
                damaged=self.damaged,
                sequence_rate=self.rate,
                deinterlace=self.deinterlace,
                detelecine=self.detelecine,
            )
