"""Open a clip with FFmpeg, count its frames, and describe it."""

from __future__ import annotations

import errno
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from heapq import heappop, heappush
from pathlib import Path
from typing import Literal

import av

from ...errors import VideoError
from ..color import resolve
from ..info import SideStream, SourceInfo
from ..planes import bit_depth, family_of, has_alpha, orientation_of, source_tags
from .decoders import decoder_of
from .pictures import is_picture

# Some of their packets hold no picture to show (VP8 alternate references, packed B-frames, repeats).
_DECODE_TO_COUNT = frozenset({"vp8", "mpeg4", "theora"})
_REORDER_DEPTH = 32
_STILL_FORMATS = frozenset({"image2", "ico", "jpegxl", "bmp", "tiff"})


@dataclass(frozen=True)
class PacketScan:
    """What one pass over the coded pictures of a stream says, without decoding; times in ticks."""

    count: int
    first_pts: int | None
    end_pts: int | None
    shortest_step: int
    longest_step: int


@contextmanager
def opened(path: Path) -> Iterator[av.container.InputContainer]:
    """Open a local file for reading and close it at the end.

    Nothing but this one file is read: playlists that point elsewhere fail instead of reaching for files or the
    network. Raises VideoError in one sentence if it is missing, unreadable, truncated, or no clip.
    """
    try:
        if is_picture(path):
            # FFmpeg would take %d, * and [ in a picture's name for a pattern.
            source: io.BytesIO | str = io.BytesIO(path.read_bytes())
        else:
            with path.open("rb") as file:
                if not file.read(1):
                    raise VideoError(f"{path}: expected a clip or a picture, found an empty file; name another file.")
            source = f"file:{path}"
        container = av.open(source, "r", options={"protocol_whitelist": "file"}, metadata_errors="replace")
    except (OSError, av.FFmpegError, ValueError) as error:
        raise VideoError(_open_failure(path, error)) from error
    try:
        yield container
    finally:
        container.close()


def main_video(container: av.container.InputContainer, path: Path) -> av.VideoStream:
    """Return the first video stream that is not cover art; raises VideoError if there is none."""
    streams = [stream for stream in container.streams.video if not _is_cover(stream)]
    if not streams:
        kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
        raise VideoError(f"{path}: expected a video stream, found {kinds}; name a file that holds a picture or a clip.")
    if len(streams) > 1 and path.suffix.lower() in (".heic", ".heif", ".avif"):
        raise VideoError(
            f"{path}: expected one picture, found {len(streams)} tiles, which cannot be joined here; convert it to "
            "PNG or JPEG first."
        )
    if streams[0].codec_context is None:
        raise VideoError(f"{path}: its video codec is unknown to this FFmpeg build; convert it to H.264 first.")
    return streams[0]


def describe_video(path: Path) -> SourceInfo:
    """Return everything about a clip or a single picture; reads all its packets once, decodes one frame.

    Raises VideoError if nothing can be decoded.
    """
    with opened(path) as container:
        stream = main_video(container, path)
        frame = first_frame(container, stream, path)
        still = container.format.name.endswith("_pipe") or container.format.name in _STILL_FORMATS
        context = stream.codec_context
        tags = source_tags(frame, context)
        family = family_of(frame.format)
        orientation = orientation_of(frame)
        size = (frame.height, frame.width) if orientation.transpose else (frame.width, frame.height)
        codec = codec_name(stream)
        aspect = stream.sample_aspect_ratio or Fraction(1)
        start = Fraction(container.start_time or 0, av.time_base)
        side = _side_streams(container)
        chapters = len(container.chapters())
        rate = stream.average_rate or stream.base_rate or stream.guessed_rate
        time_base = stream.time_base or Fraction(1, 25)
    scan, method = scan_packets(path), "packets"
    if codec in _DECODE_TO_COUNT and not still:
        scan, method = _scan_decoded(path, scan), "decoding"
    if scan.count == 0:
        raise VideoError(f"{path}: expected at least one frame, found none; the file holds no pictures.")
    seconds = _span_s(scan, time_base, rate)
    rate = None if still else rate or Fraction(scan.count / seconds if seconds else 25).limit_denominator(1001)
    return SourceInfo(
        path=path,
        kind="image" if still else "video",
        width=size[0],
        height=size[1],
        frame_count=scan.count,
        count_method="decoding" if method == "decoding" else "packets",
        average_rate=rate,
        time_base=time_base,
        variable_rate=scan.longest_step - scan.shortest_step > 1,
        bit_depth=bit_depth(frame.format),
        has_alpha=has_alpha(frame.format),
        codec=codec,
        pix_fmt=frame.format.name,
        color=tags,
        conversion=resolve(tags, family=family, size=(frame.width, frame.height), codec=codec),
        sample_aspect_ratio=1 / aspect if orientation.transpose else aspect,
        orientation=orientation,
        start_s=start,
        duration_s=0.0 if still else seconds,
        audio=side["audio"],
        subtitles=side["subtitle"],
        chapter_count=chapters,
        selected_frames=scan.count,
    )


