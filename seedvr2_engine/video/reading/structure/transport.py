"""The grid of an MPEG transport stream's packets."""

from __future__ import annotations

from typing import BinaryIO

from .parts import Structure

_PACKETS = (188, 192, 204)
_SYNC = 0x47


def walk_transport_stream(file: BinaryIO, size_bytes: int, budget: int) -> Structure:
    """Packets are of one length, so that the last one tells whether any byte between is missing."""
    file.seek(0)
    start = file.read(4 * max(_PACKETS))
    for length in _PACKETS:
        offset = 4 if length == 192 else 0
        if len(start) >= 3 * length and all(start[offset + n * length] == _SYNC for n in range(3)):
            break
    else:
        return Structure()
    whole = size_bytes // length
    count = min(whole, 5)
    file.seek((whole - count) * length)
    tail = file.read(size_bytes)
    if any(tail[offset + n * length] != _SYNC for n in range(count)):
        return Structure(0, "its packets are out of step at its end")
    rest = size_bytes - whole * length
    return Structure(length - rest if rest else 0)
