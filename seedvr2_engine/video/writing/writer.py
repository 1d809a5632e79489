"""Open the right kind of FrameSink for a path."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from ...errors import InvalidArgumentError, OutputError
from ...output.names import earlier_siblings
from ...output.signals import held_signals
from ...output.unfinished import PARTIAL_MARK, check_target
from ..info import SourceInfo
from ..reading.pictures.selection import is_picture, list_pictures
from .clip_writer import VideoSink
from .options import SinkOptions
from .output_plan import plan_output
from .pictures.animation_sink import AnimationSink, is_animation
from .pictures.picture_names import PictureNames, is_sequence
from .pictures.picture_sinks import REPLACED_MARK, PictureSink, SequenceSink, check_sequence_place
from .sink import FrameSink

_MOST_LISTED = 3


def open_sink(
    path: str | PathLike[str],
    *,
    width: int,
    height: int,
    source: SourceInfo | None = None,
    options: SinkOptions | None = None,
) -> FrameSink:
    """Open an output: a clip, a picture, a printf pattern (`a_%05d.png`), or a folder (a path without an ending).

    A name that ends like a clip's is a clip's, and only a number field before a picture's ending makes a pattern.
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
    sequence = is_sequence(path)
    check_place(path, source, options)
    with held_signals():  # So that no file is made that nobody knows of.
        sink: FrameSink
        left = _left_by_earlier_runs(path, is_sequence=sequence)
        if sequence:
            sink = SequenceSink(path, width, height, source, options)
        elif is_animation(path, source):
            sink = AnimationSink(path, width, height, source, options)
        elif is_picture(path):
            sink = PictureSink(path, width, height, source, options)
        else:
            sink = VideoSink(path, width, height, source, options)
        if not isinstance(sink, VideoSink):
            sink.warnings += plan_output(path, (width, height), source, options).losses
        sink.warnings += left
        return sink


def check_place(path: Path, source: SourceInfo | None, options: SinkOptions) -> None:
    """Raise OutputError if an output cannot begin at this place as things are: see `open_sink`. Nothing is written."""
    names = PictureNames.of(path, source) if is_sequence(path) else None
    if source is not None:
        _check_not_source(path, names.existing() if names is not None else [path], source)
    if names is None:
        check_target(path, overwrite=options.overwrite)
    else:
        check_sequence_place(path, names, overwrite=options.overwrite)


def _left_by_earlier_runs(path: Path, *, is_sequence: bool) -> list[str]:
    """Sentences about what runs to the same place have left there when they were broken off."""
    if is_sequence:
        folder = PictureNames.of(path, None).folder
        pictures = folder / "pictures"
        parts = earlier_siblings(folder, PARTIAL_MARK, keeps_ending=False)
        parts += earlier_siblings(pictures, PARTIAL_MARK, keeps_ending=False)
        replaced = earlier_siblings(pictures, REPLACED_MARK, keeps_ending=False)
    else:
        parts = earlier_siblings(path.resolve() if path.is_symlink() else path, PARTIAL_MARK)
        replaced = []
    sentences = []
    if parts:
        sentences.append(f"An earlier run was broken off; what it had finished stays in {_listed(parts)}.")
    if replaced:
        sentences.append(f"An earlier run was killed while it replaced pictures; old ones are in {_listed(replaced)}.")
    return sentences


def _listed(paths: list[Path]) -> str:
    more = len(paths) - _MOST_LISTED
    return ", ".join(map(str, paths[:_MOST_LISTED])) + (f" and {more} more" if more > 0 else "")


def _check_not_source(path: Path, replaced: list[Path], source: SourceInfo) -> None:
    """Raise OutputError if what would be replaced is read as well: nothing would be left of it."""
    if not any(old.exists() for old in replaced):
        return
    # By what they are, since links and systems that ignore case give one file many names.
    read = {_identity(name) for name in list_pictures(source.path) or [source.path] if name.exists()}
    if not read.isdisjoint(_identity(old) for old in replaced if old.exists()):
        raise OutputError(f"{path}: expected another place than the input's, which would be lost; choose another name.")


def _identity(path: Path) -> tuple[int, int]:
    facts = path.stat()
    return facts.st_dev, facts.st_ino
