"""Walk through the packs of an MPEG program stream (MPG, VOB; ISO/IEC 13818-1, 2.5, and 11172-1)."""

from __future__ import annotations

import re
from typing import BinaryIO

from .parts import Budget, Structure, disorder

PACK = b"\0\0\1\xba"
_START = re.compile(rb"\x00\x00\x01[\xb9-\xff]")
_ANY_START = b"\0\0\1"
_PACK, _END = 0xBA, 0xB9
_VIDEO = range(0xE0, 0xF0)
# Between two packs there may be any number of zeros, and some programs fill up with ones.
_FILLING = b"\0\xff"
_SEARCHED_BYTES = 1 << 16


def walk_program_stream(file: BinaryIO, size_bytes: int, budget: Budget) -> Structure:
    """Look for bytes between two packets that belong to none: a packet before them was cut or has grown.

    What comes behind the mark of the end or all packets is no fault, and neither is a last packet that the file's end
    cuts off: recordings end anywhere.
    """
    position, is_over = 0, False
    while position < size_bytes:
        budget.spend()
        file.seek(position)
        head = file.read(14)
        if _START.match(head):
            length = _length(head)
            if length is None:
                return Structure(0, disorder(position))
            if not length:
                return Structure()  # Of unknown length, which no standard allows and some recorders write.
            position, is_over = position + length, head[3] == _END
            continue
        found = _behind_filling(file, position)
        if found is None:
            is_lost = not is_over and _holds_start(file, position)
            return Structure(0, disorder(position) if is_lost else None)
        position = found
    return Structure()


def _length(head: bytes) -> int | None:
    """Bytes of a pack's header or of a packet; None if it is neither, 0 if it does not say."""
    code = head[3]
    if code == _END:
        return 4
    if code != _PACK:
        length = int.from_bytes(head[4:6], "big")
        is_empty = code not in _VIDEO and head[6:8] in (b"\0\0", b"\xff\xff", b"")
        return 6 + length if length or is_empty else 0
    if len(head) < 14:
        return 14
    if head[4] >> 6 == 1:
        return 14 + (head[13] & 7)
    return 12 if head[4] >> 4 == 2 else None


def _behind_filling(file: BinaryIO, position: int) -> int | None:
    """Where the next start code is, if nothing but filling is before it, or the file ends."""
    file.seek(position)
    while data := file.read(_SEARCHED_BYTES):
        rest = data.lstrip(_FILLING)
        if rest:
            # A start code begins with two of the zeros.
            at = position + len(data) - len(rest) - 2
            file.seek(max(0, at))
            return at if _START.match(file.read(4)) else None
        position += len(data)
    return position


def _holds_start(file: BinaryIO, position: int) -> bool:
    file.seek(position)
    data = b""
    while more := file.read(_SEARCHED_BYTES):
        data = data[-2:] + more
        if _ANY_START in data:
            return True
    return False
