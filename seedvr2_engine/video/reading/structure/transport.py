"""Walk through the packets of an MPEG transport stream (ISO/IEC 13818-1)."""

from __future__ import annotations

from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from .parts import Budget, Structure, disorder

_PACKETS = (188, 192, 204)
_SYNC = 0x47
_NULL_PID = 0x1FFF
# What a file begins with whose first packet, of a table, has not been cut off.
_FIRST_OF_TABLE = (b"\x47\x40\x00", b"\x47\x40\x11")
_PACKETS_AT_ONCE = 20_000
_MOST_GAPS = 1000
_SEARCHED_BYTES = 1 << 16
# Marks at one distance from each other: by chance in 1 of 10^14 files.
_AGREEING = 8


def walk_transport_stream(file: BinaryIO, size_bytes: int, budget: Budget) -> Structure:
    """Look for packets out of step, and for picture or sound of which a packet in the middle is lost.

    A stream's packets are numbered modulo 16. A gap before the start of a picture is no fault by itself: there
    recordings may have been joined. All of the file is read, at the speed of the disk.
    """
    found = _first_packet(file)
    if found is None:
        return Structure()
    length, offset, position = found
    file.seek(0)
    start = file.read(3)
    if position >= length or (position and start.startswith(_FIRST_OF_TABLE)):
        return Structure(0, "its start is damaged")
    missing = 0
    last: dict[int, int] = {}
    carriers: set[int] = set()
    gaps: list[int] = []
    headers = _Headers()
    file.seek(position)
    while data := file.read(_PACKETS_AT_ONCE * length):
        whole = len(data) // length
        packets = np.frombuffer(data, np.uint8, whole * length).reshape(whole, length)[:, offset:]
        place, loose = _first_fault(packets, last, carriers)
        gaps += [position + place * length for place in loose[: _MOST_GAPS - len(gaps)]]
        if place is not None:
            return Structure(0, disorder(position + place * length))
        headers.note(packets, position, length)
        position += whole * length
        if whole * length < len(data):
            missing = length - (len(data) - whole * length)
            break
    return Structure(missing, gaps=tuple(sorted(gaps + headers.damaged())), times=headers.times())


class _Headers:
    """What the headers of pictures' PES packets (2.4.3.6) say of times, by stream."""

    def __init__(self) -> None:
        self._times: dict[int, list[NDArray[Any]]] = {}
        self._damaged: list[int] = []
        self._timed = 0

    def note(self, packets: NDArray[Any], position: int, length: int) -> None:
        """Look at packets of a `length`, which begin at a byte of the file."""
        places = np.flatnonzero(packets[:, 1] & 0x40 != 0)
        places = places[_has_prefix(packets[places])]
        begun = packets[places]
        at = np.where(begun[:, 3] & 0x20 != 0, 5 + begun[:, 4].astype(np.int64), 4)
        is_there = at + 14 <= begun.shape[1]
        begun, at, places = begun[is_there], at[is_there], places[is_there]
        fields = begun[np.arange(len(begun))[:, None], at[:, None] + np.arange(14)].astype(np.int64)
        has_time = (fields[:, 3] & 0xF0 == 0xE0) & (fields[:, 7] & 0x80 != 0)
        fields, begun, places = fields[has_time], begun[has_time], places[has_time]
        # A time of 33 bits comes in three parts, each with a bit behind it that is set, and two before the first.
        is_sound = (fields[:, 9] & 0xE1 == 0x21) & (fields[:, 11] & fields[:, 13] & 1 != 0)
        self._timed += len(fields)
        self._damaged += (position + places[~is_sound] * length).tolist()[:_MOST_GAPS]
        found = (fields[:, 9] >> 1 & 7) << 30 | fields[:, 10] << 22 | (fields[:, 11] >> 1) << 15
        found |= fields[:, 12] << 7 | fields[:, 13] >> 1
        pids = (begun[:, 1].astype(np.int64) & 0x1F) << 8 | begun[:, 2]
        for pid in np.unique(pids).tolist():
            self._times.setdefault(pid, []).append(found[pids == pid])

    def times(self) -> dict[int, NDArray[Any]]:
        """The times of presentation (33 bits)."""
        return {pid: np.concatenate(parts) for pid, parts in self._times.items()}

    def damaged(self) -> list[int]:
        """Where headers with a time that cannot be begin; none where a program writes most of them that way."""
        return self._damaged[:_MOST_GAPS] if len(self._damaged) * 2 < self._timed else []


