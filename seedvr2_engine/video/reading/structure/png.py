"""Walk through a PNG's chunks, those of an animated one (APNG) included."""

from __future__ import annotations

import zlib
from typing import BinaryIO

from .parts import Budget, Structure, disorder, lacking

_ANIMATION = (b"acTL", b"fcTL", b"fdAT")
_MOST_PICTURES = (1 << 31) - 1
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


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
