"""Set right how long an MP4 shows its pictures.

FFmpeg's muxer takes the end of a track from the packet that begins the last fragment. Where that fragment holds only
frames which are shown before the last one of the fragment before it, the edit list ends a frame or more too early, and
players do not show these frames. Boxes: ISO/IEC 14496-12, 8.6.6 (elst), 8.3.2 (tkhd), 8.2.2 (mvhd), 8.4.2 (mdhd).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO, NamedTuple


class _Box(NamedTuple):
    name: bytes
    start: int
    """Where its content begins."""
    end: int


def show_to_the_end(path: Path, pictures_s: Fraction) -> None:
    """Make the edit list of the video track at least as long as its pictures last; nothing is ever made shorter.

    A file without an edit list, or with boxes that are not as FFmpeg writes them, stays as it is.
    """
    with path.open("r+b") as file:
        place = _index_of(file)
        if place is None:
            return
        file.seek(place.start)
        moov = bytearray(file.read(place.end - place.start))
        if _lengthen(moov, pictures_s):
            file.seek(place.start)
            file.write(moov)


def _lengthen(moov: bytearray, pictures_s: Fraction) -> bool:
    header = _find(moov, 0, len(moov), b"mvhd")
    track = next((box for box in _boxes(moov, 0, len(moov)) if box.name == b"trak" and _is_video(moov, box)), None)
    if header is None or track is None:
        return False
    track_header = _find(moov, track.start, track.end, b"tkhd")
    edits = _find(moov, track.start, track.end, b"edts", b"elst")
    scale = int.from_bytes(moov[header.start + (20 if moov[header.start] else 12) :][:4], "big")
    if track_header is None or edits is None or not scale:
        return False
    wide = 8 if moov[edits.start] else 4
    count = int.from_bytes(moov[edits.start + 4 : edits.start + 8], "big")
    entries = [edits.start + 8 + index * (2 * wide + 4) for index in range(count)]
    if not entries or entries[-1] + 2 * wide + 4 > edits.end:
        return False
    last = entries[-1]
    wanted = round(pictures_s * scale)
    if wanted <= _number(moov, last, wide) or wanted >= 1 << (8 * wide):
        return False
    moov[last : last + wide] = wanted.to_bytes(wide, "big")
    total = sum(_number(moov, entry, wide) for entry in entries)
    headers = [(track_header, 8, total), (header, 4, total)]
    media = _find(moov, track.start, track.end, b"mdia", b"mdhd")
    if media is not None:
        own_scale = _number(moov, media.start + (20 if moov[media.start] else 12), 4)
        headers.append((media, 4, round(pictures_s * own_scale)))
    # Creation, modification, and in a track's header its number and a gap, in the others the time scale.
    for box, skipped, length in headers:
        long = moov[box.start] == 1
        at, size = box.start + 4 + (16 if long else 8) + skipped, 8 if long else 4
        if _number(moov, at, size) < length < 1 << (8 * size):
            moov[at : at + size] = length.to_bytes(size, "big")
    return True


def _number(data: bytearray, at: int, size: int) -> int:
    return int.from_bytes(data[at : at + size], "big")


def _is_video(moov: bytearray, track: _Box) -> bool:
    handler = _find(moov, track.start, track.end, b"mdia", b"hdlr")
    return handler is not None and moov[handler.start + 8 : handler.start + 12] == b"vide"


def _find(data: bytearray, start: int, end: int, *names: bytes) -> _Box | None:
    """The first box along a path of names."""
    found = next((box for box in _boxes(data, start, end) if box.name == names[0]), None)
    return found if found is None or len(names) == 1 else _find(data, found.start, found.end, *names[1:])


def _boxes(data: bytearray, start: int, end: int) -> Iterator[_Box]:
    while start + 8 <= end:
        size = int.from_bytes(data[start : start + 4], "big")
        if size < 8 or start + size > end:
            return
        yield _Box(bytes(data[start + 4 : start + 8]), start + 8, start + size)
        start += size


def _index_of(file: BinaryIO) -> _Box | None:
    """The last `moov` box of a file."""
    found, place, length = None, 0, file.seek(0, os.SEEK_END)
    while place + 8 <= length:
        file.seek(place)
        head = file.read(16)
        size, begin = int.from_bytes(head[:4], "big"), 8
        if size == 1:
            size, begin = int.from_bytes(head[8:16], "big"), 16
        if size < begin or place + size > length:
            break
        if head[4:8] == b"moov":
            found = _Box(b"moov", place + begin, place + size)
        place += size
    return found
