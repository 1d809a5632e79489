"""The few facts of Matroska's track headers (RFC 9559) that PyAV does not give: how a picture is cropped and shown."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ...info import Crop

EBML, SEGMENT, TRACKS, TRACK_ENTRY, VIDEO = 0x1A45DFA3, 0x18538067, 0x1654AE6B, 0xAE, 0xE0
TRACK_TYPE, PIXEL_WIDTH, PIXEL_HEIGHT = 0x83, 0xB0, 0xBA
_CROPS = {"left": 0x54CC, "top": 0x54BB, "right": 0x54DD, "bottom": 0x54AA}
VIDEO_TRACK = 1
# A forged file may claim anything.
_LARGEST_TRACKS_BYTES = 16 << 20
_MOST_ELEMENTS = 200_000


@dataclass(frozen=True)
class Element:
    """One EBML element within some bytes; `end` is where the next one begins."""

    id: int
    start: int
    data: int
    """Where its content begins."""
    end: int


@dataclass(frozen=True)
class VideoTrack:
    """The stored size of a video track, and what of it is not shown."""

    width: int
    height: int
    crop: Crop


def video_tracks(path: Path) -> list[VideoTrack]:
    """The video tracks of a Matroska file in their order; empty for other files and damaged headers."""
    with path.open("rb") as file:
        place = find_tracks(file)
        if place is None:
            return []
        file.seek(place[0])
        tracks = file.read(place[1] - place[0])
    found = []
    for entry in elements(tracks, 0, len(tracks)):
        if entry.id == TRACK_ENTRY:
            fields = {field.id: field for field in elements(tracks, entry.data, entry.end)}
            if number(tracks, fields.get(TRACK_TYPE)) == VIDEO_TRACK and VIDEO in fields:
                found.append(_video_track(tracks, fields[VIDEO]))
    return found


def find_tracks(file: BinaryIO) -> tuple[int, int] | None:
    """Where the content of the Tracks element begins and ends in a file; None if there is none."""
    size_bytes = file.seek(0, 2)
    file.seek(0)
    head = _read_head(file)
    if head is None or head[0] != EBML or head[1] is None:
        return None
    if head[1] >= size_bytes:
        return None
    file.seek(head[1], 1)
    segment = _read_head(file)
    if segment is None or segment[0] != SEGMENT:
        return None
    for _ in range(_MOST_ELEMENTS):
        head = _read_head(file)
        if head is None or head[1] is None:
            return None
        if head[0] == TRACKS:
            start = file.tell()
            return (start, start + head[1]) if head[1] <= _LARGEST_TRACKS_BYTES else None
        if head[1] >= size_bytes:
            return None
        file.seek(head[1], 1)
    return None


def elements(data: bytes, start: int, end: int) -> Iterator[Element]:
    """The elements that lie side by side in data[start:end]; ends at the first that does not fit."""
    position = start
    while position < end:
        id_width = 9 - data[position].bit_length()
        if id_width > 4 or position + id_width >= end:
            return
        identity = int.from_bytes(data[position : position + id_width], "big")
        first = data[position + id_width]
        width = 9 - first.bit_length()
        content = position + id_width + width
        if width > 8 or content > end:
            return
        size = int.from_bytes(data[position + id_width : content], "big") & ((1 << (7 * width)) - 1)
        if content + size > end:
            return
        yield Element(identity, position, content, content + size)
        position = content + size


def number(data: bytes, element: Element | None) -> int:
    """An unsigned integer, 0 for a missing element."""
    return 0 if element is None else int.from_bytes(data[element.data : element.end], "big")


def _video_track(data: bytes, video: Element) -> VideoTrack:
    fields = {field.id: field for field in elements(data, video.data, video.end)}
    crop = Crop(**{side: number(data, fields.get(identity)) for side, identity in _CROPS.items()})
    return VideoTrack(number(data, fields.get(PIXEL_WIDTH)), number(data, fields.get(PIXEL_HEIGHT)), crop)


def _read_head(file: BinaryIO) -> tuple[int, int | None] | None:
    """The next element's identity and size, None for an unknown size; None at the end or at damage."""
    first = file.read(1)
    if not first or first[0] < 0x10:
        return None
    identity = int.from_bytes(first + file.read(8 - first[0].bit_length()), "big")
    first = file.read(1)
    if not first or first[0] == 0:
        return None
    width = 9 - first[0].bit_length()
    size = int.from_bytes(bytes([first[0] & ((1 << (8 - width)) - 1)]) + file.read(width - 1), "big")
    return identity, None if size == (1 << (7 * width)) - 1 else size
