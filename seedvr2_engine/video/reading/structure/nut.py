"""The end of a NUT file."""

from __future__ import annotations

from typing import BinaryIO

from .parts import Budget, Structure

NUT_SIGNATURE = b"nut/multimedia container\0"
_INDEX = bytes.fromhex("4e58dd672f23e64e")


def walk_nut(file: BinaryIO, size_bytes: int, budget: Budget) -> Structure:
    """A file that was finished ends with an index, which tells where it begins in its last bytes."""
    if size_bytes < 64:
        return Structure(1)
    file.seek(size_bytes - 12)
    length = int.from_bytes(file.read(8), "big")
    if not 20 <= length <= size_bytes:
        return Structure(0, "its end, with its index, is missing")
    file.seek(size_bytes - length)
    return Structure() if file.read(8) == _INDEX else Structure(0, "its end, with its index, is missing")