def scan_packets(path: Path) -> PacketScan:
    """Count the coded pictures of a file and measure their spacing; constant memory."""
    with opened(path) as container:
        stream = main_video(container, path)
        try:
            return _scan(
                (packet.pts if packet.pts is not None else packet.dts, packet.duration or 0)
                for packet in container.demux(stream)
                if packet.size and not getattr(packet, "is_discard", False)
            )
        except av.FFmpegError as error:
            raise VideoError(f"{path}: its packets cannot be read ({error.strerror}); copy the file again.") from error


def _scan_decoded(path: Path, packets: PacketScan) -> PacketScan:
    with opened(path) as container:
        stream = main_video(container, path)
        stream.thread_type = "AUTO"
        count = 0
        for packet in container.demux(stream):
            try:
                count += len(packet.decode())
            except av.error.InvalidDataError:
                # Reading reports the damage with its place; counting only goes on.
                continue
    return PacketScan(count, packets.first_pts, packets.end_pts, packets.shortest_step, packets.longest_step)


def _scan(times: Iterator[tuple[int | None, int]]) -> PacketScan:
    """Sort timestamps in a window of `_REORDER_DEPTH` coded pictures, which exceeds what any codec reorders."""
    window: list[tuple[int, int]] = []
    count, first, last, end = 0, None, None, None
    shortest, longest = 0, 0

    def take() -> None:
        nonlocal first, last, end, shortest, longest
        pts, duration = heappop(window)
        if last is None:
            first = pts
        elif pts > last:
            step = pts - last
            shortest, longest = min(shortest or step, step), max(longest, step)
        last, end = pts, pts + (duration or longest)

    for pts, duration in times:
        count += 1
        if pts is not None:
            heappush(window, (pts, duration))
        if len(window) > _REORDER_DEPTH:
            take()
    while window:
        take()
    return PacketScan(count, first, end, shortest, longest)


def first_frame(container: av.container.InputContainer, stream: av.VideoStream, path: Path) -> av.VideoFrame:
    """Decode until a picture appears; raises VideoError if none does. `path` is for the message."""
    decode = decoder_of(stream)
    try:
        for packet in container.demux(stream):
            try:
                frames = decode(packet)
            except av.error.InvalidDataError:
                # A damaged start; reading decides whether that is an error.
                continue
            if frames:
                return frames[0]
    except av.FFmpegError as error:
        raise VideoError(f"{path}: its first frame cannot be read ({error.strerror}); copy the file again.") from error
    raise VideoError(
        f"{path}: expected at least one frame, found none that decodes; the file is empty, damaged or truncated."
    )


def _side_streams(container: av.container.InputContainer) -> dict[Literal["audio", "subtitle"], tuple[SideStream, ...]]:
    return {
        "audio": tuple(_audio_stream(stream) for stream in container.streams.audio),
        "subtitle": tuple(SideStream(codec_name(stream), stream.language) for stream in container.streams.subtitles),
    }


def _audio_stream(stream: av.AudioStream) -> SideStream:
    context = stream.codec_context
    if context is None:
        return SideStream("unknown", stream.language)
    return SideStream(codec_name(stream), stream.language, context.sample_rate, context.layout.nb_channels)


def codec_name(stream: av.stream.Stream) -> str:
    """Return FFmpeg's name of a stream's codec (not of the decoder: `av1`, never `libdav1d`), or "unknown"."""
    return stream.codec_context.codec.canonical_name if stream.codec_context is not None else "unknown"


def _is_cover(stream: av.VideoStream) -> bool:
    return bool(stream.disposition & av.stream.Disposition.attached_pic)


def _span_s(scan: PacketScan, time_base: Fraction, rate: Fraction | None) -> float:
    if scan.first_pts is not None and scan.end_pts is not None and scan.end_pts > scan.first_pts:
        return float((scan.end_pts - scan.first_pts) * time_base)
    return float(scan.count / rate) if rate else 0.0


def _open_failure(path: Path, error: Exception) -> str:
    if isinstance(error, VideoError):
        return str(error)
    code = getattr(error, "errno", None)
    if isinstance(error, FileNotFoundError) or code == errno.ENOENT:
        return f"{path}: no such file; check the name and the folder."
    if isinstance(error, PermissionError) or code in (errno.EACCES, errno.EPERM):
        return f"{path}: not allowed to read it; change its permissions."
    if isinstance(error, IsADirectoryError):
        return f"{path}: expected a file, found a folder; name a file in it."
    return (
        f"{path}: expected a clip or a picture that FFmpeg reads, found none; it is damaged, truncated, or something "
        "else."
    )
