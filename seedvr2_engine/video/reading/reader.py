"""Open a clip, a picture, or a sequence of pictures for reading."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from os import PathLike
from pathlib import Path

from ...errors import InvalidArgumentError, VideoError
from ..info import SourceInfo
from .clip_frames import check_size_change, read_clip
from .container.damage import Structure, inspect
from .container.demuxers import clip_endings
from .container.one_file import require_file
from .container.signatures import refuse_misread, unreadable
from .fields.decide import Deinterlace, Detelecine, with_fields
from .pictures.animation import ANIMATED_CODECS, describe_animation, is_transparent, loop_count, read_animation
from .pictures.file import check_readable, header_or_none, read_picture
from .pictures.header import PictureHeader
from .pictures.selection import list_pictures
from .pictures.sequence import describe_sequence, read_sequence
from .probe import Probed, probe
from .source import Damaged, FrameSource
from .structure.animated import holds_gif_images

# Endings of clips that single pictures have as well.
_STILL_TOO = frozenset((".apng", ".mj2"))
# Pictures that the web hands out as .gif, whatever they are.
_WEB = frozenset(("GIF", "PNG", "JPEG", "WEBP", "AVIF"))
DEFAULT_SEQUENCE_RATE = Fraction(24)


def open_source(
    path: str | PathLike[str],
    *,
    start: int = 0,
    frames: int | None = None,
    damaged: Damaged = "refuse",
    sequence_rate: Fraction | None = None,
    deinterlace: Deinterlace = "auto",
    detelecine: Detelecine = "auto",
) -> FrameSource:
    """Open a clip, a picture, a folder of pictures, a printf pattern or a glob.

    `start` skips that many frames (they are decoded, so that the choice is exact), `frames` limits how many follow.
    Rotation stored in the file is applied. Pictures of a sequence follow each other at `sequence_rate` frames per
    second, DEFAULT_SEQUENCE_RATE if None; clips have their own times, so that asking for a rate is an error with them.
    Interlaced clips are deinterlaced (`deinterlace`: "bwdif" at their frame rate, "bwdif-fields" at their field rate)
    and film is freed of 3:2 pulldown (`detelecine`); "auto" looks at a sample of the frames and at their flags, "off"
    leaves them as stored. `info.fields` says what was found, and `info.remarks` in words; `start` and `frames` count
    the frames that come out of it.
    `damaged="refuse"` raises VideoError for a truncated file and, naming the frame, at the first damage that the
    decoder reports, since patched pictures would be upscaled into believable detail; "keep" goes on with what the
    decoder makes of it and records a sentence in `warnings`. Decoders do not report everything that they patch.
    Raises VideoError for whatever cannot be read, InvalidArgumentError for a bad `start` or `frames`.
    """
    path = Path(path)
    if start < 0:
        raise InvalidArgumentError(f"start: expected at least 0 frames to skip, got {start}.")
    if frames is not None and frames < 1:
        raise InvalidArgumentError(
            f"frames: expected at least 1 frame to take, got {frames}; leave it out to take all."
        )
    if sequence_rate is not None and sequence_rate <= 0:
        raise InvalidArgumentError(f"sequence_rate: expected more than 0 frames per second, got {sequence_rate}.")
    pictures = list_pictures(path)
    found: list[str] = []
    if pictures is not None:
        if start < len(pictures):
            chosen = slice(start, None if frames is None else start + frames)
            info = describe_sequence(path, pictures, chosen, sequence_rate or DEFAULT_SEQUENCE_RATE, damaged, found)
            info = _trimmed(info, start, frames)
            wanted = pictures[chosen]
            return FrameSource(info, lambda source: read_sequence(info, wanted, damaged, source.warnings), found)
        raise VideoError(f"{path}: expected more than {start} frames to start there, found {len(pictures)}.")
    if sequence_rate is not None and path.exists():
        raise InvalidArgumentError(
            f"rate: expected a sequence of pictures (a folder or a pattern), got {path}, which has its own times; "
            "leave the rate out."
        )
    require_file(path)
    structure = _structure_of(path)
    _check_complete(path, structure, damaged)
    header = header_or_none(path)
    if header is not None and header.format == "JPEG" and path.suffix.lower() in clip_endings():
        header = None  # Motion JPEG begins as a picture does.
    if header is not None and header.format == "PNG" and structure is not None and sum(structure.pictures) > 1:
        header = None  # Animated, which Pillow does not see where its writer was killed.
    if header is not None and not header.is_animated:
        _check_name(path, header)
        picture = read_picture(path, header, damaged)
        info = _trimmed(picture.describe(path), start, frames)
        found += [f"{path}: {remark}." for remark in picture.remarks]
        return FrameSource(info, lambda source: iter([picture.frame(0)]), found)
    if header is not None and header.format in ("WEBP", "AVIF"):
        check_readable(path, header)
        info = _trimmed(describe_animation(path, header), start, frames)
        return FrameSource(info, lambda source: read_animation(info))
    refuse_misread(path)
    try:
        probed = probe(path, structure)
    except VideoError as error:
        raise unreadable(path, error) from error
    _check_faults(probed, damaged)
    info = probed.info
    if info.codec in ANIMATED_CODECS or info.pix_fmt == "pal8":
        info = replace(info, has_alpha=info.has_alpha and is_transparent(path))
    if info.codec in ANIMATED_CODECS:
        info = replace(info, loop_count=loop_count(path))
    stored = info
    info = with_fields(stored, deinterlace, detelecine)
    stored = replace(stored, fields=info.fields)
    info = _trimmed(info, start, frames)
    if probed.size_change is not None:
        check_size_change(info, probed.size_change)
    source = FrameSource(info, lambda source: read_clip(source, stored, probed, damaged), probed.notes)
    faults = probed.faults
    if structure is not None and structure.missing_bytes:
        faults = (f"the file is truncated, its last {structure.missing_bytes} bytes are missing", *faults)
    source.warnings += [f"{path}: {fault}; taken as far as it can be read." for fault in faults]
    source.missing_frames = probed.missing
    source.is_incomplete = bool(faults)
    return source


def _trimmed(info: SourceInfo, start: int, frames: int | None) -> SourceInfo:
    if start >= info.frame_count:
        raise VideoError(f"{info.path}: expected more than {start} frames to start there, found {info.frame_count}.")
    selected = info.frame_count - start if frames is None else min(frames, info.frame_count - start)
    return replace(info, first_frame=start, selected_frames=selected)


def _structure_of(path: Path) -> Structure | None:
    """What a file says of itself; None where it cannot be read, of which opening it says why."""
    try:
        return inspect(path) if path.is_file() else None
    except OSError:
        return None


def _check_name(path: Path, header: PictureHeader) -> None:
    """Raise VideoError for one picture with the name of a clip: a clip's damaged start can look like one."""
    suffix = path.suffix.lower()
    if suffix in clip_endings() - _STILL_TOO and not (suffix == ".gif" and header.format in _WEB):
        raise VideoError(
            f"{path}: expected a clip by its name, found one {header.format} picture; name it .{header.format.lower()} "
            "if that is what it is, or else copy the clip again."
        )
    if suffix == ".gif" and header.format != "GIF" and holds_gif_images(path):
        raise VideoError(
            f"{path}: expected a GIF by its name, found one {header.format} picture and a GIF's images behind it, as "
            "where a start is overwritten; copy it again."
        )


def _check_complete(path: Path, structure: Structure | None, damaged: Damaged) -> None:
    if structure is not None and structure.is_forged:
        raise VideoError(f"{path}: expected a clip, found a file of countless tiny parts, which no program writes.")
    if damaged == "refuse" and structure is not None and structure.missing_bytes:
        raise VideoError(
            f"{path}: the file is truncated, its last {structure.missing_bytes} bytes are missing; copy it again, or "
            "take what can be read (`upscale --keep-damaged`)."
        )


def _check_faults(probed: Probed, damaged: Damaged) -> None:
    if damaged == "refuse" and probed.faults:
        raise VideoError(
            f"{probed.info.path}: the file is damaged: {', and '.join(probed.faults[:2])}; copy it again, or take what "
            "can be read (`upscale --keep-damaged`)."
        )
