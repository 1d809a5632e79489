"""What a pass over the packets of a file finds."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field

from ..timeline import Timeline
from .size_change import SizeChange


@dataclass(frozen=True)
class PacketScan:
    """What the coded pictures of a stream say; times in ticks of the stream, on the timeline."""

    count: int
    """Pictures that are shown, if every one decodes."""
    first_pts: int | None
    end_pts: int | None
    shortest_step: int
    longest_step: int
    timeline: Timeline = field(default_factory=Timeline)
    faults: tuple[str, ...] = ()
    """What is missing or out of order, each as a clause."""
    missing: int = 0
    """Pictures that the file promises and does not hold."""
    size_change: SizeChange | None = None
    leading: int = 0
    """Pictures at the start, and after each join, that refer to ones before the first key frame there; decoders leave
    them out."""
    before_key: int = 0
    """Packets before the file's first key frame."""
    is_counted: bool = False
    """Whether the file says how many pictures it has."""
    has_field_packets: bool = False
    """Whether the two fields of a frame come as packets of their own, which are counted as one picture."""


@dataclass
class Collected:
    """What the pass over the packets gathers of the video stream."""

    pts: array[int] = field(default_factory=lambda: array("q"))
    durations: array[int] = field(default_factory=lambda: array("q"))
    dts: array[int] = field(default_factory=lambda: array("q"))
    numbers: array[int] = field(default_factory=lambda: array("q"))
    positions: array[int] = field(default_factory=lambda: array("q"))
    packets: int = 0
    untimed: int = 0
    shown: int = 0
    end_byte: int = 0
    corrupt: list[int] = field(default_factory=list)
    keys: array[int] = field(default_factory=lambda: array("b"))
    odd_order_s: float = 0.0
    error: str | None = None
    size_change: SizeChange | None = None
    has_field_packets: bool = False
    lost: tuple[int, int] | None = None
