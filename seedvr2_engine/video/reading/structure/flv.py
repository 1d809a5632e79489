"""Walk through an FLV file's tags (Adobe's specification, annex E)."""

from __future__ import annotations

import struct
from array import array
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median_low
from typing import BinaryIO

from .parts import Budget, Structure, disorder

_TAGS = frozenset((8, 9, 18))
_WRAPPING = (6, 7)
_METADATA_BYTES = 1 << 14
_FILE_SIZE = b"\0\x08filesize\0"
_LONGEST_FILE = 1 << 50
# The head of a tag, and the first bytes of what it holds; no more of it is read.
_READ = 16
# Recorders mark silence with sounds of one byte or none.
_SHORTEST = 5
# A string, with which the data of a script begins.
_NAME = 2


def walk_flv(file: BinaryIO, size_bytes: int, budget: Budget) -> Structure:
    """Walk the tags, and count those that hold a picture: no codec header, end of sequence, or command."""
    file.seek(5)
    position = int.from_bytes(file.read(4), "big") + 4
    pictures, disguised = 0, _Disguised()
    length_before, is_followed = None, False
    while position < size_bytes:
        budget.spend()
        file.seek(position)
        tag = file.read(_READ)
        if length_before is not None:
            # Each tag is followed by its length; some writers leave that out everywhere.
            file.seek(position - 4)
            follows = int.from_bytes(file.read(4), "big") == length_before
            if is_followed and not follows:
                return Structure(0, disorder(position - 4), (pictures,))
            is_followed = is_followed or follows
        if len(tag) < 11:
            return Structure(11 - len(tag), None, (pictures,))
        kind, length = tag[0] & 0x1F, int.from_bytes(tag[1:4], "big")
        if kind not in _TAGS:
            return Structure(0, disorder(position), (pictures,))
        end = position + 11 + length
        if length > _SHORTEST and len(tag) == _READ:
            time_ms = int.from_bytes(tag[7:8] + tag[4:7], "big")
            if kind != 9:
                disguised.note_other(kind, time_ms, tag[11:])
            elif _holds_picture(tag[11:]):
                pictures += 1
                disguised.note_picture(time_ms, tag[11:])
        if end > size_bytes:
            return Structure(end + 4 - size_bytes, None, (pictures,))
        position, length_before = end + 4, 11 + length
    # A file that is cut between two tags looks whole but for the length that its writer noted.
    missing = max(0, _noted_bytes(file) - size_bytes)
    pictures += disguised.count()
    return Structure(missing, None, (pictures,) if pictures else ())


def _noted_bytes(file: BinaryIO) -> int:
    """The length of the file by its first tag's `filesize`, a number in eight bytes; 0 if it is not there."""
    file.seek(0)
    head = file.read(_METADATA_BYTES)
    at = head.find(_FILE_SIZE)
    data = head[at + len(_FILE_SIZE) : at + len(_FILE_SIZE) + 8]
    if at < 0 or len(data) < 8:
        return 0
    (noted,) = struct.unpack(">d", data)
    return int(noted) if 0 < noted < _LONGEST_FILE else 0


def _holds_picture(data: bytes) -> bool:
    if data[0] & 0x80:
        # Enhanced FLV: coded frames are packet types 1 and 3. All but the last two, which are put before others, go on
        # with the letters of a codec; what does not is a picture that something was written over.
        kind = data[0] & 0x0F
        return kind in (1, 3) or (kind not in _WRAPPING and not data[1:5].isalnum())
    frame, codec = data[0] >> 4, data[0] & 0x0F
    return frame != 5 and (codec not in (7, 12) or data[1] == 1)


def _mark(data: bytes) -> bytes:
    """What all pictures of a clip begin with: the codec, and what each codec's first field says of it."""
    return data[1:5] if data[0] & 0x80 else bytes([data[0] & 0x0F, data[1]])


@dataclass
class _Disguised:
    """Pictures whose tag was made one of sound or of a script; a demuxer plays them, or skips them, as that.

    Such a tag goes on as the clip's pictures do and lies where one is due, and no other sound beside it is of its
    kind: a recording that another is joined to may have other sound from there on, but never for one tag alone.
    """

    _times: array[int] = field(default_factory=lambda: array("q"))
    _marks: set[bytes] = field(default_factory=set)
    _found: list[tuple[int, int, bytes]] = field(default_factory=list)
    """(pictures before it, its time in ms, its mark) of each tag that may be one."""
    _sound: int | None = None
    """The kind of the sound before, by its first byte."""
    _lone: tuple[int, int, bytes] | None = None
    """That sound itself, while it is the only one of its kind in its place."""

    def note_picture(self, time_ms: int, data: bytes) -> None:
        self._times.append(time_ms)
        self._marks.add(_mark(data))

    def note_other(self, kind: int, time_ms: int, data: bytes) -> None:
        this = (len(self._times), time_ms, _mark(data)) if _holds_picture(data) else None
        if kind != 8:
            if this is not None and data[0] != _NAME:
                self._found.append(this)
            return
        if data[0] == self._sound:
            self._lone = None
            return
        if self._lone is not None:
            self._found.append(self._lone)
        self._sound, self._lone = data[0], this

    def count(self) -> int:
        """How many there are; to be called at the end."""
        found = [*self._found, self._lone] if self._lone is not None else self._found
        if not found or len(self._times) < 2:
            return 0
        step = median_low(after - before for before, after in pairwise(self._times))
        return sum(mark in self._marks and self._is_due(place, time, step) for place, time, mark in found)

    def _is_due(self, place: int, time_ms: int, step: int) -> bool:
        """Whether between the pictures around, or behind the last, there is room for another."""
        around = self._times[max(0, place - 1) : place + 1]
        return all(abs(time_ms - time) > step / 2 for time in around)
