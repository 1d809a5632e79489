"""Names of formats that are known and not read, so that a sound file is never called damaged."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

from PIL import TiffImagePlugin
from PIL.ExifTags import Base

from ....errors import VideoError

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
# Those that FFmpeg or Pillow decode: a file of one of these that is not read is damaged.
_TIFF_COMPRESSIONS = frozenset({None, 1, 2, 3, 4, 5, 6, 7, 8, 32773, 32809, 32946, 34925, 50000, 50001})
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
    found = next(((what, remedy) for at, mark, what, remedy in _SIGNATURES if start[at : at + len(mark)] == mark), None)
    if found is None and (tags := _tiff_tags(path)) is not None:
        compression = _values(tags, Base.Compression)
        if compression not in _TIFF_COMPRESSIONS:
            return f"a TIFF of compression {compression}", "save it as an ordinary TIFF or PNG first"
    return found


def misread_tiff(path: Path) -> str | None:
    """Return what a TIFF file holds that is taken for something else by a decoder that ignores it; else None."""
    tags = _tiff_tags(path)
    if tags is None:
        return None
    bits, formats = (_values(tags, tag) or (1,) for tag in (Base.BitsPerSample, Base.SampleFormat))
    depth = max(_numbers(bits) or (1,))
    kinds = set(_numbers(formats))
    if kinds & {3, 6}:
        return f"floating point numbers of {depth} bits"
    if kinds & {2, 5}:
        return f"signed numbers of {depth} bits"
    if depth > 16:
        return f"{depth} bits"
    return f"tiles of {depth} bits" if Base.TileOffsets in tags else None


def plain_tiff_bytes(path: Path) -> int:
    """How many bytes the samples of an uncompressed TIFF must have; 0 for all other files."""
    tags = _tiff_tags(path)
    if tags is None or _values(tags, Base.Compression) not in (None, 1, (1,)):
        return 0
    width, height = (_values(tags, tag) for tag in (Base.ImageWidth, Base.ImageLength))
    bits = sum(_numbers(_values(tags, Base.BitsPerSample))) or 1
    return width * height * bits // 8 if isinstance(width, int) and isinstance(height, int) else 0


def refuse_misread(path: Path) -> None:
    """Raise VideoError for a file that Pillow does not know and of which FFmpeg would make something else."""
    if (known := misread_tiff(path)) is not None:
        raise VideoError(
            f"{path}: expected whole numbers of at most 16 bits per sample, in strips, found {known}; convert it to an "
            "ordinary 16-bit TIFF or PNG first."
        )


def unreadable(path: Path, error: VideoError) -> VideoError:
    """Return the true reason why a file was not read: a known format that is not supported, or else `error`."""
    known = unread_format(path)
    if known is None:
        return error
    what, remedy = known
    return VideoError(f"{path}: expected a picture or clip of a kind that is read, found {what}; {remedy}.")


def _tiff_tags(path: Path) -> TiffImagePlugin.ImageFileDirectory_v2 | None:
    """The first directory of a TIFF file whose samples are within the file; None if it is none, or is damaged."""
    try:
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            start = file.read(8)
            if start[:4] not in (b"II*\0", b"MM\0*"):
                return None
            tags = TiffImagePlugin.ImageFileDirectory_v2(start)
            file.seek(tags.next)
            tags.load(file)
            offsets = tags.get(Base.StripOffsets) or tags.get(Base.TileOffsets)
            furthest = max(offsets if isinstance(offsets, tuple) else (offsets,))
            return tags if furthest < path.stat().st_size else None
    except Exception:  # whatever a damaged directory makes Pillow raise, or of what type its values are
        return None


def _values(tags: TiffImagePlugin.ImageFileDirectory_v2, tag: int) -> object:
    """What a tag holds, which Pillow may find odd and say so."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return tags.get(tag)


def _numbers(value: object) -> tuple[int, ...]:
    """The whole numbers of a tag, which in a damaged file may be anything."""
    return tuple(part for part in (value if isinstance(value, tuple) else (value,)) if isinstance(part, int))
