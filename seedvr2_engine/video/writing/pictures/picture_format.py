"""One picture as the bytes of a file."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from ....errors import OutputError
from ...coded import Coding
from ...color_tags import ColorRange, ColorTags, Matrix
from ...exif import PREFIX, resolution_of, with_size
from ...hdr_metadata import HdrMetadata
from ...info import PictureMetadata, SourceInfo
from ...planes import coding_for, encode_frame
from ...ycbcr import quantise
from ..defaults import alpha_of, output_tags, wanted_depth
from ..hdr_output import hdr_losses
from ..options import SinkOptions
from .kinds import PICTURES
from .picture_bytes import density_of, png_of, png_with, tiff_of
from .png_light import with_png_light

_DEEP = frozenset({"PNG", "TIFF"})
_LONGEST_EDGE = {"JPEG": 65535, "WebP": 16383}
# What one segment of a JPEG file holds beside its name.
_SEGMENT_BYTES = 65533 - 32
# av_image_check_size() refuses sizes from here on.
_FFMPEG_MOST_PIXELS = (1 << 31) // 8 - 1
# H.273 code points that readers of a file without a profile assume, or that cannot be told from it by eye.
_PLAIN_PRIMARIES, _PLAIN_TRANSFERS = frozenset({1, 2, 5, 6, 7}), frozenset({1, 2, 4, 5, 6, 7, 13, 14, 15})


@dataclass(frozen=True)
class PictureFormat:
    """How one picture is encoded."""

    kind: str
    """PNG, TIFF, JPEG or WebP."""
    bit_depth: int
    """8 or 16."""
    quality: float
    """1..100 for JPEG and WebP; 100 is lossless WebP."""
    tags: ColorTags
    """Resolved, full-range R'G'B'."""
    aspect: Fraction = Fraction(1)
    """Width of a pixel over its height."""
    metadata: PictureMetadata = field(default_factory=PictureMetadata)
    """What pictures say that bring no metadata of their own."""
    warnings: tuple[str, ...] = ()
    hdr: HdrMetadata = field(default_factory=HdrMetadata)
    """Written into PNG files, which have a place for it."""

    def coding(self, width: int, height: int, *, has_alpha: bool) -> Coding:
        """Code values of which a picture is made with the same samples as of what they were rounded from."""
        deep = "gbrap16le" if has_alpha else "gbrp16le"
        shallow = "bgra" if has_alpha else "bgr0"
        pix_fmt = deep if self.bit_depth == 16 else shallow
        return coding_for(pix_fmt, (width, height), replace(self.tags, range=ColorRange.FULL, matrix=Matrix.RGB))

    @staticmethod
    def of(suffix: str, size: tuple[int, int], source: SourceInfo | None, options: SinkOptions) -> PictureFormat:
        """Return the format for a file ending; depths above 8 become 16 in PNG and TIFF, and 8 elsewhere.

        `size` is (width, height). Raises OutputError if the format has no pictures that large.
        """
        kind = PICTURES[suffix]
        wanted = options.bit_depth or wanted_depth(source)
        longest = _LONGEST_EDGE.get(kind)
        if longest is not None and max(size) > longest:
            raise OutputError(
                f"{kind} holds pictures of at most {longest} pixels a side, {size[0]}x{size[1]} were wanted; use .png "
                "or .tif."
            )
        depth = 16 if wanted > 8 and kind in _DEEP else 8
        metadata = source.metadata if source is not None and source.metadata is not None else PictureMetadata()
        aspect = source.sample_aspect_ratio if source is not None else Fraction(1)
        tags = output_tags(source, is_rgb=True)
        warnings = []
        if kind == "JPEG" and source is not None and source.has_alpha:
            warnings.append(f"JPEG holds no alpha; {alpha_of(source)} left out: use .png to keep it.")
        if wanted > 8 and kind not in _DEEP:
            warnings.append(f"{suffix[1:]} holds 8 bits per sample, {wanted} were wanted; use .png to keep them.")
        warnings += _left_out(kind, metadata, tags)
        quality = 95.0 if options.quality is None else max(1.0, options.quality)
        warnings += hdr_losses(suffix[1:], depth, source)
        hdr = source.hdr if source is not None else HdrMetadata()
        return PictureFormat(kind, depth, quality, tags, aspect, metadata, tuple(warnings), hdr)


def encode_picture(
    rgb: torch.Tensor, alpha: torch.Tensor | None, form: PictureFormat, metadata: PictureMetadata | None = None
) -> bytes:
    """Return the bytes of one picture file from float (3,H,W) `rgb` and (1,H,W) `alpha` or None, in [0,1].

    `metadata` is what this picture's source said; None takes the format's. Raises OutputError for a TIFF beyond 4 GB.
    """
    metadata = form.metadata if metadata is None else metadata
    height, width = int(rgb.shape[1]), int(rgb.shape[2])
    if metadata.exif is not None:
        metadata = replace(metadata, exif=with_size(metadata.exif, width, height))
    if form.kind == "PNG":
        fits = (width + 128) * (height + 128) < _FFMPEG_MOST_PIXELS
        png = _png_by_ffmpeg(rgb, alpha, form) if fits else png_of(_codes(rgb, alpha, form.bit_depth))
        return with_png_light(png_with(png, metadata, form.aspect), form.hdr)
    if form.kind == "TIFF":
        try:
            return tiff_of(_codes(rgb, alpha, form.bit_depth), metadata, form.aspect)
        except ValueError as error:
            raise OutputError(f"{width}x{height}: {error}.") from error
    if form.kind == "JPEG":
        return _jpeg(Image.fromarray(_codes(rgb, None, 8)), form, metadata)
    return _webp(Image.fromarray(_codes(rgb, alpha, 8)), form, metadata)


