"""Names of formats that are known and not read, so that a sound file is never called damaged."""

from __future__ import annotations

import re
from pathlib import Path

# (offset, bytes, what it is, what to do)
_PNG_OR_TIFF = "export it as PNG or TIFF first"
_DEVELOP = "develop it to a 16-bit TIFF first"
_SIGNATURES: tuple[tuple[int, bytes, str, str], ...] = (
    (0, b"8BPS", "a Photoshop document", _PNG_OR_TIFF),
    (0, b"gimp xcf", "a GIMP document", _PNG_OR_TIFF),
    (0, b"\xff\x0a", "a JPEG XL picture", "convert it to PNG first"),
    (0, b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL picture", "convert it to PNG first"),
    (0, b"v/1\x01", "an OpenEXR picture", "convert it to a 16-bit TIFF or PNG first"),
    (0, b"#?RADIANCE", "a Radiance HDR picture", "convert it to a 16-bit TIFF or PNG first"),
    (0, b"#?RGBE", "a Radiance HDR picture", "convert it to a 16-bit TIFF or PNG first"),
    (0, b"FUJIFILMCCD-RAW", "a camera's raw picture", _DEVELOP),
    (0, b"IIRO", "a camera's raw picture", _DEVELOP),
    (0, b"IIU\0", "a camera's raw picture", _DEVELOP),
    (8, b"CR\x02", "a camera's raw picture", _DEVELOP),
    (4, b"ftypcrx", "a camera's raw picture", _DEVELOP),
    (0, b"%PDF", "a PDF document", _PNG_OR_TIFF),
    (0, b"%!PS", "a PostScript document", _PNG_OR_TIFF),
    (0, b"<svg", "an SVG drawing", _PNG_OR_TIFF),
    (0, b"BPG\xfb", "a BPG picture", "convert it to PNG first"),
    (0, b"II\xbc\x01", "a JPEG XR picture", "convert it to PNG first"),
    (0, b"AT&TFORM", "a DjVu document", _PNG_OR_TIFF),
    (0, b"\xd7\xcd\xc6\x9a", "a Windows metafile", _PNG_OR_TIFF),
    (0, b"PK\x03\x04", "a zip archive", "unpack it first"),
    (0, b"SIMPLE  =", "a FITS picture", "convert it to a 16-bit TIFF first"),
    (128, b"DICM", "a DICOM picture", "convert it to a 16-bit TIFF first"),
    (0, b"II+\0", "a BigTIFF picture", "save it as an ordinary TIFF or PNG first"),
    (0, b"MM\0+", "a BigTIFF picture", "save it as an ordinary TIFF or PNG first"),
)
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_RAW_SUFFIXES = frozenset(
    (
        *(".dng", ".nef", ".nrw", ".arw", ".srf", ".sr2", ".cr2", ".cr3", ".crw", ".raf", ".orf", ".rw2", ".pef"),
        *(".srw", ".3fr", ".iiq", ".erf", ".mrw", ".x3f", ".kdc", ".dcr", ".rwl"),
    )
)


def unread_format(path: Path) -> tuple[str, str] | None:
    """Return what a file is and what to do with it, if it is of a known kind that is not read; else None."""
    try:
        with path.open("rb") as file:
            start = file.read(1024)
    except OSError:
        return None
    if start[4:8] == b"ftyp" and start[8:12] in _HEIF_BRANDS:
        return "a HEIF picture", "convert it to PNG or JPEG first"
    if path.suffix.lower() in _RAW_SUFFIXES and start[:2] in (b"II", b"MM"):
        return "a camera's raw picture", _DEVELOP
    if re.match(rb"\s*<\?xml[^>]*>\s*(<!--.*?-->|<!DOCTYPE[^>]*>|\s)*<svg", start, re.DOTALL):
        return "an SVG drawing", _PNG_OR_TIFF
    return next(((what, remedy) for at, mark, what, remedy in _SIGNATURES if start[at : at + len(mark)] == mark), None)