def _first_packet(file: BinaryIO) -> tuple[int, int, int] | None:
    """(length of a packet, bytes of it before its mark, where the first begins); None if it is another kind of file.

    A recording that was begun in mid-air may start within a packet; many marks must agree for packets to be found in
    other bytes than the first.
    """
    file.seek(0)
    start = np.frombuffer(file.read(_SEARCHED_BYTES), np.uint8)
    for length in _PACKETS:
        offset = 4 if length == 192 else 0
        if len(start) >= 3 * length and (start[offset : offset + 3 * length : length] == _SYNC).all():
            return length, offset, 0
    marks = start == _SYNC
    for length in _PACKETS:
        offset = 4 if length == 192 else 0
        count = len(start) - (_AGREEING - 1) * length
        if count <= 0:
            continue
        agree = np.logical_and.reduce([marks[n * length : n * length + count] for n in range(_AGREEING)])
        if agree.any():
            return length, offset, max(0, int(np.argmax(agree)) - offset)
    return None


def _first_fault(packets: NDArray[Any], last: dict[int, int], carriers: set[int]) -> tuple[int | None, list[int]]:
    """The first packet that is out of step or comes after a lost one, and all that begin something after a gap.

    Keeps the last number of each stream.
    """
    stray = np.flatnonzero(packets[:, 0] != _SYNC)
    if len(stray):
        return int(stray[0]), []
    pids = (packets[:, 1].astype(np.int32) & 0x1F) << 8 | packets[:, 2]
    begins = packets[:, 1] & 0x40 != 0
    # Packets without payload are not numbered. By stream, and within each in the order of the file:
    chosen = np.flatnonzero((packets[:, 3] & 0x10 != 0) & (pids != _NULL_PID))
    chosen = chosen[np.argsort(pids[chosen], kind="stable")]
    if not len(chosen):
        return None, []
    ends = np.append(np.flatnonzero(np.diff(pids[chosen])) + 1, len(chosen))
    counters = packets[chosen, 3].astype(np.int32) & 0x0F
    before = np.append(0, counters[:-1])
    announced = (packets[chosen, 3] & 0x20 != 0) & (packets[chosen, 4] > 0) & (packets[chosen, 5] & 0x80 != 0)
    faults: list[int] = []
    loose: list[int] = []
    start = 0
    for end in ends:
        pid = int(pids[chosen[start]])
        before[start] = last.get(pid, counters[start])
        last[pid] = int(counters[end - 1])
        own = chosen[start:end]
        if pid not in carriers and _has_prefix(packets[own[begins[own]][:4]]).any():
            carriers.add(pid)
        if pid in carriers:
            jumps = ((counters[start:end] - before[start:end]) & 0x0F > 1) & ~announced[start:end]
            headless = begins[own]
            headless[headless] = ~_has_prefix(packets[own[headless]])
            faults += own[(jumps & ~begins[own]) | headless].tolist()[:1]
            loose += own[jumps & begins[own]].tolist()
        start = end
    return min(faults, default=None), sorted(loose)


def _has_prefix(packets: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Whether each packet starts, after its adaptation field, as picture and sound do (a PES packet's prefix)."""
    at = np.where(packets[:, 3] & 0x20 != 0, 5 + packets[:, 4].astype(np.int32), 4)
    at = np.minimum(at, packets.shape[1] - 3)
    rows = np.arange(len(packets))
    begins: NDArray[np.bool_] = (packets[rows, at] == 0) & (packets[rows, at + 1] == 0) & (packets[rows, at + 2] == 1)
    return begins
