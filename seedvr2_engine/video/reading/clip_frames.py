"""The frames of a clip: decoded, whole, upright, with times that rise."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice

import av

from ...errors import VideoError
from ..coded import CodedFrame
from ..demuxing import packets_of
from ..info import SourceInfo
from ..planes import as_direct, codes_of, coding_of
from .container.choice import is_repeat, main_video
from .container.one_file import OneFile, opened_file
from .container.size_change import SizeChange
from .decoders import decoder_of
from .fields.undo import undo_fields
from .probe import Probed
from .source import Damaged, FrameSource

# Frames at the start that are held until one with a time comes.
_MOST_WITHOUT_TIME = 32


def check_size_change(info: SourceInfo, change: SizeChange) -> None:
    """Raise VideoError if the size changes within the frames that are wanted."""
    if change.frame < info.first_frame + info.selected_frames:
        raise VideoError(_size_sentence(info, change.frame, change.width, change.height))


def _size_sentence(info: SourceInfo, frame: int, width: int, height: int) -> str:
    expected = (info.height, info.width) if info.orientation.transpose else (info.width, info.height)
    place = f"frame {frame}" + (f" ({float(frame / info.average_rate):.2f} s)" if info.average_rate else "")
    return (
        f"{info.path}: expected {expected[0]}x{expected[1]} throughout, found {width}x{height} at {place}; cut the "
        f"clip there, or take what comes before (--frames {max(1, frame - info.first_frame)})."
    )


def _timed(frames: Iterable[av.VideoFrame], step: int) -> Iterator[tuple[av.VideoFrame, int | None]]:
    """Each frame with its time; those before the first known one count back from it, a few frames at most."""
    early: list[av.VideoFrame] = []
    is_known = False
    for frame in frames:
        pts = frame.pts if frame.pts is not None else frame.dts
        if not is_known and pts is None and len(early) < _MOST_WITHOUT_TIME:
            early.append(frame)
            continue
        for place, before in enumerate(early):
            yield before, None if pts is None else pts - step * (len(early) - place)
        early.clear()
        is_known = True
        yield frame, pts
    for frame in early:
        yield frame, None


def read_clip(source: FrameSource, stored: SourceInfo, probed: Probed, damaged: Damaged) -> Iterator[CodedFrame]:
    """Decode, undo interlacing, drop the frames before the first wanted one, make timestamps strictly increasing.

    `stored` describes the frames as the file holds them, `source.info` as they are wanted.
    """
    info = source.info
    step = max(1, round(1 / (info.average_rate * info.time_base))) if info.average_rate else 1
    last_pts: int | None = None
    yielded = moved = 0
    leading = _Leading(frozenset(probed.leading), len(probed.leading))
    with closing(_decoded(source, stored, probed, damaged, leading)) as decoded:
        timed = _timed(undo_fields(decoded, stored), step)
        for frame, pts in islice(timed, info.first_frame, info.first_frame + info.selected_frames):
            duration = frame.duration or step
            if pts is None:
                pts = 0 if last_pts is None else last_pts + step
            if last_pts is not None and pts <= last_pts:
                moved += 1
                pts = last_pts + 1
            last_pts = pts
            yielded += 1
            direct = as_direct(frame)
            coding = coding_of(direct, info.conversion, info.codec, keeps_alpha=info.has_alpha)
            codes = codes_of(direct, coding, pinned=source.is_pinned)
            yield CodedFrame(codes, coding, pts, max(1, duration), info.crop, info.orientation)
    if moved:
        source.warnings.append(
            f"{moved} frame{'s' if moved > 1 else ''} had a time that does not come after the frame before; moved "
            "right behind it."
        )
    if source.is_closed:
        return
    if yielded < info.selected_frames:
        _report_missing(source, damaged, yielded, leading.left_out)
    elif source.damage_count and not probed.is_counted:
        # Among what is damaged there may be pictures that nothing else tells of.
        source.is_incomplete = True


@dataclass
class _Leading:
    """Pictures that decoders may leave out, because what they refer to lies before the start or before a join."""

    times: frozenset[int]
    left_out: int
    """How many have not come out of the decoder."""

    def note(self, time: int | None) -> None:
        """Take note of a frame as it comes out of the decoder, with its time on the timeline."""
        self.left_out -= time in self.times


def _report_missing(source: FrameSource, damaged: Damaged, found: int, left_out: int) -> None:
    """Say what is missing, or refuse; the `left_out` leading pictures are no loss."""
    info = source.info
    missing = info.selected_frames - found
    if missing <= left_out and not source.damage_count:
        source.warnings.append(
            f"{missing} picture{'s refer' if missing > 1 else ' refers'} to others before the start of the recording, "
            "which the file does not hold; left out."
        )
        return
    sentence = f"{info.path}: expected {info.selected_frames} frames, found {found} that decode; the rest is missing"
    if damaged == "refuse":
        raise VideoError(f"{sentence}; copy it again, or take what can be read (`upscale --keep-damaged`).")
    source.missing_frames += missing
    source.is_incomplete = True
    source.warnings.append(f"{sentence}.")


def _decoded(
    source: FrameSource, info: SourceInfo, probed: Probed, damaged: Damaged, leading: _Leading
) -> Generator[av.VideoFrame]:
    """The frames as stored, which `info` describes."""
    count = last_due = delay = 0
    step = max(1, round(1 / (info.average_rate * info.time_base))) if info.average_rate else 1
    with opened_file(info.path) as (container, file):
        if file.identity != probed.identity:
            raise VideoError(f"{info.path}: the file was changed after it was looked at; start again.")
        stream = main_video(container, info.path)
        # With a thread for each packet FFmpeg calls sound frames damaged where fields and frames come in turn.
        stream.thread_type = "SLICE" if probed.has_field_packets else "AUTO"
        clock = info.timeline.clock(stream.index)
        decode = decoder_of(stream)
        packets = packets_of(container, stream)
        while not source.is_closed:
            try:
                packet = next(packets, None)
                if packet is None:
                    break
                if is_repeat(packet):
                    continue
                if packet.size:
                    clock.move(packet)
                frames = decode(packet)
            except av.FFmpegError as error:
                _check_unchanged(source, file, damaged)
                _report_damage(source, info.average_rate, damaged, count, error)
                continue
            for frame in frames:
                if frame.is_corrupt:
                    _check_unchanged(source, file, damaged)
                    _report_damage(source, info.average_rate, damaged, count, None)
                _check_size(frame, info, count)
                leading.note(frame.pts)
                if probed.has_field_packets:
                    frame.duration = 0  # That of the first field alone.
                if info.timeline.by_rate:
                    frame.pts, frame.duration = count, 1
                elif info.timeline.by_decoding:
                    # The last ones come out when no packet is left, and nothing says when they are due.
                    due = frame.dts if frame.dts is not None else last_due + step
                    if count == 0:
                        delay = due - (frame.pts if frame.pts is not None else due)
                    frame.pts, last_due = due - delay, due
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


def _report_damage(
    source: FrameSource, rate: Fraction | None, damaged: Damaged, index: int, error: av.FFmpegError | None
) -> None:
    place = f"frame {index}" + (f" ({float(index / rate):.2f} s)" if rate else "")
    cause = error.strerror if error is not None else "the decoder patched missing parts"
    if damaged == "refuse":
        before = "take what comes before (--frames), " if index > source.info.first_frame else ""
        raise VideoError(
            f"{source.info.path}: {place} or one close to it is damaged ({cause}); copy it again, {before}or take "
            "what can be read (`upscale --keep-damaged`)."
        ) from error
    source.damage_count += 1
    sentence = f"{source.info.path}: {place} or one close to it is damaged ({cause}); kept what decodes."
    if sentence not in source.warnings:  # Many packets may fail in a row before the next frame.
        source.warnings.append(sentence)


def _check_size(frame: av.VideoFrame, info: SourceInfo, index: int) -> None:
    width, height = (info.height, info.width) if info.orientation.transpose else (info.width, info.height)
    width, height = width + info.crop.left + info.crop.right, height + info.crop.top + info.crop.bottom
    if (frame.width, frame.height) != (width, height):
        raise VideoError(_size_sentence(info, index, frame.width, frame.height))
