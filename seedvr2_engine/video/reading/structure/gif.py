"""Walk through a GIF's blocks (GIF89a)."""

from __future__ import annotations

from typing import BinaryIO

from .parts import Budget, Structure, disorder

_IMAGE, _EXTENSION, _TRAILER = 0x2C, 0x21, 0x3B
_CONTROL = b"\x21\xf9\x04"  # Starts the next picture of an animation.
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


def _table_bytes(packed: int) -> int:
    return 3 << ((packed & 7) + 1) if packed & 0x80 else 0
