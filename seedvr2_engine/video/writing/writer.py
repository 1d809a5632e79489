"""Open the right kind of FrameSink for a path."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from ...errors import InvalidArgumentError, OutputError
from ..info import SourceInfo
from ..reading.pictures import is_picture, list_pictures
from .animation_sink import AnimationSink, is_animation
from .clip_writer import VideoSink
from .options import SinkOptions
from .picture_names import PictureNames
from .picture_sinks import PictureSink, SequenceSink
from .plan import is_sequence_target, plan_output
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

    .gif and .apng are animated pictures, and .webp for a source of several frames is one.

    `source` gives what is carried over: frame rate, times, colour tags, bit depth, alpha, pixel aspect ratio, audio,
    subtitles, chapters and metadata; names or numbers of pictures, see `PictureNames`. Raises OutputError if the
    target is the source itself, or exists and may not be replaced, its folder is missing or not writable, its ending
    is unknown, or the codec is not available or does not fit.
    """
    path = Path(path)
    options = options or SinkOptions()
    if width < 1 or height < 1:
        raise InvalidArgumentError(f"width and height: expected at least 1 pixel, got {width}x{height}.")
    is_sequence = is_sequence_target(path)
    if source is not None:
        _check_not_source(path, PictureNames.of(path, source).existing() if is_sequence else [path], source)
    sink: FrameSink
    if is_sequence:
        sink = SequenceSink(path, width, height, source, options)
    elif is_animation(path, source):
        sink = AnimationSink(path, width, height, source, options)
    elif is_picture(path):
        sink = PictureSink(path, width, height, source, options)
    else:
        return VideoSink(path, width, height, source, options)
    sink.warnings += plan_output(path, (width, height), source, options).losses
    return sink


def _check_not_source(path: Path, replaced: list[Path], source: SourceInfo) -> None:
    """Raise OutputError if what would be replaced is read as well: nothing would be left of it."""
    if not any(old.exists() for old in replaced):
        return
    read = {name.resolve() for name in list_pictures(source.path) or [source.path]}
    if not read.isdisjoint(old.resolve() for old in replaced):
        raise OutputError(f"{path}: expected another place than the input's, which would be lost; choose another name.")
