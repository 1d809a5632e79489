"""Samples of one picture file, by FFmpeg or Pillow, as they are stored."""

from __future__ import annotations

import struct
import warnings
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ....errors import VideoError
from ... import profiles
from ...color_tags import ColorRange, ColorTags, Matrix
from ...hdr_metadata import HdrMetadata
from ...info import Orientation
from ...planes import as_direct, bit_depth, decode_frame, family_of, orientation_of, source_tags
from ...ycbcr import resolve
from ..container.signatures import unreadable
from ..hdr_side_data import read_hdr
from ..probe import codec_name, first_frame, main_video, opened
from ..source import Damaged
from .header import PictureHeader, open_picture

# Pillow's modes that FFmpeg decodes to the same samples; it takes premultiplied alpha for straight, and CMYK for RGBA.
_FFMPEG_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "YCbCr", "I", "I;16", "I;16B", "I;16L"})
_FFMPEG_FORMATS = frozenset({"PNG", "JPEG", "MPO", "WEBP", "TIFF", "BMP", "PPM", "JPEG2000", "QOI", "AVIF"})
# av_image_check_size() refuses sizes from here on.
_FFMPEG_MOST_PIXELS = (1 << 31) // 8 - 1
# Beyond twice Pillow's limit for all of a process it refuses to load a TIFF.
_LIBTIFF_MOST_PIXELS = 2 * (1 << 30) // 4 // 3


@dataclass(frozen=True)
class Stored:
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


def decode_picture(path: Path, header: PictureHeader | None, damaged: Damaged) -> Stored:
    """Decode a picture by FFmpeg, or by Pillow what it does not decode or not right.

    Raises VideoError for one that is damaged, or not of a kind that either reads.
    """
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


def _by_ffmpeg(path: Path, header: PictureHeader | None, damaged: Damaged) -> Stored:
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
    try:
        conversion = resolve(tags, family=family_of(frame.format), size=(frame.width, frame.height), codec=codec)
        hdr = read_hdr(frame, "") if tags.is_hdr else HdrMetadata()
    except VideoError as error:
        raise VideoError(f"{path}: {error}") from error
    rgb, alpha = decode_frame(as_direct(frame), conversion, codec)
    if alpha is not None and header is not None and header.is_premultiplied:
        rgb = torch.where(alpha > 0, rgb / alpha, 0).clamp_(0, 1)
    if header is None and orientation.transpose:
        aspect = 1 / aspect
    return Stored(rgb, alpha, bits, codec, frame.format.name, tags, conversion, aspect, orientation, hdr=hdr)


def _by_pillow(path: Path, header: PictureHeader) -> Stored:
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
) -> Stored:
    tags = ColorTags(ColorRange.FULL, Matrix.RGB)
    pix_fmt = "gray16le" if bits == 16 else "rgb24" if alpha is None else "rgba"
    codec = header.format.lower()
    orientation = Orientation() if header.format == "TIFF" else header.orientation
    return Stored(rgb, alpha, bits, codec, pix_fmt, tags, tags, Fraction(1), orientation, tuple(remarks))


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
