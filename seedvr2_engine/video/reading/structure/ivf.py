"""Walk through the frames of an IVF file."""

from __future__ import annotations

from typing import BinaryIO

from .parts import Budget, Structure, lacking


def walk_ivf(file: BinaryIO, size_bytes: int, budget: Budget) -> Structure:
    """Follow the frames' lengths to the end; the count in the header is left at 0 by some writers."""
    file.seek(6)
    header = file.read(26)
    position = int.from_bytes(header[:2], "little")
    promised = int.from_bytes(header[18:22], "little")
    pictures = 0
    while position < size_bytes:
        budget.spend()
        file.seek(position)
        length = int.from_bytes(file.read(12)[:4], "little")
        position += 12 + length
        pictures += 1
    return Structure(lacking(position, size_bytes), None, (max(pictures, promised if promised < size_bytes else 0),))
