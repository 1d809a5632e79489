"""One picture file: its upright pixels, by FFmpeg or Pillow, and what it says beside them."""

from __future__ import annotations

import struct
import warnings
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ....errors import VideoError
from ... import profiles
from ...hdr_metadata import HdrMetadata
from ...info import ColorRange, ColorTags, Frame, Matrix, Orientation, PictureMetadata, SourceInfo
from ...planes import as_direct, bit_depth, decode_frame, family_of, orientation_of, source_tags, upright
from ...ycbcr import resolve
from ..container.signatures import plain_tiff_bytes, refuse_misread, unreadable
from ..hdr_side_data import read_hdr
from ..probe import codec_name, first_frame, main_video, opened
from ..source import Damaged
from .damage import lacks_end
from .header import PictureHeader, open_picture, read_header

# Of a picture whose samples are stored as they are, this much more than the file holds is not worth patching.
_MOST_PATCHED = 16
MOST_PIXELS = 1 << 30
"""Pixels of the largest picture that is read: 32768 x 32768, 12 GB as floating point numbers."""
# Pillow's modes that FFmpeg decodes to the same samples; it takes premultiplied alpha for straight, and CMYK for RGBA.
_FFMPEG_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "YCbCr", "I", "I;16", "I;16B", "I;16L"})
_FFMPEG_FORMATS = frozenset({"PNG", "JPEG", "MPO", "WEBP", "TIFF", "BMP", "PPM", "JPEG2000", "QOI", "AVIF"})
# av_image_check_size() refuses sizes from here on.
_FFMPEG_MOST_PIXELS = (1 << 31) // 8 - 1
# Beyond twice Pillow's limit for all of a process it refuses to load a TIFF.
_LIBTIFF_MOST_PIXELS = 2 * (1 << 30) // 4 // 3
_GREY_MODES = frozenset({"1", "L", "LA", "I", "I;16", "I;16B", "I;16L"})
_GREY_TOLERANCE = 1.5 / 255


@dataclass(frozen=True)
class Picture:
    """One decoded picture, upright."""

    rgb: torch.Tensor
    """float32 (3,H,W) in [0,1]."""
    alpha: torch.Tensor | None
    """float32 (1,H,W) in [0,1]; None where all of the picture is opaque."""
    bits: int
    codec: str
    pix_fmt: str
    color: ColorTags
    conversion: ColorTags
    aspect: Fraction
    orientation: Orientation
    metadata: PictureMetadata
    remarks: tuple[str, ...]
    """What is read in part or changed, as sentences without the file's name."""
    hdr: HdrMetadata = field(default_factory=HdrMetadata)

    def frame(self, pts: int) -> Frame:
        """The picture as a frame that lasts one tick."""
        return Frame(rgb=self.rgb, alpha=self.alpha, pts=pts, duration=1, metadata=self.metadata)

    def describe(self, path: Path) -> SourceInfo:
        """The picture as a source."""
        return SourceInfo(
            path=path,
            kind="image",
            width=self.rgb.shape[2],
            height=self.rgb.shape[1],
            frame_count=1,
            count_method="files",
            average_rate=None,
            time_base=Fraction(1, 25),
            variable_rate=False,
            bit_depth=max(8, self.bits),
            has_alpha=self.alpha is not None,
            codec=self.codec,
            pix_fmt=self.pix_fmt,
            color=self.color,
            conversion=self.conversion,
            sample_aspect_ratio=self.aspect,
            orientation=self.orientation,
            start_s=Fraction(0),
            duration_s=0.0,
            selected_frames=1,
            metadata=self.metadata,
            hdr=self.hdr,
        )


@dataclass(frozen=True)
class _Stored:
    """Samples as a decoder gives them, not turned yet."""

    rgb: torch.Tensor
    alpha: torch.Tensor | None
    bits: int
    codec: str
    pix_fmt: str
    color: ColorTags
    conversion: ColorTags
    aspect: Fraction
    orientation: Orientation
    remarks: tuple[str, ...] = ()
    hdr: HdrMetadata = field(default_factory=HdrMetadata)


def header_or_none(path: Path, *, is_whole: bool = True) -> PictureHeader | None:
    """Return the header of a picture that Pillow knows, see `read_header`; None for others and unreadable files."""
    try:
        return read_header(path, is_whole=is_whole)
    except OSError:
        # Reading as a clip says in a sentence what is wrong.
        return None


