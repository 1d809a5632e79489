"""One picture as the bytes of a file."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import torch

from ...errors import OutputError
from ..hdr_metadata import HdrMetadata
from ..info import ColorRange, ColorTags, Matrix, SourceInfo
from ..planes import encode_frame
from .hdr_output import hdr_losses
from .options import SinkOptions, output_tags, wanted_depth
from .png_light import with_png_light

_ENCODERS = {
    ".png": ("png", True),
    ".tif": ("tiff", True),
    ".tiff": ("tiff", True),
    ".jpg": ("mjpeg", False),
    ".jpeg": ("mjpeg", False),
    ".webp": ("libwebp", False),
}
WRITTEN_SUFFIXES = frozenset(_ENCODERS)
"""Endings of the pictures that can be written."""


@dataclass(frozen=True)
class PictureFormat:
    """How one picture is encoded."""

    encoder: str
    """FFmpeg's encoder."""
    bit_depth: int
    """8 or 16."""
    quality: float
    """1..100 for JPEG and WebP; 100 is lossless WebP."""
    tags: ColorTags
    """Resolved; full-range R'G'B', or full-range BT.601 for JPEG."""
    warnings: tuple[str, ...] = ()
    hdr: HdrMetadata = field(default_factory=HdrMetadata)
    """Written into PNG files, which have a place for it."""

    @staticmethod
    def of(suffix: str, size: tuple[int, int], source: SourceInfo | None, options: SinkOptions) -> PictureFormat:
        """Return the format for a file ending; depths above 8 become 16 in PNG and TIFF, and 8 elsewhere."""
        encoder, is_deep = _ENCODERS[suffix]
        wanted = options.bit_depth or wanted_depth(source)
        tags = output_tags(size, source, is_rgb=True)
        warnings = []
        if encoder == "mjpeg":
            tags = ColorTags(ColorRange.FULL, Matrix.BT470BG, tags.primaries, tags.transfer)
            if source is not None and source.has_alpha:
                warnings.append("JPEG holds no alpha; it is left out, use .png to keep it.")
        if wanted > 8 and not is_deep:
            warnings.append(f"{suffix[1:]} holds 8 bits per sample, {wanted} were wanted; use .png to keep them.")
        depth = 16 if wanted > 8 and is_deep else 8
        quality = 95.0 if options.quality is None else max(1.0, options.quality)
        warnings += hdr_losses(suffix[1:], depth, source)
        hdr = source.hdr if source is not None else HdrMetadata()
        return PictureFormat(encoder, depth, quality, tags, tuple(warnings), hdr)


def encode_picture(rgb: torch.Tensor, alpha: torch.Tensor | None, form: PictureFormat) -> bytes:
    """Return the bytes of one picture file from float (3,H,W) `rgb` and (1,H,W) `alpha` or None, in [0,1]."""
    codec_options: dict[str, str] = {}
    if form.encoder == "mjpeg":
        pix_fmt = "yuvj444p"
        # The quantiser runs from 1 (finest) to 31; quality 95 is 2, 80 is 7.
        scale = str(round(1 + (100 - form.quality) * 0.3))
        codec_options = {"qmin": scale, "qmax": scale}
    elif form.encoder == "libwebp":
        pix_fmt = "bgra"
        codec_options = {"lossless": "1"} if form.quality == 100 else {"quality": f"{form.quality:g}"}
    elif form.bit_depth == 16:
        pix_fmt = ("rgb48" if alpha is None else "rgba64") + ("be" if form.encoder == "png" else "le")
    else:
        pix_fmt = "rgb24" if alpha is None else "rgba"
    context = av.CodecContext.create(form.encoder, "w")
    assert isinstance(context, av.VideoCodecContext)
    context.width, context.height, context.pix_fmt = rgb.shape[2], rgb.shape[1], pix_fmt
    context.time_base = Fraction(1, 25)
    context.options = codec_options
    context.color_range, context.colorspace = int(form.tags.range), int(form.tags.matrix)
    context.color_primaries, context.color_trc = form.tags.primaries, form.tags.transfer
    frame = encode_frame(rgb, alpha, pix_fmt, form.tags)
    frame.pts = 0
    picture = b"".join(bytes(packet) for packet in [*context.encode(frame), *context.encode(None)])
    return with_png_light(picture, form.hdr) if form.encoder == "png" else picture


def require_picture(path: Path) -> str:
    """Return the lower-case ending of a picture that can be written; raises OutputError otherwise."""
    suffix = path.suffix.lower()
    if suffix not in _ENCODERS:
        known = " ".join(sorted(_ENCODERS))
        raise OutputError(f"{path}: expected a picture ending in {known}, found {suffix!r}; rename the output.")
    try:
        av.Codec(_ENCODERS[suffix][0], "w")
    except av.codec.codec.UnknownCodecError as error:
        raise OutputError(
            f"{path}: expected the encoder {_ENCODERS[suffix][0]} in FFmpeg, found a build without it; "
            "write PNG instead."
        ) from error
    return suffix
