"""Walk through the boxes of an MP4 or MOV file (ISO/IEC 14496-12)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import BinaryIO

from .parts import Budget, Structure, disorder, lacking

FIRST_BOXES = frozenset({b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"moof", b"styp", b"sidx", b"pnot"})
_MEDIA_BOXES = (b"moof", b"mdat", b"moov")
_TOP_BOXES = FIRST_BOXES | {b"mfra", b"uuid", b"meta", b"emsg", b"prft", b"ssix", b"udta", b"PICT", b"pict", b"junk"}
_OPENED = frozenset({b"moov", b"trak", b"mdia", b"minf", b"stbl", b"moof", b"traf"})
_DEEPEST = 6
_FULL_BOX_BYTES = 64
_SEARCHED_BYTES = 1 << 20


@dataclass
class _Track:
    """What the boxes say of one track; its samples are None without a table."""

    number: int = 0
    is_video: bool = False
    samples: int | None = None


@dataclass
class _Walk:
    file: BinaryIO
    size: int
    budget: Budget
    tracks: list[_Track] = field(default_factory=list)
    fragment_track: int = 0
    in_fragments: dict[int, int] = field(default_factory=dict)
    fault: str | None = None


def walk_boxes(file: BinaryIO, size_bytes: int, budget: Budget) -> Structure:
    """Walk the top-level boxes to the end that the last one claims, and count the samples of the video tracks."""
    walk = _Walk(file, size_bytes, budget)
    position = 0
    while position + 8 <= size_bytes:
        walk.budget.spend()
        kind, begin, end = _box(walk, position, size_bytes)
        if end < begin or kind not in _TOP_BOXES:
            # Bytes after the last box, or a box of somebody's own, which FFmpeg ignores too, unless more boxes follow.
            file.seek(begin)
            rest = file.read(_SEARCHED_BYTES if end < begin else min(end - begin, _SEARCHED_BYTES))
            if any(box in rest for box in _MEDIA_BOXES):
                walk.fault = walk.fault or disorder(position)
            if end < begin or not kind.isascii():
                break
        if kind in _OPENED:
            _children(walk, begin, min(end, size_bytes), is_fragment=kind == b"moof")
        position = end
    counts = tuple(
        (track.samples or 0) + walk.in_fragments.get(track.number, 0) for track in walk.tracks if track.is_video
    )
    return Structure(lacking(position, size_bytes), walk.fault, counts)


def _box(walk: _Walk, position: int, parent_end: int) -> tuple[bytes, int, int]:
    """(type, where its data begin, where it ends) of the box at a position; an end before the beginning is wrong."""
    walk.file.seek(position)
    header = walk.file.read(16)
    length, begin = int.from_bytes(header[:4], "big"), position + 8
    if length == 0:
        return header[4:8], begin, parent_end
    if length == 1:
        length, begin = int.from_bytes(header[8:16], "big"), position + 16
    return header[4:8], begin, position + length


def _children(walk: _Walk, position: int, parent_end: int, *, is_fragment: bool, depth: int = 0) -> None:
    while position + 8 <= parent_end:
        walk.budget.spend()
        kind, begin, end = _box(walk, position, parent_end)
        # A box that reaches to the end of what it lies in is zeros: QuickTime ends some of its boxes with them.
        if end < begin or end > parent_end or (is_fragment and not kind.isalnum()):
            walk.fault = walk.fault or disorder(position)
            return
        if kind == b"trak":
            walk.tracks.append(_Track())
        if kind in _OPENED and depth < _DEEPEST:
            _children(walk, begin, end, is_fragment=is_fragment, depth=depth + 1)
        else:
            walk.file.seek(begin)
            _note(walk, kind, walk.file.read(min(end - begin, _FULL_BOX_BYTES)), end - begin)
        position = end


def _note(walk: _Walk, kind: bytes, data: bytes, length: int) -> None:
    track = walk.tracks[-1] if walk.tracks else None
    if kind == b"tfhd":
        walk.fragment_track = int.from_bytes(data[4:8], "big")
    elif kind == b"trun":
        count = int.from_bytes(data[4:8], "big")
        walk.in_fragments[walk.fragment_track] = walk.in_fragments.get(walk.fragment_track, 0) + count
    elif track is not None and kind == b"tkhd" and data:
        at = 20 if data[0] == 1 else 12
        track.number = int.from_bytes(data[at : at + 4], "big")
    elif track is not None and kind == b"hdlr":
        track.is_video = track.is_video or data[8:12] == b"vide"
    elif track is not None and kind == b"stsz":
        fixed, count = int.from_bytes(data[4:8], "big"), int.from_bytes(data[8:12], "big")
        if not fixed and 12 + 4 * count > length:
            walk.fault = walk.fault or "its table of pictures is damaged"
        else:
            track.samples = count
