"""HDR metadata in PNG files."""

from __future__ import annotations

import struct
import zlib

from ...hdr_metadata import HdrMetadata

_SIGNATURE_AND_HEADER_BYTES = 8 + 25


def with_png_light(png: bytes, hdr: HdrMetadata) -> bytes:
    """Return a PNG file with the static metadata in chunks mDCV and cLLI. Source: W3C, PNG (third edition), 11.3.2."""
    chunks = b""
    display = hdr.mastering
    if display is not None and display.primaries is not None and display.white is not None:
        points = [round(value * 50000) for xy in (*display.primaries, display.white) for value in xy]
        light = [round(nits * 10000) for nits in (display.max_nits or 0, display.min_nits or 0)]
        chunks += _chunk(b"mDCV", struct.pack(">8H2I", *points, *light))
    if hdr.light is not None:
        light = [nits * 10000 for nits in (hdr.light.max_cll_nits, hdr.light.max_fall_nits)]
        chunks += _chunk(b"cLLI", struct.pack(">2I", *(min(value, 0xFFFFFFFF) for value in light)))
    return png[:_SIGNATURE_AND_HEADER_BYTES] + chunks + png[_SIGNATURE_AND_HEADER_BYTES:]


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
