"""Open the right kind of FrameSink for a path."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from ..errors import InvalidArgumentError
from .clip_writer import VideoSink
from .info import SourceInfo
from .options import SinkOptions
from .picture_writer import PictureSink, SequenceSink
from .pictures import is_picture
from .sink import FrameSink


def open_sink(
    path: str | PathLike[str],
    *,
    width: int,
    height: int,
    source: SourceInfo | None = None,
    options: SinkOptions | None = None,
) -> FrameSink:
    """Open an output: a clip, a picture, a printf pattern (`a_%05d.png`), or a folder (a path without an ending).

    `source` gives what is carried over: frame rate, times, colour tags, bit depth, alpha, pixel aspect ratio, audio,
    subtitles, chapters and metadata. Raises OutputError if the target exists and may not be replaced, its folder is
    missing or not writable, its ending is unknown, or the codec is not available or does not fit.
    """
    path = Path(path)
    options = options or SinkOptions()
    if width < 1 or height < 1:
        raise InvalidArgumentError(f"width and height: expected at least 1 pixel, got {width}x{height}.")
    if "%" in path.name or not path.suffix or path.is_dir():
        return SequenceSink(path, width, height, source, options)
    if is_picture(path):
        return PictureSink(path, width, height, source, options)
    return VideoSink(path, width, height, source, options)
