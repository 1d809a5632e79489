"""Walk through the packets of an MPEG transport stream (ISO/IEC 13818-1)."""

from __future__ import annotations

from typing import BinaryIO

import numpy as np

from .parts import Budget, Structure, disorder

_PACKETS = (188, 192, 204)
_SYNC = 0x47
_NULL_PID = 0x1FFF
_PACKETS_AT_ONCE = 20_000


def walk_transport_stream(file: BinaryIO, size_bytes: int, budget: Budget) -> Structure:
    """Look for packets out of step, and for picture or sound of which a packet in the middle is lost.

    A stream's packets are numbered modulo 16. A gap before the start of a picture is left alone: there recordings may
    have been joined. All of the file is read, at the speed of the disk.
    """
    file.seek(0)
    start = file.read(4 * max(_PACKETS))
    for length in _PACKETS:
        offset = 4 if length == 192 else 0
        if len(start) >= 3 * length and all(start[offset + n * length] == _SYNC for n in range(3)):
            break
    else:
        return Structure()
    last: dict[int, int] = {}
    carriers: set[int] = set()
    file.seek(0)
    position = 0
    while data := file.read(_PACKETS_AT_ONCE * length):
        whole = len(data) // length
        packets = np.frombuffer(data, np.uint8, whole * length).reshape(whole, length)[:, offset:]
        place = _first_fault(packets, last, carriers)
        if place is not None:
            return Structure(0, disorder(position + place * length))
        position += whole * length
        if whole * length < len(data):
            return Structure(length - (len(data) - whole * length))
    return Structure()


def _first_fault(packets: np.ndarray, last: dict[int, int], carriers: set[int]) -> int | None:
    """The first packet that is out of step or comes after a lost one; keeps the last number of each stream."""
    stray = np.flatnonzero(packets[:, 0] != _SYNC)
    if len(stray):
        return int(stray[0])
    pids = (packets[:, 1].astype(np.int32) & 0x1F) << 8 | packets[:, 2]
    begins = packets[:, 1] & 0x40 != 0
    # Packets without payload are not numbered. By stream, and within each in the order of the file:
    chosen = np.flatnonzero((packets[:, 3] & 0x10 != 0) & (pids != _NULL_PID))
    chosen = chosen[np.argsort(pids[chosen], kind="stable")]
    if not len(chosen):
        return None
    ends = np.append(np.flatnonzero(np.diff(pids[chosen])) + 1, len(chosen))
    counters = packets[chosen, 3].astype(np.int32) & 0x0F
    before = np.append(0, counters[:-1])
    announced = (packets[chosen, 3] & 0x20 != 0) & (packets[chosen, 4] > 0) & (packets[chosen, 5] & 0x80 != 0)
    faults: list[int] = []
    start = 0
    for end in ends:
        pid = int(pids[chosen[start]])
        before[start] = last.get(pid, counters[start])
        last[pid] = int(counters[end - 1])
        own = chosen[start:end]
        if pid not in carriers and _carries_picture_or_sound(packets[own[begins[own]][:4]]):
            carriers.add(pid)
        lost = ((counters[start:end] - before[start:end]) & 0x0F > 1) & ~begins[own] & ~announced[start:end]
        if pid in carriers and lost.any():
            faults.append(int(own[np.argmax(lost)]))
        start = end
    return min(faults, default=None)


def _carries_picture_or_sound(packets: np.ndarray) -> bool:
    """Whether the packets start with the prefix of a PES packet, after their adaptation field."""
    for packet in packets:
        at = 5 + int(packet[4]) if packet[3] & 0x20 else 4
        if bytes(packet[at : at + 3]) == b"\x00\x00\x01":
            return True
    return False