def read_picture(path: Path, header: PictureHeader | None, damaged: Damaged = "refuse") -> Picture:
    """Decode one picture; `header` is None for formats that FFmpeg alone knows.

    Raises VideoError for a damaged file, an unsupported kind of it, or a size beyond MOST_PIXELS.
    """
    if header is not None:
        check_readable(path, header)
    else:
        refuse_misread(path)
    if plain_tiff_bytes(path) > _MOST_PATCHED * path.stat().st_size:
        raise VideoError(f"{path}: the picture is damaged, the file holds next to nothing of it; copy it again.")
    if damaged == "refuse" and lacks_end(path):
        raise VideoError(
            f"{path}: the picture is truncated, its end is missing; copy it again, or take what can be read "
            "(`upscale --keep-damaged`)."
        )
    try:
        stored = _decode(path, header, damaged)
    except MemoryError as error:
        size = "" if header is None else f" of {header.width}x{header.height}"
        raise VideoError(
            f"{path}: expected enough free memory for a picture{size}, found too little; cut it into pieces."
        ) from error
    metadata = header.metadata if header is not None else PictureMetadata()
    rgb, alpha = upright(stored.rgb, stored.orientation), stored.alpha
    if alpha is not None:
        alpha = None if bool((alpha == 1).all()) else upright(alpha, stored.orientation)
    remarks = [*_page_remarks(header), *(header.remarks if header is not None else ()), *stored.remarks]
    rgb, metadata = _follow_profile(rgb, metadata, header, remarks)
    tags = profiles.tags_of(metadata.icc) or (2, 2) if metadata.icc is not None else None
    color, conversion = stored.color, stored.conversion
    if tags is not None:
        color = replace(color, primaries=tags[0], transfer=tags[1])
        conversion = replace(conversion, primaries=tags[0], transfer=tags[1])
    return Picture(
        rgb=rgb,
        alpha=alpha,
        bits=stored.bits,
        codec=stored.codec,
        pix_fmt=stored.pix_fmt,
        color=color,
        conversion=conversion,
        aspect=header.aspect if header is not None else stored.aspect,
        orientation=stored.orientation,
        metadata=metadata,
        remarks=tuple(remarks),
        hdr=stored.hdr,
    )


def check_readable(path: Path, header: PictureHeader) -> None:
    """Raise VideoError for a picture that is too large, or whose samples are no whole numbers of up to 16 bits."""
    if header.width * header.height > MOST_PIXELS:
        raise VideoError(
            f"{path}: expected a picture of at most {MOST_PIXELS / 1e6:.0f} megapixels, found {header.width}x"
            f"{header.height} ({header.width * header.height / 1e6:.0f}); cut it into pieces first."
        )
    if header.unread_samples is not None:
        raise VideoError(
            f"{path}: expected whole numbers of at most 16 bits per sample, found {header.unread_samples}; convert it "
            "to a 16-bit TIFF or PNG first."
        )


def _decode(path: Path, header: PictureHeader | None, damaged: Damaged) -> _Stored:
    by_ffmpeg = header is None or _suits_ffmpeg(header, damaged)
    if by_ffmpeg:
        try:
            return _by_ffmpeg(path, header, damaged)
        except VideoError as error:
            if header is None:
                raise unreadable(path, error) from error
            first = error
    assert header is not None
    try:
        return _by_pillow(path, header)
    except Image.DecompressionBombError as error:
        raise VideoError(
            f"{path}: expected a TIFF of at most {_LIBTIFF_MOST_PIXELS / 1e6:.0f} megapixels, found {header.width}x"
            f"{header.height}; save it as PNG first."
        ) from error
    except (OSError, ValueError, SyntaxError, EOFError, struct.error, IndexError, KeyError, TypeError) as error:
        if by_ffmpeg:
            raise first from error
        raise VideoError(
            f"{path}: expected a whole {header.format} picture, found one that does not decode ({error}); copy it "
            "again, or convert it to PNG."
        ) from error


def _suits_ffmpeg(header: PictureHeader, damaged: Damaged) -> bool:
    """Whether FFmpeg decodes this kind of picture, and to the same samples as its reference decoder.

    Of TIFF it has a part only, so that what has 8 bits is libtiff's; it takes more damage, though.
    """
    small = header.width * header.height < _LIBTIFF_MOST_PIXELS
    if header.format == "TIFF" and (header.needs_libtiff or (header.bits <= 8 and small and damaged == "refuse")):
        return False
    fits = (header.width + 128) * (header.height + 128) < _FFMPEG_MOST_PIXELS
    return header.format in _FFMPEG_FORMATS and header.mode in _FFMPEG_MODES and fits


def _by_ffmpeg(path: Path, header: PictureHeader | None, damaged: Damaged) -> _Stored:
    with opened(path) as container:
        stream = main_video(container, path)
        frame = first_frame(container, stream, path)
        codec = codec_name(stream)
        tags = source_tags(frame, stream.codec_context)
        aspect = stream.sample_aspect_ratio or Fraction(1)
    if frame.is_corrupt and damaged == "refuse":
        raise VideoError(
            f"{path}: the picture is damaged (the decoder patched missing parts); copy it again, or ask for damaged "
            "frames to be kept."
        )
    if header is not None and (frame.width, frame.height) != (header.width, header.height):
        raise VideoError(
            f"{path}: expected {header.width}x{header.height}, found {frame.width}x{frame.height}; it is damaged."
        )
    bits = bit_depth(frame.format)
    orientation = orientation_of(frame) if header is None else header.orientation
    conversion = resolve(tags, family=family_of(frame.format), size=(frame.width, frame.height), codec=codec)
    rgb, alpha = decode_frame(as_direct(frame), conversion, codec)
    if alpha is not None and header is not None and header.is_premultiplied:
        rgb = torch.where(alpha > 0, rgb / alpha, 0).clamp_(0, 1)
    if header is None and orientation.transpose:
        aspect = 1 / aspect
    hdr = read_hdr(frame, "") if tags.is_hdr else HdrMetadata()
    return _Stored(rgb, alpha, bits, codec, frame.format.name, tags, conversion, aspect, orientation, hdr=hdr)


