"""Walk through an AVI file's chunks (RIFF, and OpenDML's further RIFF parts) and count its pictures."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import BinaryIO

from .parts import Budget, Structure, disorder, lacking

_UNKNOWN = 0xFFFFFFFF
_LISTS = frozenset((b"RIFF", b"LIST"))
_OPENED = frozenset((b"AVI ", b"AVIX", b"hdrl", b"strl", b"movi", b"rec "))


@dataclass
class _AviWalk:
    """What a walk found."""

    end: int = 0
    """Where the file must end by its own account."""
    fault: str | None = None
    videos: list[int] = field(default_factory=list)
    """Numbers of the video streams, in the order of the file."""
    pictures: dict[int, int] = field(default_factory=dict)
    """Chunks that hold a picture, by the number of the stream."""
    slots: dict[int, int] = field(default_factory=dict)
    """Chunks of pictures, those included that are empty because the picture before is shown again."""
    is_whole: bool = False


def walk_riff(file: BinaryIO, size_bytes: int, budget: Budget) -> Structure:
    """Walk an AVI file; of other RIFF files, WebP and WAV, only the end is looked at."""
    file.seek(0)
    head = file.read(12)
    if head[8:12] != b"AVI ":
        end = 8 + int.from_bytes(head[4:8], "little") if head[8:12] == b"WEBP" else 0
        return Structure(lacking(end, size_bytes))
    walk = _walk_avi(file, size_bytes, budget)
    missing = lacking(walk.end, size_bytes)
    if not walk.is_whole and walk.fault is None:
        return Structure(missing)
    pictures = tuple(walk.pictures.get(number, 0) for number in walk.videos)
    return Structure(missing, walk.fault, pictures, tuple(walk.slots.get(number, 0) for number in walk.videos))


def _walk_avi(file: BinaryIO, size_bytes: int, budget: Budget) -> _AviWalk:
    walk = _AviWalk()
    ends = [size_bytes]
    position, streams = 0, 0
    while position + 8 <= size_bytes:
        budget.spend()
        while position >= ends[-1] and len(ends) > 1:
            ends.pop()
        file.seek(position)
        head = file.read(12)
        kind, length = head[:4], int.from_bytes(head[4:8], "little")
        if not all(32 <= letter < 127 for letter in kind):
            if len(ends) > 1:
                walk.fault = disorder(position)
            # After the last part there may be anything.
            walk.is_whole = position >= walk.end
            return walk
        # Written to a pipe, the longest parts are of unknown length.
        end = size_bytes if length == _UNKNOWN else position + 8 + length
        if kind == b"RIFF":
            walk.end = end
        elif end > ends[-1] + 1 and len(ends) > 1 and ends[-1] < size_bytes:
            walk.fault = f"a part at byte {position} is longer than what it lies in"
            return walk
        if kind in _LISTS and head[8:12] in _OPENED:
            ends.append(end)
            position += 12
            continue
        if kind == b"strh":
            if head[8:12] == b"vids":
                walk.videos.append(streams)
            streams += 1
        elif kind[2:] in (b"dc", b"db") and kind[:2].isdigit() and end <= size_bytes:
            number = int(kind[:2])
            walk.slots[number] = walk.slots.get(number, 0) + 1
            walk.pictures[number] = walk.pictures.get(number, 0) + (length > 0)
        position = end + (length & 1)
    walk.is_whole = True
    return walk
