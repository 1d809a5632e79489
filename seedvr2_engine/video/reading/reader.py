"""FrameSource: the upright R'G'B' frames of a clip, a picture, or a sequence of pictures, one at a time."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from fractions import Fraction
from itertools import islice
from os import PathLike
from pathlib import Path
from types import TracebackType

import av
import torch

from ...errors import InvalidArgumentError, VideoError
from ..info import Frame, Orientation, SourceInfo
from ..planes import as_direct, cropped, decode_frame, upright
from .animation import ANIMATED_CODECS, describe_animation, is_transparent, loop_count, read_animation
from .damage import missing_bytes
from .picture_file import Damaged, check_readable, header_or_none, read_picture, refuse_misread, unreadable
from .pictures import list_pictures
from .probe import describe_video, main_video, opened
from .sequence import describe_sequence, read_sequence

DEFAULT_SEQUENCE_RATE = Fraction(24)


class FrameSource:
    """Frames in order, read once, in constant memory; close it, or use it in a `with` statement.

    `info` describes the whole source; `warnings` collects sentences about what was found damaged or odd on the way.
    """

    def __init__(
        self, info: SourceInfo, frames: Callable[[FrameSource], Iterator[Frame]], warnings: Iterable[str] = ()
    ) -> None:
        self.info = info
        self.warnings: list[str] = list(warnings)
        self._frames = frames(self)

    def __iter__(self) -> Iterator[Frame]:
        return self._frames

    def __len__(self) -> int:
        return self.info.selected_frames

    def __enter__(self) -> FrameSource:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; frames that were not read yet are gone."""
        close = getattr(self._frames, "close", None)
        if close is not None:
            close()


def open_source(
    path: str | PathLike[str],
    *,
    start: int = 0,
    frames: int | None = None,
    damaged: Damaged = "refuse",
    sequence_rate: Fraction | None = None,
) -> FrameSource:
    """Open a clip, a picture, a folder of pictures, a printf pattern or a glob.

    `start` skips that many frames (they are decoded, so that the choice is exact), `frames` limits how many follow.
    Rotation stored in the file is applied; interlaced frames come as they are stored. Pictures of a sequence follow
    each other at `sequence_rate` frames per second, DEFAULT_SEQUENCE_RATE if None; clips have their own times, so
    that asking for a rate is an error with them.
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
    _check_complete(path, damaged)
    header = header_or_none(path)
    if header is not None and not header.is_animated:
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
        info = describe_video(path)
    except VideoError as error:
        raise unreadable(path, error) from error
    if info.codec in ANIMATED_CODECS:
        info = replace(info, has_alpha=info.has_alpha and is_transparent(path), loop_count=loop_count(path))
    info = _trimmed(info, start, frames)
    return FrameSource(info, lambda source: _read_video(source, damaged))


def _trimmed(info: SourceInfo, start: int, frames: int | None) -> SourceInfo:
    if start >= info.frame_count:
        raise VideoError(f"{info.path}: expected more than {start} frames to start there, found {info.frame_count}.")
    selected = info.frame_count - start if frames is None else min(frames, info.frame_count - start)
    return replace(info, first_frame=start, selected_frames=selected)


def _check_complete(path: Path, damaged: Damaged) -> None:
    if damaged == "refuse" and path.is_file() and (missing := missing_bytes(path)):
        raise VideoError(
            f"{path}: the file is truncated, its last {missing} bytes are missing; copy it again, or take "
            "what can be read (`upscale --keep-damaged`)."
        )


def _read_video(source: FrameSource, damaged: Damaged) -> Iterator[Frame]:
    """Decode, drop the frames before the first wanted one, and make timestamps strictly increasing."""
    info = source.info
    step = max(1, round(1 / (info.average_rate * info.time_base))) if info.average_rate else 1
    last_pts: int | None = None
    yielded = 0
    with closing(_decoded(source, damaged)) as decoded:
        for frame in islice(decoded, info.first_frame, info.first_frame + info.selected_frames):
            pts = frame.pts if frame.pts is not None else frame.dts
            if pts is None:
                pts = 0 if last_pts is None else last_pts + step
            if last_pts is not None and pts <= last_pts:
                source.warnings.append(
                    f"Frame {info.first_frame + yielded} has timestamp {pts} after {last_pts}; moved behind it."
                )
                pts = last_pts + 1
            last_pts = pts
            yielded += 1
            picture = decode_frame(as_direct(frame), info.conversion, info.codec)
            if not info.has_alpha:
                picture = picture[0], None
            yield _finished(cropped(picture, info.crop), info.orientation, pts, frame.duration or step)
    if yielded < info.selected_frames:
        source.warnings.append(
            f"{info.path}: expected {info.selected_frames} frames, found {yielded} that decode; the rest is missing."
        )


def _decoded(source: FrameSource, damaged: Damaged) -> Generator[av.VideoFrame]:
    info = source.info
    count = 0
    with opened(info.path) as container:
        stream = main_video(container, info.path)
        stream.thread_type = "AUTO"
        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets, None)
                if packet is None:
                    return
                frames = packet.decode()
            except av.FFmpegError as error:
                _report_damage(source, damaged, count, error)
                continue
            for frame in frames:
                if frame.is_corrupt:
                    _report_damage(source, damaged, count, None)
                _check_size(frame, info, count)
                yield frame
                count += 1


def _report_damage(source: FrameSource, damaged: Damaged, index: int, error: av.FFmpegError | None) -> None:
    rate = source.info.average_rate
    place = f"frame {index}" + (f" ({float(index / rate):.2f} s)" if rate else "")
    cause = error.strerror if error is not None else "the decoder patched missing parts"
    if damaged == "refuse":
        raise VideoError(
            f"{source.info.path}: {place} or one close to it is damaged ({cause}); repair or cut the clip, or ask for "
            "damaged frames to be kept."
        ) from error
    source.warnings.append(f"{source.info.path}: {place} or one close to it is damaged ({cause}); kept what decodes.")


def _check_size(frame: av.VideoFrame, info: SourceInfo, index: int) -> None:
    width, height = (info.height, info.width) if info.orientation.transpose else (info.width, info.height)
    width, height = width + info.crop.left + info.crop.right, height + info.crop.top + info.crop.bottom
    if (frame.width, frame.height) != (width, height):
        raise VideoError(
            f"{info.path}: expected {width}x{height} throughout, found {frame.width}x{frame.height} at frame {index}; "
            "cut the clip where its size changes."
        )


def _finished(
    picture: tuple[torch.Tensor, torch.Tensor | None], orientation: Orientation, pts: int, duration: int
) -> Frame:
    rgb, alpha = picture
    return Frame(
        rgb=upright(rgb, orientation),
        alpha=None if alpha is None else upright(alpha, orientation),
        pts=pts,
        duration=max(1, duration),
    )
