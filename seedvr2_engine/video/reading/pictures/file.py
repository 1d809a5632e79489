"""One picture file: its upright pixels, and what it says beside them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch

from ....errors import VideoError
from ... import profiles
from ...coded import upright
from ...color_tags import ColorTags
from ...hdr_metadata import HdrMetadata
from ...info import Frame, Orientation, PictureMetadata, SourceInfo
from ..container.signatures import plain_tiff_bytes, refuse_misread
from ..source import Damaged
from .damage import lacks_end
from .decoding import decode_picture
from .header import PictureHeader, read_header

# Of a picture whose samples are stored as they are, this much more than the file holds is not worth patching.
_MOST_PATCHED = 16
MOST_PIXELS = 1 << 30
"""Pixels of the largest picture that is read: 32768 x 32768, 12 GB as floating point numbers."""
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
        stored = decode_picture(path, header, damaged)
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
