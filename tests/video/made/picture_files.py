"""Picture files made with Pillow and by hand, so that reading is not tested against our own writing only."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, TiffImagePlugin

D50 = (0.9642, 1.0, 0.8249)
SRGB_PRIMARIES = ((0.4361, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141))
P3_PRIMARIES = ((0.5151, 0.2412, -0.0011), (0.2920, 0.6922, 0.0419), (0.1571, 0.0666, 0.7841))
ADOBE_PRIMARIES = ((0.6097, 0.3111, 0.0195), (0.2053, 0.6257, 0.0609), (0.1492, 0.0632, 0.7446))
XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>'
)


def profile(
    primaries: tuple[tuple[float, float, float], ...] | None = P3_PRIMARIES, gamma: float = 2.2, name: str = "Wide"
) -> bytes:
    """An ICC profile of version 2 with a plain gamma; a grey one without primaries."""

    def xyz(value: tuple[float, float, float]) -> bytes:
        return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(part * 65536) for part in value))

    curve = b"curv\0\0\0\0" + struct.pack(">IHxx", 1, round(gamma * 256))
    words = name.encode() + b"\0"
    description = b"desc\0\0\0\0" + struct.pack(">I", len(words)) + words + bytes(78)
    tables = [(b"desc", description), (b"cprt", b"text\0\0\0\0none\0"), (b"wtpt", xyz(D50))]
    if primaries is None:
        tables.append((b"kTRC", curve))
    else:
        tables += [(key, xyz(value)) for key, value in zip((b"rXYZ", b"gXYZ", b"bXYZ"), primaries, strict=True)]
        tables += [(key, curve) for key in (b"rTRC", b"gTRC", b"bTRC")]
    directory, body, start = b"", b"", 132 + 12 * len(tables)
    for key, table in tables:
        directory += struct.pack(">4sII", key, start + len(body), len(table))
        body += table + bytes(-len(table) % 4)
    space = b"GRAY" if primaries is None else b"RGB "
    head = struct.pack(">I4sI4s4s4s", start + len(body), b"none", 0x02100000, b"mntr", space, b"XYZ ")
    head += struct.pack(">6H", 2023, 1, 1, 0, 0, 0) + b"acsp" + bytes(28)
    head += struct.pack(">3i", *(round(part * 65536) for part in D50)) + bytes(48)
    return head + struct.pack(">I", len(tables)) + directory + body


def exif(orientation: int, width: int = 45, height: int = 31) -> bytes:
    """A camera's EXIF with date, place, exposure and a maker's note."""
    tags = Image.Exif()
    tags[271], tags[274], tags[306] = "Acme", orientation, "2023:05:06 07:08:09"
    inner = tags.get_ifd(0x8769)
    inner[0xA002], inner[0xA003] = width, height
    inner[0x829A], inner[0x927C] = TiffImagePlugin.IFDRational(1, 250), b"maker\0note"
    place = tags.get_ifd(0x8825)
    place[1], place[2] = "N", (50.0, 6.0, 7.5)
    return tags.tobytes()


def codes(height: int = 31, width: int = 45, bits: int = 8) -> np.ndarray:
    """(H,W,3) uint8 or uint16 in which every row and column differs."""
    y, x = np.mgrid[0:height, 0:width]
    picture = np.stack((x * 255 // (width - 1), y * 255 // (height - 1), (x * y) % 256), -1)
    return (
        (picture if bits == 8 else picture * 257 + x[..., None] % 7)
        .clip(0, (1 << bits) - 1)
        .astype(np.uint8 if bits == 8 else np.uint16)
    )


def png(path: Path, samples: np.ndarray, *chunks: tuple[bytes, bytes], size: tuple[int, int] | None = None) -> Path:
    """A PNG file of (H,W,3) or (H,W) codes with further chunks; `size` is what its header says, if not the truth."""
    height, width = samples.shape[:2]
    deep, kind = samples.dtype == np.uint16, 2 if samples.ndim == 3 else 0
    rows = b"".join(b"\0" + row.astype(">u2" if deep else np.uint8).tobytes() for row in samples)
    header = struct.pack(">IIBBBBB", *(size or (width, height)), 16 if deep else 8, kind, 0, 0, 0)
    every = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    parts = [struct.pack(">I", len(d)) + name + d + struct.pack(">I", zlib.crc32(name + d)) for name, d in every]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    return path


def iccp(icc: bytes) -> tuple[bytes, bytes]:
    """The chunk of a profile."""
    return b"iCCP", b"profile\0\0" + zlib.compress(icc)


def save_tiff(path: Path, samples: np.ndarray, tags: dict[int, int], *, tile: bool = False) -> Path:
    """An uncompressed TIFF file of one strip or tile, with tags beside the usual ones."""
    data = samples.tobytes()
    channels = samples.shape[2] if samples.ndim == 3 else 1
    height, width = samples.shape[:2]
    found = {256: width, 257: height, 258: 8 * samples.itemsize, 259: 1, 262: 2 if channels > 1 else 1, 277: channels}
    place = {322: width, 323: height, 324: 0, 325: len(data)} if tile else {273: 0, 278: height, 279: len(data)}
    found |= place | tags
    start = 8 + 2 + 12 * len(found) + 4
    found[324 if tile else 273] = start
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(found.items()))
    path.write_bytes(struct.pack("<2sHIH", b"II", 42, 8, len(found)) + entries + bytes(4) + data)
    return path
