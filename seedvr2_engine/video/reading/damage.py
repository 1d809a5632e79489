"""Find out from a file's outermost structure whether its end is missing, without decoding anything."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

_ISO_BOXES = frozenset({b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"moof", b"styp", b"sidx", b"pnot"})
_EBML_ID = b"\x1a\x45\xdf\xa3"
_SEGMENT_ID = b"\x18\x53\x80\x67"


def missing_bytes(path: Path) -> int:
    """Return how many bytes the file lacks by its own account; 0 if complete, or if its format does not say.

    Knows MP4/MOV boxes (ISO/IEC 14496-12), Matroska/WebM elements (RFC 8794) and RIFF chunks (AVI, WebP).
    """
    size_bytes = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(12)
        file.seek(0)
        if head[4:8] in _ISO_BOXES:
            promised = _iso_end(file, size_bytes)
        elif head[:4] == _EBML_ID:
            promised = _matroska_end(file)
        elif head[:4] == b"RIFF" and head[8:12] in (b"AVI ", b"WEBP"):
            promised = 8 + int.from_bytes(head[4:8], "little")
        else:
            promised = 0
    return max(0, promised - size_bytes)


def _iso_end(file: BinaryIO, size_bytes: int) -> int:
    """Walk the top-level boxes to the end that the last one claims."""
    position = 0
    while position + 8 <= size_bytes:
        file.seek(position)
        header = file.read(16)
        length = int.from_bytes(header[:4], "big")
        if length == 0:
            return size_bytes
        if length == 1:
            length = int.from_bytes(header[8:16], "big")
        if length < 8 or not header[4:8].isascii():
            # Bytes after the last box; FFmpeg ignores them too.
            return position
        position += length
    return position


def _matroska_end(file: BinaryIO) -> int:
    """The end of the EBML header and the segment after it; 0 where the segment is of unknown size (a live file)."""
    for expected in (_EBML_ID, _SEGMENT_ID):
        if file.read(4) != expected:
            return 0
        length = _ebml_size(file)
        if length is None:
            return 0
        end = file.tell() + length
        file.seek(end)
    return end


def _ebml_size(file: BinaryIO) -> int | None:
    """A variable-length size; None if all its bits are set (unknown) or the file ends."""
    first = file.read(1)
    if not first or first[0] == 0:
        return None
    width = 9 - first[0].bit_length()
    rest = file.read(width - 1)
    value = int.from_bytes(bytes([first[0] & ((1 << (8 - width)) - 1)]) + rest, "big")
    return None if value == (1 << (7 * width)) - 1 else value