def _by_pillow(path: Path, header: PictureHeader) -> _Stored:
    remarks: list[str] = []
    with path.open("rb") as file:
        picture = open_picture(file, path.name)
        if picture is None:
            raise ValueError("another kind of file now")
        # Pillow turns TIFF files upright by itself, for want of a tag by XMP.
        picture.info.pop("xmp", None)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            picture.load()
        if picture.mode in ("I", "I;16", "I;16B", "I;16L"):
            codes = np.asarray(picture).astype(np.uint16)[None]
            rgb = torch.from_numpy(codes.astype(np.float32)).div_(65535).expand(3, -1, -1).contiguous()
            return _stored(rgb, None, 16, header, remarks)
        picture = _as_rgb(picture, header.metadata.icc, remarks)
        pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()
    if header.bits > 8:
        remarks.append(f"its {header.bits} bits per sample are read as 8, all that is decoded of this kind of file")
    rgb = pixels[:3].to(torch.float32).div_(255)
    alpha = pixels[3:].to(torch.float32).div_(255) if picture.mode == "RGBA" else None
    return _stored(rgb, alpha, 8, header, remarks)


def _stored(
    rgb: torch.Tensor, alpha: torch.Tensor | None, bits: int, header: PictureHeader, remarks: list[str]
) -> _Stored:
    tags = ColorTags(ColorRange.FULL, Matrix.RGB)
    pix_fmt = "gray16le" if bits == 16 else "rgb24" if alpha is None else "rgba"
    codec = header.format.lower()
    orientation = Orientation() if header.format == "TIFF" else header.orientation
    return _Stored(rgb, alpha, bits, codec, pix_fmt, tags, tags, Fraction(1), orientation, tuple(remarks))


def _as_rgb(picture: Image.Image, profile: bytes | None, remarks: list[str]) -> Image.Image:
    """The picture as 8-bit RGB or RGBA; CMYK and Lab through their profile."""
    if picture.mode in ("CMYK", "LAB"):
        known = profile is not None and profiles.space_of(profile) == picture.mode.replace("LAB", "Lab")
        converted = profiles.to_srgb(picture, profile) if known and profile is not None else None
        if converted is not None and profile is not None:
            remarks.append(f"its {picture.mode} is converted to sRGB by its profile ({profiles.name_of(profile)})")
            return converted
        remarks.append(f"its {picture.mode} is converted to RGB without a profile, so its colours are approximate")
        if picture.mode == "LAB":
            lab = profiles.lab_to_srgb(picture)
            if lab is not None:
                return lab
        return picture.convert("RGB")
    if picture.mode in ("RGBa", "La"):
        picture = picture.convert(picture.mode[:-1] + "A")
    has_alpha = picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info
    return picture.convert("RGBA" if has_alpha else "RGB")


def _follow_profile(
    rgb: torch.Tensor, metadata: PictureMetadata, header: PictureHeader | None, remarks: list[str]
) -> tuple[torch.Tensor, PictureMetadata]:
    """Pixels and metadata whose profile, if any, is one of RGB; grey profiles are applied."""
    profile = metadata.icc
    if profile is None or header is None:
        return rgb, metadata
    space = profiles.space_of(profile)
    if space == "RGB":
        return rgb, metadata
    metadata = replace(metadata, icc=None)
    if header.mode in ("CMYK", "LAB"):
        return rgb, metadata
    if space == "grey" and header.mode in _GREY_MODES:
        levels = profiles.grey_levels(profile)
        if levels is not None:
            ramp = np.linspace(0, 1, len(levels))
            if np.abs(levels - ramp).max() > _GREY_TOLERANCE:
                grey = torch.from_numpy(np.interp(rgb[0].numpy(), ramp, levels).astype(np.float32))
                rgb = grey.expand(3, -1, -1).contiguous()
                remarks.append(f"its grey profile ({profiles.name_of(profile)}) is applied; the result is sRGB")
            return rgb, metadata
    remarks.append(f"its colour profile is damaged or of another colour space ({space or 'unknown'}) and is left out")
    return rgb, metadata


def _page_remarks(header: PictureHeader | None) -> list[str]:
    if header is None or header.pages < 2:
        return []
    if header.format in ("ICO", "ICNS", "CUR"):
        return [f"of its {header.pages} sizes the largest is read"]
    if header.format == "PSD":
        return ["its layers are read as one picture"]
    kind = "frames" if header.is_animated else "pages" if header.format == "TIFF" else "pictures"
    return [f"of its {header.pages} {kind} the first is read; split the file to have them all"]
