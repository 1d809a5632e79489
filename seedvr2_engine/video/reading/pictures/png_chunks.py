"""Chunks of a PNG file that stand behind its pixels, found without decoding them (PNG, third edition)."""

from __future__ import annotations

import zlib
from typing import BinaryIO

_SIGNATURE_BYTES = 8
# No more than one note is unpacked to.
_MOST_BYTES = 16 << 20


def late_chunks(file: BinaryIO) -> dict[str, bytes | str]:
    """Return EXIF, under the name `exif`, and notes under their own names, from behind the last IDAT chunk."""
    found: dict[str, bytes | str] = {}
    position, is_late = _SIGNATURE_BYTES, False
    while True:
        file.seek(position)
        head = file.read(8)
        if len(head) < 8 or head[4:] == b"IEND":
            return found
        length, name = int.from_bytes(head[:4], "big"), head[4:]
        is_late = is_late or name == b"IDAT"
        if is_late and name in (b"eXIf", b"tEXt", b"zTXt", b"iTXt") and length <= _MOST_BYTES:
            _take(name, file.read(length), found)
        position += 12 + length


def _take(name: bytes, data: bytes, found: dict[str, bytes | str]) -> None:
    if name == b"eXIf":
        found["exif"] = data
        return
    key, separator, rest = data.partition(b"\0")
    if not separator:
        return
    packed, encoding = name == b"zTXt", "latin-1"
    if packed:
        rest = rest[1:]
    elif name == b"iTXt":
        packed, encoding = rest[:1] == b"\1", "utf-8"
        # Behind the two bytes about compression stand a language and a translated key.
        rest = rest[2:].partition(b"\0")[2].partition(b"\0")[2]
    try:
        text = zlib.decompressobj().decompress(rest, _MOST_BYTES) if packed else rest
    except zlib.error:
        return
    found[key.decode("latin-1")] = text.decode(encoding, "replace")
