"""PNG and TIFF files around coded samples: what FFmpeg's and Pillow's writers leave out (16 bits beside metadata)."""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin
from PIL.ExifTags import IFD, Base

from ...exif import PREFIX
from ...info import PictureMetadata

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_METRES_PER_INCH = 0.0254
# Written anew, or said better by an ICC profile.
_DENSITY, _COLOUR = frozenset({b"pHYs"}), frozenset({b"sRGB", b"gAMA", b"cHRM", b"cICP", b"iCCP"})
_TIFF_MOST_BYTES = (1 << 32) - (1 << 24)
# Tags of a TIFF directory that are about how its samples are stored, and those that are written from elsewhere.
_TIFF_OWN = frozenset(
    (*range(254, 260), 262, 266, 273, 274, *range(277, 285), 296, 322, 323, 324, 325, 338, 339, 700, 34675)
)


def density_of(metadata: PictureMetadata, aspect: Fraction) -> tuple[float, float, bool] | None:
    """Return (horizontal, vertical, whether per inch) of a picture with these; None if there is nothing to say."""
    if metadata.dpi is not None:
        return (*metadata.dpi, True)
    return None if aspect == 1 else (float(aspect.denominator), float(aspect.numerator), False)


def png_with(png: bytes, metadata: PictureMetadata, aspect: Fraction) -> bytes:
    """Return a PNG file with its chunks for profile, resolution, EXIF, XMP and notes; its coded samples stay."""
    dropped = _DENSITY | (_COLOUR if metadata.icc is not None else frozenset())
    parts = [PNG_SIGNATURE]
    for name, data in _chunks(png):
        if name in dropped:
            continue
        parts.append(_chunk(name, data))
        if name == b"IHDR":
            parts += [_chunk(*chunk) for chunk in _png_metadata(metadata, aspect)]
    return b"".join(parts)


def png_of(codes: NDArray[Any]) -> bytes:
    """Return a PNG file of (H,W,3 or 4) uint8 or uint16 codes, of any size; FFmpeg's ends below 16384 x 16384."""
    height, width, channels = codes.shape
    deep = codes.dtype == np.uint16
    header = struct.pack(">IIBBBBB", width, height, 16 if deep else 8, 2 if channels == 3 else 6, 0, 0, 0)
    deflate = zlib.compressobj(3)
    packed, above = [], np.zeros(width * channels * codes.itemsize, np.uint8)
    for row in codes:
        line = row.astype(">u2" if deep else np.uint8).reshape(-1).view(np.uint8)
        packed.append(deflate.compress(b"\x02" + (line - above).tobytes()))
        above = line
    packed.append(deflate.flush())
    data = b"".join(packed)
    # Readers take a chunk's length for a signed number of 31 bits.
    pieces = [data[at : at + (1 << 30)] for at in range(0, len(data), 1 << 30)]
    chunks = [_chunk(b"IHDR", header), *(_chunk(b"IDAT", piece) for piece in pieces), _chunk(b"IEND", b"")]
    return PNG_SIGNATURE + b"".join(chunks)


