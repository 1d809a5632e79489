"""FrameSource: the upright R'G'B' frames of a clip, a picture, or a sequence of pictures, one at a time."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import replace
from fractions import Fraction
from itertools import islice
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Literal

import av
import torch

from ...errors import InvalidArgumentError, VideoError
from ..color import resolve
from ..info import Frame, Orientation, SourceInfo
from ..planes import as_direct, decode_frame, family_of, orientation_of, source_tags, upright
from .damage import missing_bytes
from .decoders import decoder_of
from .fields import Deinterlace, Detelecine, with_fields
from .pictures import list_pictures
from .probe import codec_name, describe_video, first_frame, main_video, opened
from .undo_fields import undo_fields

Damaged = Literal["refuse", "keep"]
DEFAULT_SEQUENCE_RATE = Fraction(24)


class FrameSource:
    """Frames in order, read once, in constant memory; close it, or use it in a `with` statement.

    `info` describes the whole source; `warnings` collects sentences about what was found damaged or odd on the way.
    """

    def __init__(self, info: SourceInfo, frames: Callable[[FrameSource], Iterator[Frame]]) -> None:
        self.info = info
        self.warnings: list[str] = []
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
    sequence_rate: Fraction = DEFAULT_SEQUENCE_RATE,
    deinterlace: Deinterlace = "auto",
    detelecine: Detelecine = "auto",
) -> FrameSource:
    """Open a clip, a picture, a folder of pictures, a printf pattern or a glob.

    `start` skips that many frames (they are decoded, so that the choice is exact), `frames` limits how many follow.
    Rotation stored in the file is applied. Pictures of a sequence follow each other at `sequence_rate` frames per
    second.
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
    if sequence_rate <= 0:
        raise InvalidArgumentError(f"sequence_rate: expected more than 0 frames per second, got {sequence_rate}.")
    pictures = list_pictures(path)
    if pictures is None:
        _check_complete(path, damaged)
        stored = describe_video(path)
        info = with_fields(stored, deinterlace, detelecine)
        stored = replace(stored, fields=info.fields)
    else:
        info = stored = _describe_sequence(path, pictures, sequence_rate)
    if start >= info.frame_count:
        raise VideoError(f"{path}: expected more than {start} frames to start there, found {info.frame_count}.")
    selected = info.frame_count - start if frames is None else min(frames, info.frame_count - start)
    info = replace(info, first_frame=start, selected_frames=selected)

    def read(source: FrameSource) -> Iterator[Frame]:
        if pictures is not None:
            return _read_sequence(info, pictures[start : start + selected])
        return _read_video(source, stored, damaged)

    return FrameSource(info, read)


def _check_complete(path: Path, damaged: Damaged) -> None:
    if damaged == "refuse" and path.is_file() and (missing := missing_bytes(path)):
        raise VideoError(
            f"{path}: the file is truncated, its last {missing} bytes are missing; copy it again, or take "
            "what can be read (`upscale --keep-damaged`)."
        )


def _read_video(source: FrameSource, stored: SourceInfo, damaged: Damaged) -> Iterator[Frame]:
    """Decode, undo interlacing, drop the frames before the first wanted one, make timestamps strictly increasing."""
    info = source.info
    step = max(1, round(1 / (info.average_rate * info.time_base))) if info.average_rate else 1
    last_pts: int | None = None
    yielded = 0
    with closing(_decoded(source, stored, damaged)) as decoded:
        for frame in islice(undo_fields(decoded, stored), info.first_frame, info.first_frame + info.selected_frames):
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
            yield _finished(picture, info.orientation, pts, frame.duration or step)
    if yielded < info.selected_frames:
        source.warnings.append(
            f"{info.path}: expected {info.selected_frames} frames, found {yielded} that decode; the rest is missing."
        )


def _decoded(source: FrameSource, info: SourceInfo, damaged: Damaged) -> Generator[av.VideoFrame]:
    """The frames as stored, which `info` describes."""
    count = 0
    with opened(info.path) as container:
        stream = main_video(container, info.path)
        stream.thread_type = "AUTO"
        decode = decoder_of(stream)
        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets, None)
                if packet is None:
                    return
                frames = decode(packet)
            except av.FFmpegError as error:
                _report_damage(source, info.average_rate, damaged, count, error)
                continue
            for frame in frames:
                if frame.is_corrupt:
                    _report_damage(source, info.average_rate, damaged, count, None)
                _check_size(frame, info, count)
                yield frame
                count += 1


def _report_damage(
    source: FrameSource, rate: Fraction | None, damaged: Damaged, index: int, error: av.FFmpegError | None
) -> None:
    place = f"frame {index}" + (f" ({float(index / rate):.2f} s)" if rate else "")
    cause = error.strerror if error is not None else "the decoder patched missing parts"
    if damaged == "refuse":
        raise VideoError(
            f"{source.info.path}: {place} or one close to it is damaged ({cause}); repair or cut the clip, or ask for "
            "damaged frames to be kept."
        ) from error
    source.warnings.append(f"{source.info.path}: {place} or one close to it is damaged ({cause}); kept what decodes.")


def _describe_sequence(path: Path, pictures: list[Path], rate: Fraction) -> SourceInfo:
    first = describe_video(pictures[0])
    return replace(
        first,
        path=path,
        kind="sequence",
        frame_count=len(pictures),
        count_method="files",
        average_rate=rate,
        time_base=1 / rate,
        start_s=Fraction(0),
        variable_rate=False,
        duration_s=float(len(pictures) / rate),
    )


def _read_sequence(info: SourceInfo, pictures: list[Path]) -> Iterator[Frame]:
    for index, picture in enumerate(pictures, info.first_frame):
        with opened(picture) as container:
            stream = main_video(container, picture)
            frame = first_frame(container, stream, picture)
            codec = codec_name(stream)
            tags = source_tags(frame, stream.codec_context)
        family = family_of(frame.format)
        tags = resolve(tags, family=family, size=(frame.width, frame.height), codec=codec)
        decoded = decode_frame(as_direct(frame), tags, codec)
        finished = _finished(decoded, orientation_of(frame), pts=index, duration=1)
        height, width = finished.rgb.shape[1:]
        if (width, height) != (info.width, info.height):
            raise VideoError(
                f"{picture}: expected {info.width}x{info.height} like the first picture, found {width}x{height}; "
                "use pictures of one size, or upscale them one by one (--each)."
            )
        yield finished


def _check_size(frame: av.VideoFrame, info: SourceInfo, index: int) -> None:
    width, height = (info.height, info.width) if info.orientation.transpose else (info.width, info.height)
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
