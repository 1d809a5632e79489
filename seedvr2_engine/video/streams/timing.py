"""Where a packet stands: in the source, and in the output."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av


@dataclass(frozen=True)
class Placed:
    """A packet and its place in time; its own fields keep what the source's container says."""

    packet: av.Packet[Any]
    time_s: Fraction | None
    """When it begins in the source; None if nobody knows."""
    shift_s: Fraction
    """What is subtracted from the packet's own times to get the output's."""


def place(packet: av.Packet[Any], shift_s: Fraction) -> Placed:
    """The one place where the times of side streams are read. `shift_s`: how much earlier the output is."""
    ticks = packet.pts if packet.pts is not None else packet.dts
    return Placed(packet, None if ticks is None else ticks * packet.time_base, shift_s)
