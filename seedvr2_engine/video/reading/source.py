"""FrameSource: the upright R'G'B' frames of a clip, a picture, or a sequence of pictures, one at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Literal

from ..coded import CodedFrame
from ..info import Frame, SourceInfo

Damaged = Literal["refuse", "keep"]


class FrameSource:
    """Frames in order, read once, in constant memory; close it, or use it in a `with` statement.

    `info` describes the whole source; `warnings` collects sentences about what was found damaged or odd on the way,
    what is known before the first frame being there from the start. It may be closed from another thread than the one
    that reads, whose iteration then ends.
    """

    def __init__(
        self,
        info: SourceInfo,
        frames: Callable[[FrameSource], Iterator[Frame | CodedFrame]],
        warnings: Iterable[str] = (),
    ) -> None:
        self.info = info
        self.warnings: list[str] = list(warnings)
        self.missing_frames = 0
        """Frames that the file promises and that could not be read; complete when all frames have been read."""
        self.is_incomplete = False
        """Whether anything is missing from the file, be it that nobody knows how many frames."""
        self.damage_count = 0
        """How often the decoder reported damage in what has been read."""
        self.is_closed = False
        self.is_pinned = False
        """Whether code values are read into page-locked memory."""
        self._lock = threading.RLock()
        self._frames = frames(self)

    def __iter__(self) -> Iterator[Frame]:
        return self

    def __next__(self) -> Frame:
        frame = self._next()
        return frame if isinstance(frame, Frame) else frame.decoded()

    def coded(self, *, pinned: bool = False) -> Iterator[Frame | CodedFrame]:
        """The frames as code values where they come as such, which is a clip's; pictures are `Frame` in any case.

        pinned: in page-locked memory, from which a GPU copies while the host goes on; it is torch's to give out again.
        """
        self.is_pinned = pinned
        while True:
            try:
                frame = self._next()
            except StopIteration:
                return
            yield frame

    def _next(self) -> Frame | CodedFrame:
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