def require_picture(path: Path) -> str:
    """Return the lower-case ending of a picture that can be written; raises OutputError otherwise."""
    suffix = path.suffix.lower()
    if suffix not in PICTURES:
        known = " ".join(sorted(PICTURES))
        raise OutputError(f"{path}: expected a picture ending in {known}, found {suffix!r}; rename the output.")
    return suffix


def _left_out(kind: str, metadata: PictureMetadata, tags: ColorTags) -> list[str]:
    """Sentences about what this kind of file cannot say."""
    sentences = []
    if kind == "JPEG":
        for name, block in (("EXIF", metadata.exif), ("XMP", metadata.xmp)):
            if block is not None and len(block) > _SEGMENT_BYTES:
                sentences.append(f"JPEG holds 64 KB of {name}, the source has {len(block)} bytes; it is left out.")
    if metadata.text and kind != "PNG":
        sentences.append(f"{kind} holds no notes as PNG does ({metadata.text[0][0]}, ...); they are left out.")
    is_plain = tags.primaries in _PLAIN_PRIMARIES and tags.transfer in _PLAIN_TRANSFERS
    if kind != "PNG" and metadata.icc is None and not is_plain:
        sentences.append(
            f"{kind} holds no colour tags ({tags.describe()}), so programs will show it as sRGB; use .png to keep them."
        )
    return sentences


def _codes(rgb: torch.Tensor, alpha: torch.Tensor | None, bits: int) -> NDArray[Any]:
    """(H,W,3 or 4) uint8 or uint16: the nearest code values."""
    planes = rgb if alpha is None else torch.cat((rgb, alpha.to(rgb.device, rgb.dtype)))
    kind = np.uint8 if bits == 8 else np.uint16
    codes = np.empty((*planes.shape[1:], planes.shape[0]), kind)
    for index, plane in enumerate(planes):
        values = plane.detach().to("cpu", torch.float32)
        codes[:, :, index] = quantise(values, bits, ColorRange.FULL).numpy()
    return codes


def _png_by_ffmpeg(rgb: torch.Tensor, alpha: torch.Tensor | None, form: PictureFormat) -> bytes:
    if form.bit_depth == 16:
        pix_fmt = "rgb48be" if alpha is None else "rgba64be"
    else:
        pix_fmt = "rgb24" if alpha is None else "rgba"
    context = av.CodecContext.create("png", "w")
    assert isinstance(context, av.VideoCodecContext)
    context.width, context.height, context.pix_fmt = rgb.shape[2], rgb.shape[1], pix_fmt
    context.time_base = Fraction(1, 25)
    context.color_range, context.colorspace = int(form.tags.range), int(form.tags.matrix)
    context.color_primaries, context.color_trc = form.tags.primaries, form.tags.transfer
    frame = encode_frame(rgb, alpha, pix_fmt, form.tags)
    frame.pts = 0
    return b"".join(bytes(packet) for packet in [*context.encode(frame), *context.encode(None)])


def _jpeg(picture: Image.Image, form: PictureFormat, metadata: PictureMetadata) -> bytes:
    """Full chroma resolution; the density goes into the JFIF header, which Pillow writes in whole dots per inch."""
    blocks: dict[str, bytes] = {}
    if metadata.exif is not None and len(metadata.exif) <= _SEGMENT_BYTES:
        blocks["exif"] = PREFIX + metadata.exif
    if metadata.xmp is not None and len(metadata.xmp) <= _SEGMENT_BYTES:
        blocks["xmp"] = metadata.xmp
    if metadata.icc is not None:
        blocks["icc_profile"] = metadata.icc
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=round(form.quality), subsampling="4:4:4", **blocks)
    data = bytearray(buffer.getvalue())
    density = density_of(metadata, form.aspect)
    if density is not None and data[6:11] == b"JFIF\0":
        x, y, per_inch = density
        data[13] = int(per_inch)
        data[14:16], data[16:18] = (min(65535, max(1, round(value))).to_bytes(2, "big") for value in (x, y))
    return bytes(data)


def _webp(picture: Image.Image, form: PictureFormat, metadata: PictureMetadata) -> bytes:
    """WebP has no resolution of its own; it is said by EXIF."""
    exif = metadata.exif
    density = density_of(metadata, form.aspect)
    if density is not None and (exif is None or resolution_of(exif) is None):
        exif = _exif_with(exif, density)
    blocks = {"exif": exif, "icc_profile": metadata.icc, "xmp": metadata.xmp}
    given = {name: block for name, block in blocks.items() if block is not None}
    buffer = io.BytesIO()
    lossless = form.quality == 100
    # Lossless: colours under full transparency stay as well (exact), and quality means effort.
    effort = {"quality": 50} if lossless else {"quality": form.quality}
    picture.save(buffer, "WEBP", lossless=lossless, exact=lossless, **effort, **given)
    return buffer.getvalue()


def _exif_with(exif: bytes | None, density: tuple[float, float, bool]) -> bytes | None:
    """EXIF that says the resolution as well; as it was if it is damaged."""
    tags = Image.Exif()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if exif is not None:
                tags.load(PREFIX + exif)
            tags[0x011A], tags[0x011B], tags[0x0128] = density[0], density[1], 2 if density[2] else 1
            return tags.tobytes()[len(PREFIX) :]
    except Exception:  # whatever damaged EXIF makes Pillow raise
        return exif
