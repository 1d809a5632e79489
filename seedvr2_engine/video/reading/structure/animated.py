"""Walks through animated pictures: a GIF's blocks (GIF89a), and a PNG's chunks, those of APNG included."""

from __future__ import annotations

import re
import zlib
from pathlib import Path
from typing import BinaryIO

from .parts import Budget, Structure, disorder, lacking

_ANIMATION = (b"acTL", b"fcTL", b"fdAT")
_MOST_PICTURES = (1 << 31) - 1
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_IMAGE, _EXTENSION, _TRAILER = 0x2C, 0x21, 0x3B
_CONTROL = b"\x21\xf9\x04"  # Starts the next picture of an animation.
_CONTROLLED_IMAGE = re.compile(rb"\x21\xf9\x04.{4}\x00\x2c", re.DOTALL)
_SEARCHED_BYTES = 1 << 20


def walk_gif(file: BinaryIO, size_bytes: int, budget: Budget) -> Structure:
    """Count the pictures up to the trailer; the length of a picture's data is the sum of its sub-blocks."""
    file.seek(10)
    packed = file.read(3)[:1]
    position = 13 + _table_bytes(packed[0] if packed else 0)
    pictures = 0
    while True:
        budget.spend()
        file.seek(position)
        head = file.read(10)
        if not head:
            return Structure(1, None, (pictures,))
        if head[0] == _TRAILER:
            is_early = _CONTROL in head + file.read(_SEARCHED_BYTES)
            return Structure(0, disorder(position) if is_early else None, (pictures,))
        if head[0] == _IMAGE and len(head) == 10:
            position += 11 + _table_bytes(head[9])
        elif head[0] == _EXTENSION:
            position += 2
        elif head[0] in (_IMAGE, _EXTENSION):
            return Structure(1, None, (pictures,))
        else:
            return Structure(0, disorder(position), (pictures,))
        file.seek(position)
        while length := (file.read(1) or b"\0")[0]:
            budget.spend()
            position += 1 + length
            if position >= size_bytes:
                return Structure(position + 1 - size_bytes, None, (pictures,))
            file.seek(position)
        position += 1
        pictures += head[0] == _IMAGE


def is_gif_remark(packet: bytes) -> bool:
    """Whether what a demuxer takes for an image is nothing but whole extension blocks, as remarks before the end."""
    at = 0
    while at + 2 < len(packet) and packet[at] == _EXTENSION:
        at += 2
        while at < len(packet) and packet[at]:
            at += 1 + packet[at]
        at += 1
    return at > 0 and packet[at:] in (b"", bytes([_TRAILER]))


def holds_gif_images(path: Path) -> bool:
    """Whether images of a GIF lie in the first part of a file, whatever it begins with; raises OSError."""
    with path.open("rb") as file:
        return _CONTROLLED_IMAGE.search(file.read(_SEARCHED_BYTES)) is not None


def _table_bytes(packed: int) -> int:
    return 3 << ((packed & 7) + 1) if packed & 0x80 else 0


def walk_png(file: BinaryIO, size_bytes: int, budget: Budget) -> Structure:
    """Check the chunks' sums up to the last one, and count an animation's pictures.

    A writer that was killed leaves no number of pictures, or one that cannot be: then those that began count.
    """
    position, promised, frames = 8, 0, 0
    while True:
        budget.spend()
        file.seek(position)
        head = file.read(8)
        length = int.from_bytes(head[:4], "big")
        end = position + 12 + length
        if len(head) < 8 or end > size_bytes:
            return Structure(max(1, lacking(end, size_bytes)), None, _pictures(promised, frames))
        kind = head[4:]
        data = file.read(length)
        # Writers of comments are known to get their sums wrong; those do not matter.
        is_critical = kind[:1].isupper() or kind in _ANIMATION
        is_sound = zlib.crc32(kind + data) == int.from_bytes(file.read(4), "big")
        if not kind.isalpha() or (is_critical and not is_sound):
            return Structure(0, disorder(position), _pictures(promised, frames))
        if kind == b"acTL" and length == 8:
            promised = int.from_bytes(data[:4], "big")
        frames += kind == b"fcTL"
        if kind == b"IEND":
            break
        position = end
    return Structure(0, None, _pictures(promised, frames) if frames else ())


def _pictures(promised: int, begun: int) -> tuple[int, ...]:
    count = promised if promised <= _MOST_PICTURES else begun
    return (count,) if count else ()
