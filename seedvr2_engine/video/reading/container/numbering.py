"""The numbers that MPEG-1 and MPEG-2 give pictures and groups of them, by which lost ones show (ISO/IEC 13818-2)."""

from __future__ import annotations

import re
from array import array
from itertools import pairwise
from typing import Any

import av
import numpy as np

_PICTURE, _GROUP, _SEQUENCE = b"\0\0\1\0", b"\0\0\1\xb8", b"\0\0\1\xb3"
_START = re.compile(rb"\x00\x00\x01(.)", re.DOTALL)
# The headers of a sequence and their extensions, with all the matrices that there can be (6.2.2.1, 6.2.2.3).
_LONGEST_BYTES = {0xB3: 140, 0xB5: 16}
_PICTURE_OR_SLICE = re.compile(rb"\x00\x00\x01([\x00-\xaf])", re.DOTALL)
_GROUP_BYTES = 8
_INTRA = 1
_CODECS = frozenset(("mpeg1video", "mpeg2video"))
# A larger step between two groups' times is a cut that somebody made.
_MOST_LOST = 32


class NumberWatch:
    """Looks at the headers of one stream's pictures, in the order of the file.

    Those of a group are numbered from 0 in the order in which they are shown (6.3.9). Without the ones before its first
    key frame a group is whole: editors leave out pictures that refer to the group before. Pictures that a group lacks
    at its end show in the time codes (6.3.8), if those go on by the number of pictures nearly everywhere.
    """

    def __init__(self, codec: str, rate: float) -> None:
        """Start with FFmpeg's name of the codec and pictures a second; streams of others are not looked at."""
        self._is_numbered = codec in _CODECS
        self._is_plain = codec == "mpeg1video"
        self._rate = round(rate)
        self._numbers: set[int] = set()
        self._key: int | None = None
        self._is_group = False
        self._count = 0
        self._begins = array("q")
        self._times = array("q")
        self._lacking = array("q")
        self._cut = array("q")
        self._headless = 0
        self._first_headless: int | None = None
        self.first_empty: int | None = None
        """The first picture without a slice, which every one has (6.2.2.6)."""

    def note(self, packet: av.Packet[Any]) -> None:
        """Look at a packet, which holds one picture, or both fields of one."""
        if not self._is_numbered:
            return
        self._note_slices(packet)
        head = bytes(packet)
        at = head.find(_PICTURE)
        group = head.rfind(_GROUP, 0, max(0, at))
        if at > 0:
            self._note_headless(_sequence_without_pictures(head[:at]))
        if group >= 0:
            # A group begins with a picture (6.2.2): whoever has a second header before it has lost that of the first.
            self._note_headless(head.count(_GROUP, 0, group))
            self._note_headless(_is_overwritten(head[group + _GROUP_BYTES : at]))
            self._end_group()
            self._is_group = True
            self._begins.append(self._count)
            self._times.append(self._time(int.from_bytes(head[group + 4 : group + 8], "big") >> 7))
        if 0 <= at <= len(head) - 6 and self._is_group:
            number = head[at + 4] << 2 | head[at + 5] >> 6
            if not self._numbers and head[at + 5] >> 3 & 7 == _INTRA:
                self._key = number
            self._numbers.add(number)
        self._count += 1

    def _note_slices(self, packet: av.Packet[Any]) -> None:
        row, is_begun = 0, False
        for match in _PICTURE_OR_SLICE.finditer(memoryview(packet)):
            # A slice has the number of its row, from 1; in MPEG-2 several may share one.
            code = match[1][0]
            if 0 < code < row:
                self._note_headless(1)
            if is_begun and not code:
                self._note_empty()
            row, is_begun = code, not code
        if is_begun:
            self._note_empty()

    def _note_empty(self) -> None:
        if self.first_empty is None:
            self.first_empty = self._count

    def _note_headless(self, pictures: int) -> None:
        if pictures and self._first_headless is None:
            self._first_headless = self._count
        self._headless += pictures

    def _time(self, code: int) -> int:
        """The pictures up to a time code: drop, hours, minutes, a mark, seconds, pictures in 1, 5, 6, 1, 6, 6 bits."""
        minutes = (code >> 19 & 31) * 60 + (code >> 13 & 63)
        return (minutes * 60 + (code >> 6 & 63)) * self._rate + (code & 63)

    def _end_group(self) -> None:
        if self._is_group:
            spread = max(self._numbers) - min(self._numbers) + 1 if self._numbers else 0
            self._lacking.append(spread - len(self._numbers))
            key = self._key or 0
            self._cut.append(key - sum(number < key for number in self._numbers))
        self._numbers.clear()
        self._key = None

    def lost(self) -> tuple[int, int] | None:
        """(how many pictures are lost, the first one of the first group that lacks some); to be called at the end."""
        self._end_group()
        self._is_group = False
        lacking = np.array(self._lacking, np.int64)
        begins, times = np.array(self._begins, np.int64), np.array(self._times, np.int64)
        steps = np.diff(times) - np.diff(begins) - np.array(self._cut, np.int64)[:-1]
        by_time = np.where((steps > 0) & (steps <= _MOST_LOST), steps, 0)
        # Pulldown of MPEG-2 shows more pictures than there are, and editors leave time codes as they were.
        agreeing = np.count_nonzero(steps == 0) * 2 >= len(steps)
        if agreeing or (self._is_plain and (steps >= 0).all()):
            lacking[:-1] = np.maximum(lacking[:-1], by_time)
        groups = np.flatnonzero(lacking)
        if len(groups) and lacking.sum() >= self._headless:
            return int(lacking.sum()), int(begins[groups[0]])
        return None if self._first_headless is None else (self._headless, self._first_headless)


def _is_overwritten(between: bytes) -> bool:
    """Whether what lies between a group's header and its first picture is more than zeros, extensions and user data."""
    rest = between.lstrip(b"\0")
    return bool(rest) and not rest.startswith((b"\1\xb2", b"\1\xb5"))


def _sequence_without_pictures(head: bytes) -> bool:
    """Whether what precedes a picture begins one sequence, goes on with what is no header, and begins another.

    Programs that copy streams are known to write the headers of a sequence twice, one behind the other.
    """
    first, last = head.find(_SEQUENCE), head.rfind(_SEQUENCE)
    starts = [(match.start(), match[1][0]) for match in _START.finditer(head, first, last + 4)] if first < last else []
    return any(end - begin > _LONGEST_BYTES.get(code, end) for (begin, code), (end, _) in pairwise(starts))
