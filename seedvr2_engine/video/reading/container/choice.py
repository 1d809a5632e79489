"""Which stream of a file is the clip."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av

from ....errors import VideoError

_NO_CLIP = av.stream.Disposition.attached_pic | av.stream.Disposition.timed_thumbnails


def main_video(container: av.container.InputContainer, path: Path) -> av.VideoStream:
    """Return the video stream to read: the default one, or else the largest; never cover art or thumbnails.

    Where several are the default, or none, the one with most pixels is taken, and the first of these, as FFmpeg does.
    Raises VideoError if there is none.
    """
    streams = clips_of(container)
    if not streams:
        kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
        raise VideoError(f"{path}: expected a video stream, found {kinds}; name a file that holds a picture or a clip.")
    if len(streams) > 1 and path.suffix.lower() in (".heic", ".heif", ".avif"):
        raise VideoError(
            f"{path}: expected one picture, found {len(streams)} tiles, which cannot be joined here; convert it to "
            "PNG or JPEG first."
        )
    known = [stream for stream in streams if stream.codec_context is not None]
    if not known:
        raise VideoError(f"{path}: its video codec is unknown to this FFmpeg build; convert it to H.264 first.")
    return max(known, key=_preference)


def clips_of(container: av.container.InputContainer) -> list[av.VideoStream]:
    """All video streams but covers and thumbnails."""
    return [stream for stream in container.streams.video if not stream.disposition & _NO_CLIP]


def left_out_video(container: av.container.InputContainer, taken: av.VideoStream) -> str | None:
    """A sentence about the other video streams of a file; None if there are none."""
    others = [stream for stream in clips_of(container) if stream.index != taken.index]
    if not others:
        return None
    is_default = bool(taken.disposition & av.stream.Disposition.default)
    reason = "the default" if is_default and any(not _is_default(other) for other in others) else "the largest"
    return (
        f"There are {len(others) + 1} video streams; {_described(taken)} is taken as {reason}, and "
        f"{', '.join(_described(other) for other in others)} left out."
    )


def steady_streams(container: av.container.InputContainer) -> frozenset[int]:
    """Indices of the streams whose packets follow each other without gaps: picture and sound."""
    sound = [stream.index for stream in container.streams.audio]
    return frozenset([*sound, *(stream.index for stream in clips_of(container))])


def is_repeat(packet: av.Packet[Any]) -> bool:
    """Whether an empty packet stands for the picture before, shown again; the last ones of a file, which end its
    streams, are empty as well, and have no time."""
    return not packet.size and (packet.dts is not None or packet.pts is not None)


def codec_name(stream: av.stream.Stream) -> str:
    """Return FFmpeg's name of a stream's codec (not of the decoder: `av1`, never `libdav1d`), or "unknown"."""
    return stream.codec_context.codec.canonical_name if stream.codec_context is not None else "unknown"


def _is_default(stream: av.VideoStream) -> bool:
    return bool(stream.disposition & av.stream.Disposition.default)


def _preference(stream: av.VideoStream) -> tuple[bool, int, int]:
    context = stream.codec_context
    return _is_default(stream), context.width * context.height, -stream.index


def _described(stream: av.VideoStream) -> str:
    context = stream.codec_context
    size = f" {context.width}x{context.height}" if context is not None else ""
    return f"stream {stream.index} ({codec_name(stream)}{size})"
