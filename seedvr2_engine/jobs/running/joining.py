"""Finished units become the output while later ones are computed, in a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue

from ...video import Coding, FrameSink
from ..units.unit_file import read_unit
from .events import Event, Joined

_TELL_FRAMES = 8


class Joining:
    """Writes units into a sink in their order, as they are there; `stop` it."""

    def __init__(self, sink: FrameSink, coding: Coding, tell: Callable[[Event], None]) -> None:
        """tell: gets events, from the new thread."""
        self._sink, self._coding, self._tell = sink, coding, tell
        self._waiting: dict[int, Path] = {}
        self._ready: SimpleQueue[Path | None] = SimpleQueue()
        self._next = 0
        self._is_stopped = False
        self.error: BaseException | None = None
        """What the thread ended with."""
        self._thread = threading.Thread(target=self._work, name="joining", daemon=True)
        self._thread.start()

    def add(self, number: int, path: Path) -> None:
        """A unit is finished."""
        self._waiting[number] = path
        while self._next in self._waiting:
            self._ready.put(self._waiting.pop(self._next))
            self._next += 1

    def wait(self, is_stopped: Callable[[], bool]) -> None:
        """Wait until all units are in the sink; raises what writing them raised, and KeyboardInterrupt if stopped."""
        self._ready.put(None)
        while self._thread.is_alive():
            if is_stopped():
                raise KeyboardInterrupt
            self._thread.join(0.1)
        self.check()

    def check(self) -> None:
        """Raise what the thread ended with, if it has failed."""
        if self.error is not None:
            raise self.error

    def stop(self) -> None:
        """End the thread after the picture at hand."""
        self._is_stopped = True
        self._ready.put(None)
        self._thread.join()

    def _work(self) -> None:
        try:
            while (path := self._ready.get()) is not None and not self._is_stopped:
                self._write(path)
        except BaseException as error:  # It is raised where units are waited for.
            self.error = error

    def _write(self, path: Path) -> None:
        sink, coding = self._sink, self._coding
        for codes, passed in read_unit(path, coding):
            if self._is_stopped:
                return
            if sink.coding is not None:
                sink.write_coded(codes, pts=passed.pts, duration=passed.duration)
            else:
                rgb, alpha = coding.decoded(codes)
                sink.write(rgb, pts=passed.pts, duration=passed.duration, alpha=alpha, metadata=passed.metadata)
            if sink.frames_written % _TELL_FRAMES == 0:
                self._tell(Joined(sink.frames_written))
        self._tell(Joined(sink.frames_written))
