"""FrameSource: the upright R'G'B' frames of a clip, a picture, or a sequence of pictures, one at a time."""

from __future__ import annotations

import threading
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
from .choice import is_repeat, main_video
from .damage import Structure, inspect
from .one_file import OneFile, opened_file, require_file
from .picture_file import Damaged, check_readable, header_or_none, read_picture, refuse_misread, unreadable
from .pictures import list_pictures
from .probe import Probed, probe
from .sequence import describe_sequence, read_sequence
from .size_change import SizeChange

DEFAULT_SEQUENCE_RATE = Fraction(24)
# Pictures that an open group of pictures at the start of a recording can leave without what they refer to.
_LEFT_OUT_AT_JOIN = 16


class FrameSource:
    """Frames in order, read once, in constant memory; close it, or use it in a `with` statement.

    `info` describes the whole source; `warnings` collects sentences about what was found damaged or odd on the way,
    what is known before the first frame being there from the start. It may be closed from another thread than the one
    that reads, whose iteration then ends.
    """

    def __init__(
        self, info: SourceInfo, frames: Callable[[FrameSource], Iterator[Frame]], warnings: Iterable[str] = ()
    ) -> None:
        self.info = info
        self.warnings: list[str] = list(warnings)
        self.missing_frames = 0
        """Frames that the file promises and that could not be read; complete when all frames have been read."""
        self.is_incomplete = False
        """Whether anything is missing from the file, be it that nobody knows how many frames."""
        self.is_closed = False
        self._lock = threading.RLock()
        self._frames = frames(self)

    def __iter__(self) -> Iterator[Frame]:
        return self

    def __next__(self) -> Frame:
        with self._lock:
            if self.is_closed:
                raise StopIteration
            return next(self._frames)

    def __len__(self) -> int:
        return self.info.selected_frames

    def __enter__(self) -> FrameSource:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file, after the frame that is being read; frames that were not read yet are gone."""
        self.is_closed = True
        with self._lock:
            close = getattr(self._frames, "close", None)
            # Within the reading thread itself, from a signal's handler say, the frame in progress ends it.
            if close is not None and not getattr(self._frames, "gi_running", False):
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
    require_file(path)
    structure = _structure_of(path)
    _check_complete(path, structure, damaged)
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
        probed = probe(path, structure)
    except VideoError as error:
        raise unreadable(path, error) from error
    _check_faults(probed, damaged)
    info = probed.info
    if info.codec in ANIMATED_CODECS:
        info = replace(info, has_alpha=info.has_alpha and is_transparent(path), loop_count=loop_count(path))
    info = _trimmed(info, start, frames)
    if probed.size_change is not None:
        _check_sizes(info, probed.size_change)
    source = FrameSource(info, lambda source: _read_video(source, probed, damaged), probed.notes)
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


def _check_complete(path: Path, structure: Structure | None, damaged: Damaged) -> None:
    if structure is not None and structure.is_forged:
        raise VideoError(f"{path}: expected a clip, found a file of countless tiny parts, which no program writes.")
    if damaged == "refuse" and structure is not None and structure.missing_bytes:
        raise VideoError(
            f"{path}: the file is truncated, its last {structure.missing_bytes} bytes are missing; copy it again, or "
            "take what can be read (`upscale --keep-damaged`)."
        )


def _check_sizes(info: SourceInfo, change: SizeChange) -> None:
    if change.frame < info.first_frame + info.selected_frames:
        raise VideoError(_size_sentence(info, change.frame, change.width, change.height))


def _size_sentence(info: SourceInfo, frame: int, width: int, height: int) -> str:
    expected = (info.height, info.width) if info.orientation.transpose else (info.width, info.height)
    place = f"frame {frame}" + (f" ({float(frame / info.average_rate):.2f} s)" if info.average_rate else "")
    return (
        f"{info.path}: expected {expected[0]}x{expected[1]} throughout, found {width}x{height} at {place}; cut the "
        f"clip there, or take what comes before (--frames {max(1, frame - info.first_frame)})."
    )


def _check_faults(probed: Probed, damaged: Damaged) -> None:
    if damaged == "refuse" and probed.faults:
        raise VideoError(
            f"{probed.info.path}: the file is damaged: {', and '.join(probed.faults[:2])}; copy it again, or take what "
            "can be read (`upscale --keep-damaged`)."
        )


def _read_video(source: FrameSource, probed: Probed, damaged: Damaged) -> Iterator[Frame]:
    """Decode, drop the frames before the first wanted one, and make timestamps strictly increasing."""
    info = source.info
    step = max(1, round(1 / (info.average_rate * info.time_base))) if info.average_rate else 1
    last_pts: int | None = None
    yielded = moved = 0
    with closing(_decoded(source, probed, damaged)) as decoded:
        for frame in islice(decoded, info.first_frame, info.first_frame + info.selected_frames):
            pts, duration = frame.pts if frame.pts is not None else frame.dts, frame.duration or step
            if info.timeline.by_rate:
                pts, duration = info.first_frame + yielded, step
            elif pts is None:
                pts = 0 if last_pts is None else last_pts + step
            if last_pts is not None and pts <= last_pts:
                moved += 1
                pts = last_pts + 1
            last_pts = pts
            yielded += 1
            picture = decode_frame(as_direct(frame), info.conversion, info.codec)
            if not info.has_alpha:
                picture = picture[0], None
            yield _finished(cropped(picture, info.crop), info.orientation, pts, duration)
    if moved:
        source.warnings.append(
            f"{moved} frame{'s' if moved > 1 else ''} had a time that does not come after the frame before; moved "
            "right behind it."
        )
    if yielded < info.selected_frames and not source.is_closed:
        _report_missing(source, probed, damaged, yielded)


def _report_missing(source: FrameSource, probed: Probed, damaged: Damaged, found: int) -> None:
    info = source.info
    missing = info.selected_frames - found
    if missing <= probed.leading + _LEFT_OUT_AT_JOIN * len(info.timeline.joins_s):
        source.warnings.append(
            f"{missing} picture{'s' if missing > 1 else ''} refer to others before the start of the recording, which "
            "the file does not hold; left out."
        )
        return
    sentence = f"{info.path}: expected {info.selected_frames} frames, found {found} that decode; the rest is missing"
    if damaged == "refuse":
        raise VideoError(f"{sentence}; copy it again, or take what can be read (`upscale --keep-damaged`).")
    source.missing_frames += missing
    source.is_incomplete = True
    source.warnings.append(f"{sentence}.")


def _decoded(source: FrameSource, probed: Probed, damaged: Damaged) -> Generator[av.VideoFrame]:
    info = source.info
    count = 0
    with opened_file(info.path) as (container, file):
        if file.identity != probed.identity:
            raise VideoError(f"{info.path}: the file was changed after it was looked at; start again.")
        stream = main_video(container, info.path)
        stream.thread_type = "AUTO"
        clock = info.timeline.clock(stream.index)
        packets = container.demux(stream)
        while not source.is_closed:
            try:
                packet = next(packets, None)
                if packet is None:
                    break
                if is_repeat(packet):
                    continue
                if packet.size:
                    clock.move(packet)
                frames = packet.decode()
            except av.FFmpegError as error:
                _check_unchanged(source, file, damaged)
                _report_damage(source, damaged, count, error)
                continue
            for frame in frames:
                if frame.is_corrupt:
                    _check_unchanged(source, file, damaged)
                    _report_damage(source, damaged, count, None)
                _check_size(frame, info, count)
                yield frame
                count += 1
        _check_unchanged(source, file, damaged)


def _check_unchanged(source: FrameSource, file: OneFile, damaged: Damaged) -> None:
    """Tell a file that somebody writes to or cuts from one that is damaged."""
    if file.error is not None:
        raise VideoError(f"{file.path}: it cannot be read further ({file.error.strerror}); check the disk.")
    before, now = file.identity, file.current_identity()
    if now.size_bytes == before.size_bytes:
        if now != before:
            sentence = f"{file.path}: its time of writing changed while it was read; check the result."
            if sentence not in source.warnings:
                source.warnings.append(sentence)
        return
    raise VideoError(
        f"{file.path}: the file was changed while it was read: expected {before.size_bytes} bytes, found "
        f"{now.size_bytes}; wait until it is complete and start again."
    )


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
        raise VideoError(_size_sentence(info, index, frame.width, frame.height))


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
