"""Walk through the packets of an MPEG transport stream (ISO/IEC 13818-1)."""

from __future__ import annotations

from typing import BinaryIO

import numpy as np

from .parts import Structure, disorder

_PACKETS = (188, 192, 204)
_SYNC = 0x47
_NULL_PID = 0x1FFF
_PACKETS_AT_ONCE = 20_000


def walk_transport_stream(file: BinaryIO, size_bytes: int, budget: int) -> Structure:
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
    faults: list[int] = []
    for pid in np.unique(pids):
        number = int(pid)
        # Packets without payload are not numbered.
        chosen = np.flatnonzero((pids == pid) & (packets[:, 3] & 0x10 != 0))
        if number == _NULL_PID or not len(chosen):
            continue
        if number not in carriers and _carries_picture_or_sound(packets[chosen][begins[chosen]]):
            carriers.add(number)
        counters = packets[chosen, 3] & 0x0F
        before = np.concatenate(([last.get(number, int(counters[0]))], counters[:-1]))
        last[number] = int(counters[-1])
        step = (counters.astype(np.int32) - before) & 0x0F
        announced = (packets[chosen, 3] & 0x20 != 0) & (packets[chosen, 4] > 0) & (packets[chosen, 5] & 0x80 != 0)
        lost = (step > 1) & ~begins[chosen] & ~announced
        if number in carriers and lost.any():
            faults.append(int(chosen[np.argmax(lost)]))
    return min(faults, default=None)


def _carries_picture_or_sound(packets: np.ndarray) -> bool:
    """Whether the packets start with the prefix of a PES packet, after their adaptation field."""
    for packet in packets[:4]:
        at = 5 + int(packet[4]) if packet[3] & 0x20 else 4
        if bytes(packet[at : at + 3]) == b"\x00\x00\x01":
            return True
    return False
