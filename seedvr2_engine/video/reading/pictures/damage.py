"""Find out whether a picture file ends where its format says, without decoding it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

_TAIL_BYTES = 1 << 16
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_JPEG_END = b"\xff\xd9"
# Deflate packs at most 1032 bytes into one.
_DEFLATE_RATIO = 1032


def lacks_end(path: Path) -> bool:
    """Return whether the end of a PNG or JPEG file is missing; False for other formats.

    What cameras append behind a JPEG picture is allowed, and so is anything behind a PNG picture's end.
    """
    with path.open("rb") as file:
        start = file.read(33)
        if start.startswith(_PNG_SIGNATURE):
            return _png_lacks_end(file, start)
        return start.startswith(b"\xff\xd8\xff") and _jpeg_lacks_end(file)


def _png_lacks_end(file: BinaryIO, start: bytes) -> bool:
    length = file.seek(0, os.SEEK_END)
    file.seek(max(0, length - _TAIL_BYTES))
    if b"IEND" not in file.read():
        return True
    width, height, bits, kind = (
        int.from_bytes(start[16:20], "big"),
        int.from_bytes(start[20:24], "big"),
        start[24],
        start[25],
    )
    row = (width * bits * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}.get(kind, 1) + 7) // 8
    return (row + 1) * height > length * _DEFLATE_RATIO


def _jpeg_lacks_end(file: BinaryIO) -> bool:
    data = _jpeg_scan_start(file)
    if data is None:
        return True
    length = file.seek(0, os.SEEK_END)
    file.seek(max(data, length - _TAIL_BYTES))
    if _JPEG_END in file.read():
        return False
    file.seek(data)
    return _JPEG_END not in file.read()


def _jpeg_scan_start(file: BinaryIO) -> int | None:
    """Where the coded data begin, behind thumbnails and other segments; None if the file ends before."""
    position = 2
    while True:
        file.seek(position)
        marker = file.read(4)
        if len(marker) < 4:
            return None
        if marker[0] != 0xFF:
            # No segment here; what decodes such a file decides.
            return position
        if marker[1] == 0xFF:
            position += 1
            continue
        position += 2 + int.from_bytes(marker[2:4], "big")
        if marker[1] == 0xDA:
            return position
