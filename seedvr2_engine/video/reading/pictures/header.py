"""What a picture file says about itself, without its pixels: size, depth, alpha, and what travels with it."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

from PIL import Image, TiffImagePlugin
from PIL.ExifTags import IFD, Base

from ...exif import PREFIX, resolution_of, without_turn
from ...info import Orientation, PictureMetadata
from .png_chunks import late_chunks

# Formats of Pillow that are told by their first bytes. GIF is a clip, and is FFmpeg's.
_FORMATS = (
    *("PNG", "JPEG", "MPO", "WEBP", "TIFF", "BMP", "PPM", "JPEG2000", "PSD", "ICO", "CUR", "ICNS", "PCX", "SGI"),
    *("DDS", "QOI", "SUN", "XBM", "XPM", "AVIF"),
)
_ORIENTATIONS = {
    2: Orientation(mirror_x=True),
    3: Orientation(mirror_x=True, mirror_y=True),
    4: Orientation(mirror_y=True),
    5: Orientation(transpose=True),
    6: Orientation(transpose=True, mirror_x=True),
    7: Orientation(transpose=True, mirror_x=True, mirror_y=True),
    8: Orientation(transpose=True, mirror_y=True),
}
# What of a TIFF file's own directory describes the picture rather than how it is stored.
_TIFF_DESCRIPTION = frozenset(
    {
        *(Base.DocumentName, Base.ImageDescription, Base.Make, Base.Model, Base.PageName, Base.Software, Base.DateTime),
        *(Base.Artist, Base.HostComputer, Base.Copyright, Base.Rating, Base.RatingPercent),
        *(Base.XPTitle, Base.XPComment, Base.XPAuthor, Base.XPKeywords, Base.XPSubject),
    }
)
_DENSITY_TAGS = (Base.XResolution, Base.YResolution, Base.ResolutionUnit)
# Generators of pictures and editors keep notes of kilobytes; a forged file may unpack to more than memory.
_MOST_TEXT_CHARS = 16 << 20


@dataclass(frozen=True)
class PictureHeader:
    """One picture file as Pillow describes it, before a pixel is decoded."""

    format: str
    """Pillow's name of the format."""
    mode: str
    """Pillow's name of the pixel layout."""
    width: int
    """As stored."""
    height: int
    """As stored."""
    bits: int
    """Bits per sample in the file."""
    may_have_alpha: bool
    """Whether the format of its pixels has transparency; only the pixels say whether it is used."""
    pages: int
    """Pictures in the file: pages, frames, or sizes of an icon."""
    is_animated: bool
    """Whether the pictures are frames in time."""
    orientation: Orientation
    aspect: Fraction
    """Width of an upright pixel over its height."""
    metadata: PictureMetadata = field(repr=False)
    """Upright: an orientation tag says so, and horizontal and vertical resolution have changed places if need be."""
    needs_libtiff: bool = False
    """Whether it is a TIFF of tiles or JPEG data, of which FFmpeg makes nothing or something else, without an error."""
    is_premultiplied: bool = False
    """Whether it is a TIFF whose colours are multiplied by alpha, which FFmpeg takes no notice of."""
    unread_samples: str | None = None
    """What its samples are, if no whole numbers of up to 16 bits."""
    remarks: tuple[str, ...] = ()
    """What is not carried along, as sentences without the file's name."""

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the upright picture."""
        return (self.height, self.width) if self.orientation.transpose else (self.width, self.height)


def open_picture(file: BinaryIO, name: str) -> Image.Image | None:
    """Return the picture with its pixels still in the file, or None if Pillow does not know what it is.

    `Image.open` would refuse large pictures by a limit that all of a process shares; the callers here have their own.
    TGA has nothing at its start to be told by, so it must be named so.
    """
    Image.init()
    start = file.read(16)
    formats = (*_FORMATS, "TGA") if name.lower().endswith((".tga", ".icb", ".vda", ".vst")) else _FORMATS
    for kind in formats:
        if kind not in Image.OPEN:
            continue
        factory, accept = Image.OPEN[kind]
        try:
            verdict = True if accept is None else accept(start)
            if not verdict or isinstance(verdict, str):
                continue
            file.seek(0)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return factory(file, name)
        except Exception:
            # Pillow's plugins raise whatever their parsing runs into; the next one, or FFmpeg, may know it.
            continue
    return None


def read_header(path: Path, *, is_whole: bool = True) -> PictureHeader | None:
    """Return what the file says of itself; None if it is no picture that Pillow knows.

    `is_whole` looks behind the pixels of PNG files as well, for all that travels with the picture.
    Raises OSError if it cannot be read.
    """
    with path.open("rb") as file:
        picture = open_picture(file, path.name)
        if picture is None:
            return None
        if picture.format == "PNG" and is_whole:
            # Some editors put EXIF, XMP and notes behind the pixels; Pillow would decode them all to get there.
            for key, value in late_chunks(file).items():
                picture.info.setdefault(key, value)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return header_of(picture)
        except OSError:
            raise
        except Exception:  # tags of a damaged file may be of any type; FFmpeg, which needs few of them, decides
            return None


def header_of(picture: Image.Image) -> PictureHeader:
    """Return the description of an opened picture."""
    remarks: list[str] = []
    exif, turn = _exif(picture, remarks)
    orientation = _ORIENTATIONS.get(turn, Orientation())
    density, unit = _density(picture, exif)
    aspect = Fraction(1)
    if density is not None:
        if orientation.transpose:
            density = (density[1], density[0])
        aspect = _aspect(density)
    info = picture.info
    profile = info.get("icc_profile") or None
    metadata = PictureMetadata(
        icc=profile if isinstance(profile, bytes) else None,
        exif=exif,
        xmp=_xmp(picture, is_turned=turn != 1),
        dpi=density if unit == "inch" else None,
        text=_text(picture, remarks),
    )
    if isinstance(info.get("photoshop"), dict) and 0x0404 in info["photoshop"]:
        remarks.append("its IPTC captions are left out; EXIF and XMP are kept")
    try:
        pages = int(getattr(picture, "n_frames", 1))
    except Exception:  # a damaged list of pages; the first is there
        pages = 1
    if picture.format == "ICO":
        pages = len(picture.info.get("sizes", (0,)))
    return PictureHeader(
        format=picture.format or "",
        mode=picture.mode,
        width=(_tiff_tag(picture, Base.ImageWidth) or (picture.width,))[0],
        height=(_tiff_tag(picture, Base.ImageLength) or (picture.height,))[0],
        bits=_bits(picture),
        may_have_alpha=picture.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in info,
        pages=pages,
        is_animated=pages > 1 and picture.format in ("PNG", "WEBP", "AVIF"),
        orientation=orientation,
        aspect=aspect,
        metadata=metadata,
        needs_libtiff=bool(_tiff_tag(picture, Base.TileOffsets))
        or not {6, 7}.isdisjoint(_tiff_tag(picture, Base.Compression)),
        is_premultiplied=1 in _tiff_tag(picture, Base.ExtraSamples),
        unread_samples=_unread_samples(picture),
        remarks=tuple(remarks),
    )


def _exif(picture: Image.Image, remarks: list[str]) -> tuple[bytes | None, int]:
    """EXIF of an upright picture, and the orientation, 1 to 8, that the stored one has."""
    try:
        # Not getexif(): it takes an orientation from XMP, which no viewer does, and decodes all pixels of a PNG file.
        if isinstance(picture, TiffImagePlugin.TiffImageFile):
            turn = picture.tag_v2.get(Base.Orientation, 1)
        else:
            turn = _loaded(picture.info.get("exif")).get(Base.Orientation, 1)
        turn = turn if isinstance(turn, int) else 1
        raw = picture.info.get("exif")
        if picture.format == "TIFF":
            return _description(picture.getexif()), turn
        if isinstance(raw, bytes) and raw:
            return without_turn(raw), turn
        return None, turn
    except Exception:  # whatever a damaged directory makes Pillow raise
        remarks.append("its EXIF is damaged and is left out")
        return None, 1


def _loaded(exif: object) -> Image.Exif:
    tags = Image.Exif()
    if isinstance(exif, bytes):
        tags.load(exif if exif.startswith(PREFIX) else PREFIX + exif)
    return tags


def _description(tags: Image.Exif) -> bytes | None:
    """The part of a TIFF directory that is about the picture, as EXIF."""
    kept = Image.Exif()
    for tag in _TIFF_DESCRIPTION & tags.keys():
        kept[tag] = tags[tag]
    for group in (IFD.Exif, IFD.GPSInfo):
        if values := tags.get_ifd(group):
            kept.get_ifd(group).update(values)
    return without_turn(kept.tobytes()) if len(kept) or kept.get_ifd(IFD.Exif) or kept.get_ifd(IFD.GPSInfo) else None


def _density(picture: Image.Image, exif: bytes | None) -> tuple[tuple[float, float] | None, str]:
    """(horizontal, vertical) pixels per unit as stored, and the unit, "inch" or "none"."""
    info = picture.info
    found: object = None
    unit = "inch"
    if picture.format == "TIFF":
        tags = getattr(picture, "tag_v2", {})
        found = tuple(tags.get(tag) for tag in _DENSITY_TAGS[:2])
        code = tags.get(Base.ResolutionUnit, 2)
        found = tuple(float(value) * (2.54 if code == 3 else 1) if value else 0.0 for value in found)
        unit = "none" if code == 1 else "inch"
    elif "jfif_density" in info and info.get("jfif_unit") == 0:
        found, unit = info["jfif_density"], "none"
    elif "dpi" in info:
        found = info["dpi"]
    elif "aspect" in info:
        found, unit = info["aspect"], "none"
    elif exif is not None and picture.format == "WEBP":
        found, unit = resolution_of(exif) or (None, "none")
    if not isinstance(found, tuple) or len(found) != 2:
        return None, "none"
    x, y = float(found[0]), float(found[1])
    if not (0 < x < 1e6 and 0 < y < 1e6) or (unit == "inch" and x <= 1 and y <= 1):
        # Writers that know no resolution say 0, or 1 dot per inch.
        return None, "none"
    return (x, y), unit


def _aspect(density: tuple[float, float]) -> Fraction:
    ratio = Fraction(density[1] / density[0]).limit_denominator(1000)
    # 11811 dots per metre are 299.9994 per inch; nothing that is told apart from square by eye is below a thousandth.
    return ratio if abs(ratio - 1) > Fraction(1, 500) and Fraction(1, 16) < ratio < 16 else Fraction(1)


def _xmp(picture: Image.Image, *, is_turned: bool) -> bytes | None:
    xmp = picture.info.get("xmp") or picture.info.get("XML:com.adobe.xmp")
    if xmp is None and isinstance(picture, TiffImagePlugin.TiffImageFile):
        xmp = picture.tag_v2.get(700)
    if isinstance(xmp, str):
        xmp = xmp.encode()
    if not isinstance(xmp, bytes):
        return None
    if not is_turned:
        return xmp
    xmp = re.sub(rb'(tiff:Orientation=["\'])[2-8]', rb"\g<1>1", xmp)
    return re.sub(rb"(<tiff:Orientation>\s*)[2-8]", rb"\g<1>1", xmp)


def _text(picture: Image.Image, remarks: list[str]) -> tuple[tuple[str, str], ...]:
    """The notes of a PNG file, in which editors and generators keep titles, prompts and graphs."""
    if picture.format != "PNG":
        return ()
    found = [
        (key, str(value))
        for key, value in picture.info.items()
        if isinstance(key, str) and isinstance(value, str) and key != "XML:com.adobe.xmp" and 0 < len(key) < 80
    ]
    if sum(len(value) for _, value in found) > _MOST_TEXT_CHARS:
        remarks.append("its notes are over 16 MB of text and are left out")
        return ()
    return tuple(found)


def _bits(picture: Image.Image) -> int:
    """Bits per sample in the file, which Pillow's modes do not always say."""
    if picture.format == "TIFF":
        return max(_tiff_tag(picture, Base.BitsPerSample) or (1,))
    if picture.mode.startswith("I;16"):
        return 16
    if picture.mode == "I":
        return 16 if picture.format in ("PNG", "PPM", "JPEG2000") else 32
    if picture.mode == "F":
        return 32
    tiles = getattr(picture, "tile", None)
    arguments = tiles[0].args if tiles else ()
    raw = arguments if isinstance(arguments, str) else next((a for a in arguments or () if isinstance(a, str)), "")
    if (
        picture.format == "PPM"
        and isinstance(arguments, tuple)
        and isinstance(arguments[-1], int)
        and arguments[-1] > 255
    ):
        return 16
    return 16 if ";16" in raw else 8


def _unread_samples(picture: Image.Image) -> str | None:
    bits = _bits(picture)
    formats = set(_tiff_tag(picture, Base.SampleFormat))
    if picture.mode == "F" or formats & {3, 6}:
        return f"floating point numbers of {bits} bits"
    if formats & {2, 5}:
        return f"signed numbers of {bits} bits"
    return f"{bits} bits" if bits > 16 else None


def _tiff_tag(picture: Image.Image, tag: int) -> tuple[int, ...]:
    """The values of a tag of numbers; none if the picture is no TIFF or has no such tag."""
    value = picture.tag_v2.get(tag, ()) if isinstance(picture, TiffImagePlugin.TiffImageFile) else ()
    return tuple(part for part in (value if isinstance(value, tuple) else (value,)) if isinstance(part, int))
