"""What a process spends its time on: named spans of every thread, written to a file when it ends.

Off unless the environment variable SEEDVR2_SPANS names a file; then `seedvr2 bench file` reads it. Spans of a thread
lie inside each other, so that what a stage takes for itself is its length without those inside it. A span with a clock
marks the queue of a GPU as well: what lies between two marks is the time that the GPU had for the innermost span, its
waits for launches included.
"""

from __future__ import annotations

import atexit
import json
import os
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from types import TracebackType
from typing import Any, Protocol, TypeVar

VARIABLE = "SEEDVR2_SPANS"
"""The environment variable that names the file."""

Item = TypeVar("Item")


class Clock(Protocol):
    """Marks places in a GPU's queue."""

    def mark(self) -> Any:
        """Mark where the queue ends now, without waiting."""

    def nanoseconds(self, mark: Any) -> int:
        """When the GPU came to a mark, on `time.perf_counter_ns`'s scale; waits for it."""


class _Nothing:
    """The span of a recorder that is off."""

    __slots__ = ()

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        return None


_NOTHING = _Nothing()


class _Span:
    """One span, entered and left in one thread."""

    __slots__ = ("_began", "_clock", "_mark", "_name", "_recorder")

    def __init__(self, recorder: Recorder, name: str, clock: Clock | None) -> None:
        self._recorder, self._name, self._clock = recorder, name, clock

    def __enter__(self) -> None:
        self._mark = None if self._clock is None else self._clock.mark()
        self._began = time.perf_counter_ns()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        ended = time.perf_counter_ns()
        marks = None if self._clock is None else (self._clock, self._mark, self._clock.mark())
        self._recorder.add(self._name, self._began, ended, marks)


class Recorder:
    """Collects spans; any thread may."""

    def __init__(self) -> None:
        self._spans: list[tuple[str, str, int, int, tuple[Clock, Any, Any] | None]] = []

    def add(self, name: str, began_ns: int, ended_ns: int, marks: tuple[Clock, Any, Any] | None = None) -> None:
        """A span of this thread that is over, in `time.perf_counter_ns`; marks: a clock and its marks of both ends."""
        self._spans.append((name, threading.current_thread().name, began_ns, ended_ns, marks))

    def span(self, name: str, clock: Clock | None = None) -> _Span:
        """A context manager that adds what its block takes."""
        return _Span(self, name, clock)

    def to_json(self) -> str:
        """All spans in the order of their ends, times in seconds since 1970; waits for a GPU's marks."""
        to_wall_ns = time.time_ns() - time.perf_counter_ns()

        def seconds(counter_ns: int) -> float:
            return (counter_ns + to_wall_ns) / 1e9

        spans = []
        for name, thread, began, ended, marks in list(self._spans):
            span: dict[str, object] = {"name": name, "thread": thread, "begin": seconds(began), "end": seconds(ended)}
            if marks is not None:
                clock, first, last = marks
                with suppress(RuntimeError):  # A GPU whose context is lost has no times.
                    span["gpu_begin"] = seconds(clock.nanoseconds(first))
                    span["gpu_end"] = seconds(clock.nanoseconds(last))
            spans.append(span)
        return json.dumps({"spans": spans})

    def write(self, path: str) -> None:
        """Write it; a file that cannot be written costs the measurement and nothing else."""
        with suppress(OSError), open(path, "w", encoding="utf-8") as file:  # noqa: PTH123  (imports nothing)
            file.write(self.to_json())


def _recorder() -> Recorder | None:
    path = os.environ.get(VARIABLE)
    if not path:
        return None
    recorder = Recorder()
    atexit.register(recorder.write, path)
    return recorder


RECORDER = _recorder()
"""The process's own; None where nothing is recorded."""


def span(name: str, clock: Clock | None = None) -> _Span | _Nothing:
    """A context manager: its block is a span of this name. Does nothing where nothing is recorded."""
    return _NOTHING if RECORDER is None else RECORDER.span(name, clock)


def each(name: str, items: Iterable[Item], clock: Clock | None = None) -> Iterator[Item]:
    """The items, the making of each a span; the items themselves where nothing is recorded."""
    return iter(items) if RECORDER is None else _each(RECORDER, name, items, clock)


def _each(recorder: Recorder, name: str, items: Iterable[Item], clock: Clock | None) -> Iterator[Item]:
    stream = iter(items)
    try:
        while True:
            with recorder.span(name, clock):
                try:
                    item = next(stream)
                except StopIteration:
                    return
            yield item
    finally:
        close = getattr(stream, "close", None)
        if close is not None:
            close()
