"""Set right how long the picture of a finished MP4 or MOV is.

FFmpeg's muxer forgets, with every fragment, the latest time it has seen. Where frames are reordered and the last one to
be shown lies before the last fragment, the index is too short by a frame or two, and players cut these off.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from fractions import Fraction
from math import ceil
from pathlib import Path

from .mp4_boxes import last_box

_NESTED = frozenset((b"trak", b"mdia", b"edts"))
_TIMES_BYTES = {0: 4, 1: 8}
"""Bytes of a time by the version of the box."""


def set_video_length(path: Path, seconds: Fraction) -> bool:
    """Make the first track of a finished file at least this long; False if the file has no index at its end."""
    with path.open("r+b") as file:
        end = file.seek(0, os.SEEK_END)
        start = last_box(file, end)
        if start is None:
            return False
        file.seek(start)
        moov = bytearray(file.read(end - start))
        if moov[4:8] != b"moov":
            return False
        before, boxes = bytes(moov), dict(_first_boxes(moov, 8, len(moov)))
        if not boxes.keys() >= {b"mvhd", b"tkhd", b"mdhd"}:
            return False
        _lengthen(moov, boxes, seconds)
        if moov != before:
            file.seek(start)
            file.write(moov)
    return True


def _lengthen(moov: bytearray, boxes: dict[bytes, int], seconds: Fraction) -> None:
    """Change the lengths of the movie, its first track, that track's edit list and media, in place."""
    movie_ticks, place, size = _scale(moov, boxes[b"mvhd"])
    _raise_to(moov, place, size, ceil(seconds * movie_ticks))
    ticks, media, media_size = _scale(moov, boxes[b"mdhd"])
    _raise_to(moov, media, media_size, ceil(seconds * ticks))
    length = ceil(seconds * movie_ticks)
    if b"elst" in boxes:
        length = _lengthen_edits(moov, boxes[b"elst"], length)
        _raise_to(moov, place, size, length)
    header = boxes[b"tkhd"]
    width = _TIMES_BYTES[moov[header]]
    # Version and flags, two times, the track's number, four empty bytes.
    _raise_to(moov, header + 4 + 2 * width + 8, width, length)


def _lengthen_edits(moov: bytearray, at: int, length: int) -> int:
    """Make the last part of an edit list this long; returns the length of all its parts."""
    width = _TIMES_BYTES[moov[at]]
    count = int.from_bytes(moov[at + 4 : at + 8], "big")
    parts = [at + 8 + index * (2 * width + 4) for index in range(count)]
    if not parts:
        return length
    _raise_to(moov, parts[-1], width, length)
    return sum(int.from_bytes(moov[part : part + width], "big") for part in parts)


def _scale(moov: bytearray, at: int) -> tuple[int, int, int]:
    """Ticks a second of a movie's or media's header, and where its length lies, in how many bytes."""
    width = _TIMES_BYTES[moov[at]]
    place = at + 4 + 2 * width
    return int.from_bytes(moov[place : place + 4], "big"), place + 4, width


def _raise_to(moov: bytearray, place: int, width: int, value: int) -> None:
    value = min(value, (1 << 8 * width) - 2)  # All ones means that it is not known.
    if int.from_bytes(moov[place : place + width], "big") < value:
        moov[place : place + width] = value.to_bytes(width, "big")


def _first_boxes(moov: bytearray, start: int, end: int) -> Iterator[tuple[bytes, int]]:
    """(name, place of its content) of the movie's header and what the first track holds."""
    has_track = False
    while start + 8 <= end:
        size, name = int.from_bytes(moov[start : start + 4], "big"), bytes(moov[start + 4 : start + 8])
        if size < 8:
            return
        if name in _NESTED and not (name == b"trak" and has_track):
            has_track |= name == b"trak"
            yield from _first_boxes(moov, start + 8, start + size)
        elif name != b"trak":
            yield name, start + 8
        start += size
