"""Walk through the parts of an MXF file (SMPTE 377-1): a key, a length and a value each."""

from __future__ import annotations

from typing import BinaryIO

from .parts import Budget, Structure, disorder, lacking

MXF_KEY = b"\x06\x0e\x2b\x34"


def walk_mxf(file: BinaryIO, size_bytes: int, budget: Budget) -> Structure:
    """Follow the lengths to the end; only what is cut within a part is found, for the last part may be any."""
    position = 0
    while position < size_bytes:
        budget.spend()
        file.seek(position)
        head = file.read(25)
        if not head.startswith(MXF_KEY) and len(head) >= 4:
            return Structure(0, disorder(position))
        if len(head) < 17:
            return Structure(17 - len(head))
        width = head[16] & 0x7F if head[16] & 0x80 else 0
        if width > 8:
            return Structure(0, disorder(position))
        length = int.from_bytes(head[17 : 17 + width], "big") if width else head[16]
        position += 17 + width + length
    return Structure(lacking(position, size_bytes))
