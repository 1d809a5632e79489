"""The boxes that MP4 and MOV files are made of."""

from __future__ import annotations

from typing import BinaryIO


def last_box(file: BinaryIO, end: int) -> int | None:
    """Where the box begins with which a file of `end` bytes ends; None where its boxes do not fill it."""
    position = 0
    while position + 8 <= end:
        file.seek(position)
        head = file.read(16)
        size = int.from_bytes(head[:4], "big")
        size = int.from_bytes(head[8:16], "big") if size == 1 else size
        if size < 8 or position + size > end:
            return None
        if position + size == end:
            return position
        position += size
    return None
