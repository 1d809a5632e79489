"""What `--shots auto|off|FILE` means, and the shots that come of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from ...errors import InvalidArgumentError
from ...video import FrameSource
from ..shot import Shot, whole
from .find import ShotFinder
from .listed import read_shots
from .small import made_small

ShotChoice = Path | Literal["auto", "off"]
"""auto: found in a pass over the source; off: all frames are one shot; or a file that lists them."""


def parse_choice(text: str) -> ShotChoice:
    """Return what `--shots` asks for; raises InvalidArgumentError for what is neither a word nor a file."""
    if text == "auto":
        return "auto"
    if text == "off":
        return "off"
    if not Path(text).is_file():
        raise InvalidArgumentError(f"shots: expected auto, off or a file that lists them, got {text!r}; name one.")
    return Path(text)


def shots_of(
    source: FrameSource, choice: ShotChoice, on_frame: Callable[[int], object] | None = None
) -> tuple[Shot, ...]:
    """Return the shots of the frames that a source gives, in order and without gaps.

    "auto" reads all of the source, which gives no frames afterwards, so open it a second time for the work; on_frame is
    told how many frames have passed, and what it raises ends the pass. "off" and a file read no frame. Damage that the
    source is to keep may leave fewer frames than it promises: the last shot then ends where the promise does. Raises
    VideoError for what cannot be read, InvalidArgumentError for a bad list.
    """
    promised = source.info.selected_frames
    if isinstance(choice, Path):
        return read_shots(choice, source.info)
    if choice == "off" or promised == 1:
        return whole(promised)
    finder, count = ShotFinder(), 0
    for count, frame in enumerate(source.coded(), 1):
        finder.add(made_small(frame))
        if on_frame is not None:
            on_frame(count)
    if not count:
        return whole(promised)
    shots = finder.finish()
    return (*shots[:-1], Shot(shots[-1].start, promised, shots[-1].border))
