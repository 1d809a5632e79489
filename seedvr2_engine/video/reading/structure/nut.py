"""The index at the end of a NUT file, and whether the file's synchronisation points are where it says."""

from __future__ import annotations

from typing import BinaryIO

from .parts import Budget, Structure, disorder

NUT_SIGNATURE = b"nut/multimedia container\0"
_INDEX = bytes.fromhex("4e58dd672f23e64e")
_SYNCPOINT = bytes.fromhex("4e4be4adeeca4569")
_NO_INDEX = "its end, with its index, is missing"
_LONGEST_UNCHECKED = 4096
_UNIT_BYTES = 16
_LARGEST_INDEX = 1 << 28


def walk_nut(file: BinaryIO, size_bytes: int, budget: Budget) -> Structure:
    """A file that was finished ends with an index, which tells where it begins in its last bytes.

    The index has the places of all synchronisation points, of which there are several a second.
    """
    if size_bytes < 64:
        return Structure(1)
    file.seek(size_bytes - 12)
    length = int.from_bytes(file.read(8), "big")
    if not 20 <= length <= min(size_bytes, _LARGEST_INDEX):
        return Structure(0, _NO_INDEX)
    file.seek(size_bytes - length)
    data = file.read(length)
    if not data.startswith(_INDEX):
        return Structure(0, _NO_INDEX)
    forward, at = _number(data, len(_INDEX))
    at += 4 if forward > _LONGEST_UNCHECKED else 0
    _, at = _number(data, at)
    count, at = _number(data, at)
    unit = 0
    for _ in range(count):
        budget.spend()
        step, at = _number(data, at)
        unit += step
        if at >= length or unit * _UNIT_BYTES >= size_bytes:
            return Structure(0, "its index is damaged")
        file.seek(unit * _UNIT_BYTES)
        if _SYNCPOINT not in file.read(_UNIT_BYTES + len(_SYNCPOINT)):
            return Structure(0, disorder(unit * _UNIT_BYTES))
    return Structure()


def _number(data: bytes, at: int) -> tuple[int, int]:
    """A number in groups of seven bits, the highest first, and where it ends."""
    value = 0
    while at < len(data):
        value = value << 7 | data[at] & 0x7F
        at += 1
        if not data[at - 1] & 0x80:
            break
    return value, at
