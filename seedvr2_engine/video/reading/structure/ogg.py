"""Walk through the pages of an Ogg file (RFC 3533)."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from itertools import pairwise
from typing import BinaryIO

from .parts import Budget, Structure, disorder

_FIRST, _LAST = 2, 4
_THEORA_HEADERS = 3
_MIRRORED = bytes(int(f"{value:08b}"[::-1], 2) for value in range(256))


@dataclass
class _Logical:
    """One stream of pages."""

    is_theora: bool
    next_page: int
    packets: int = 0
    is_ended: bool = False


def walk_ogg(file: BinaryIO, size_bytes: int, budget: Budget) -> Structure:
    """Follow the pages, whose sums must be right and whose numbers without a gap; count the packets of Theora streams.

    FFmpeg leaves out a page whose sum is wrong, without a word. All of the file is read, at the speed of the disk.
    """
    position = 0
    streams: dict[int, _Logical] = {}
    fault = None
    while position < size_bytes and fault is None:
        budget.spend()
        file.seek(position)
        head = file.read(27)
        if len(head) < 27 and b"OggS".startswith(head[:4]):
            return Structure(27 - len(head), None, _pictures(streams))
        if head[:4] != b"OggS":
            fault = disorder(position)
            break
        lacing = file.read(head[26])
        end = position + 27 + head[26] + sum(lacing)
        if len(lacing) < head[26] or end > size_bytes:
            return Structure(max(1, end - size_bytes), None, _pictures(streams))
        file.seek(position)
        page_bytes = file.read(end - position)
        if not _is_sound(page_bytes):
            fault = disorder(position)
            break
        serial, page = int.from_bytes(head[14:18], "little"), int.from_bytes(head[18:22], "little")
        if head[5] & _FIRST:
            # The first packet's kind comes before its name.
            streams[serial] = _Logical(page_bytes[28 + head[26] :].startswith(b"theora"), page)
        stream = streams.get(serial)
        if stream is None or stream.next_page != page:
            fault = f"a part is missing before byte {position}"
            break
        stream.next_page = page + 1
        # An empty packet is a picture that is shown again.
        stream.packets += sum(
            length < 255 and (length > 0 or before == 255) for before, length in pairwise(b"\0" + lacing)
        )
        stream.is_ended = bool(head[5] & _LAST)
        position = end
    if fault is None and not any(stream.is_ended for stream in streams.values()):
        fault = "its end is missing"
    return Structure(0, fault, _pictures(streams))


def _is_sound(page: bytes) -> bool:
    """Whether a page has the sum that it says: CRC-32 of zlib's polynomial, but from the highest bit to the lowest."""
    mirrored = (page[:22] + bytes(4) + page[26:]).translate(_MIRRORED)
    found = zlib.crc32(mirrored, 0xFFFFFFFF) ^ 0xFFFFFFFF
    return found.to_bytes(4, "big").translate(_MIRRORED) == page[22:26]


def _pictures(streams: dict[int, _Logical]) -> tuple[int, ...]:
    return tuple(max(0, stream.packets - _THEORA_HEADERS) for stream in streams.values() if stream.is_theora)