def tiff_of(codes: NDArray[Any], metadata: PictureMetadata, aspect: Fraction) -> bytes:
    """Return an uncompressed little-endian TIFF 6.0 file of (H,W,3 or 4) uint8 or uint16 codes.

    Raises ValueError if it would be larger than TIFF's offsets of 32 bits reach.
    """
    height, width, channels = codes.shape
    if codes.nbytes > _TIFF_MOST_BYTES:
        raise ValueError(f"{codes.nbytes} bytes of samples do not fit into a TIFF file; write PNG")
    samples = codes.astype("<u2" if codes.dtype == np.uint16 else np.uint8).tobytes()
    rows = max(1, (1 << 16) // (width * channels * codes.itemsize))
    strip = rows * width * channels * codes.itemsize
    # Counted from the directory's end: it is written first, and adds its own length.
    offsets = tuple(range(0, len(samples), strip))
    tags = TiffImagePlugin.ImageFileDirectory_v2(prefix=b"II")
    _add_exif(tags, metadata.exif)
    tags[256], tags[257], tags[258] = width, height, (8 * codes.itemsize,) * channels
    tags[259], tags[262], tags[277], tags[278], tags[284] = 1, 2, channels, rows, 1
    tags.tagtype[273] = tags.tagtype[279] = 4
    tags[273] = offsets
    tags[279] = tuple(min(strip, len(samples) - offset) for offset in offsets)
    if channels == 4:
        tags[338] = 2  # unassociated alpha
    density = density_of(metadata, aspect)
    if density is not None:
        tags[282], tags[283] = (TiffImagePlugin.IFDRational(Fraction(x).limit_denominator(10000)) for x in density[:2])
        tags[296] = 2 if density[2] else 1
    if metadata.icc is not None:
        tags.tagtype[34675] = 7
        tags[34675] = metadata.icc
    if metadata.xmp is not None:
        tags.tagtype[700] = 1
        tags[700] = metadata.xmp
    return b"".join((struct.pack("<2sHI", b"II", 42, 8), tags.tobytes(8), samples))


def _chunks(png: bytes) -> Iterator[tuple[bytes, bytes]]:
    position = len(PNG_SIGNATURE)
    while position + 8 <= len(png):
        length, name = struct.unpack_from(">I4s", png, position)
        yield name, png[position + 8 : position + 8 + length]
        position += 12 + length


def _chunk(name: bytes, data: bytes) -> bytes:
    return b"".join((struct.pack(">I", len(data)), name, data, struct.pack(">I", zlib.crc32(data, zlib.crc32(name)))))


def _png_metadata(metadata: PictureMetadata, aspect: Fraction) -> Iterator[tuple[bytes, bytes]]:
    if metadata.icc is not None:
        yield b"iCCP", b"ICC profile\0\0" + zlib.compress(metadata.icc, 9)
    density = density_of(metadata, aspect)
    if density is not None:
        x, y, per_inch = density
        scale = 1 / _METRES_PER_INCH if per_inch else 1.0
        yield b"pHYs", struct.pack(">IIB", max(1, round(x * scale)), max(1, round(y * scale)), int(per_inch))
    if metadata.exif is not None:
        yield b"eXIf", metadata.exif
    if metadata.xmp is not None:
        yield b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + metadata.xmp
    for key, text in metadata.text:
        yield _note(key, text)


def _note(key: str, text: str) -> tuple[bytes, bytes]:
    keyword = key.encode("latin-1", "replace")[:79]
    try:
        return b"tEXt", keyword + b"\0" + text.encode("latin-1")
    except UnicodeEncodeError:
        return b"iTXt", keyword + b"\0\0\0\0\0" + text.encode("utf-8", "replace")


def _add_exif(tags: TiffImagePlugin.ImageFileDirectory_v2, exif: bytes | None) -> None:
    """Put what EXIF says about the picture, its camera and its place into a TIFF directory."""
    if exif is None:
        return
    found = Image.Exif()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found.load(PREFIX + exif)
            groups = {group: dict(found.get_ifd(group)) for group in (IFD.Exif, IFD.GPSInfo)}
            main = dict(found)
    except Exception:  # whatever damaged EXIF makes Pillow raise; there is nothing in it to be kept
        return
    nested = (IFD.Exif, IFD.GPSInfo, IFD.Interop, Base.JpegIFOffset)
    for tag, value in main.items():
        if tag not in _TIFF_OWN and tag not in nested and _is_writable(None, tag, value):
            tags[tag] = value
    for group, values in groups.items():
        values.pop(IFD.Interop, None)
        writable = {tag: value for tag, value in values.items() if _is_writable(group, tag, value)}
        if writable:
            tags[group] = writable


def _is_writable(group: int | None, tag: int, value: object) -> bool:
    """Whether a tag's value is of a type that it can have; damaged EXIF is full of others."""
    trial = TiffImagePlugin.ImageFileDirectory_v2(prefix=b"II", group=group)
    try:
        trial[tag] = value
        trial.tobytes(8)
    except Exception:  # whatever Pillow raises for it
        return False
    return True
