"""Pictures that follow each other: looked over before the first is computed, then read one at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import av
import torch

from ....errors import VideoError
from ... import profiles
from ...info import Frame, SourceInfo
from ...planes import bit_depth, has_alpha
from ..container.signatures import refuse_misread, unreadable
from ..probe import first_frame, main_video, opened
from ..source import Damaged
from .damage import lacks_end
from .file import check_readable, header_or_none, read_picture
from .header import PictureHeader


@dataclass(frozen=True)
class _Look:
    """What is known of one picture of a sequence without decoding all of it."""

    size: tuple[int, int]
    bits: int
    may_have_alpha: bool
    profile: bytes | None


def describe_sequence(
    path: Path, pictures: list[Path], chosen: slice, rate: Fraction, damaged: Damaged, warnings: list[str]
) -> SourceInfo:
    """Return the description of a sequence of which the pictures `chosen` are to be read; sentences go to `warnings`.

    The header of every chosen picture is read, which takes about 0.2 ms each, so that a picture of another size or
    one that is cut off is an error before hours of work: VideoError names it. The sequence is as deep as its deepest
    picture, and has alpha if one of them may have.
    """
    wanted = pictures[chosen] or pictures[:1]
    first = _first_picture(wanted[0], damaged)
    looks = _looked_over(wanted, damaged, (first.width, first.height), warnings)
    names = tuple(str(picture.relative_to(path)) if path.is_dir() else picture.name for picture in pictures)
    bits, transparent = first.bit_depth, first.has_alpha
    for look in looks:
        bits, transparent = max(bits, look.bits), transparent or look.may_have_alpha
    return replace(
        first,
        path=path,
        kind="sequence",
        frame_count=len(pictures),
        average_rate=rate,
        time_base=1 / rate,
        duration_s=float(len(pictures) / rate),
        bit_depth=bits,
        has_alpha=transparent,
        pictures=names,
    )


def read_sequence(info: SourceInfo, pictures: Iterable[Path], damaged: Damaged, warnings: list[str]) -> Iterator[Frame]:
    """Decode one picture after the other; a remark that holds for many of them is made once."""
    said: set[str] = set()
    for index, path in enumerate(pictures, info.first_frame):
        picture = read_picture(path, header_or_none(path), damaged)
        for remark in picture.remarks:
            if remark not in said:
                warnings.append(f"{path}: {remark}.")
                said.add(remark)
        frame = picture.frame(index)
        size = frame.rgb.shape[2], frame.rgb.shape[1]
        if size != (info.width, info.height):
            raise _other_size(path, (info.width, info.height), size)
        if info.has_alpha and frame.alpha is None:
            frame = replace(frame, alpha=torch.ones(1, info.height, info.width))
        yield frame


def _first_picture(path: Path, damaged: Damaged) -> SourceInfo:
    return read_picture(path, header_or_none(path), damaged).describe(path)


def _looked_over(pictures: list[Path], damaged: Damaged, size: tuple[int, int], warnings: list[str]) -> Iterator[_Look]:
    profile: bytes | None = None
    told = False
    for index, picture in enumerate(pictures):
        look = _look(picture)
        if look.size != size:
            raise _other_size(picture, size, look.size)
        if damaged == "refuse" and lacks_end(picture):
            raise VideoError(
                f"{picture}: the picture is truncated, its end is missing; copy it again, or take what can be read "
                "(`upscale --keep-damaged`)."
            )
        if index == 0:
            profile = look.profile
        elif look.profile != profile and not told:
            told = True
            warnings.append(
                f"{picture}: its colour profile is not the first picture's; pictures keep theirs, a clip has one for "
                "all."
            )
        yield look


def _look(path: Path) -> _Look:
    header = header_or_none(path, is_whole=False)
    if header is None:
        return _look_by_ffmpeg(path)
    check_readable(path, header)
    return _Look(header.size, header.bits, header.may_have_alpha, _rgb_profile(header))


def _rgb_profile(header: PictureHeader) -> bytes | None:
    profile = header.metadata.icc
    return profile if profile is not None and profiles.space_of(profile) == "RGB" else None


def _look_by_ffmpeg(path: Path) -> _Look:
    refuse_misread(path)
    try:
        with opened(path) as container:
            stream = main_video(container, path)
            context = stream.codec_context
            pix_fmt = av.VideoFormat(context.pix_fmt) if context.pix_fmt else None
            if pix_fmt is None or not context.width:
                frame = first_frame(container, stream, path)
                return _Look((frame.width, frame.height), bit_depth(frame.format), has_alpha(frame.format), None)
            return _Look((context.width, context.height), bit_depth(pix_fmt), has_alpha(pix_fmt), None)
    except VideoError as error:
        raise unreadable(path, error) from error


def _other_size(path: Path, expected: tuple[int, int], found: tuple[int, int]) -> VideoError:
    return VideoError(
        f"{path}: expected {expected[0]}x{expected[1]} like the first picture, found {found[0]}x{found[1]}; "
        "use pictures of one size, or upscale them one by one (--each)."
    )
