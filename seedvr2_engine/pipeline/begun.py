"""Work that is begun before its result is needed, in a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Generic, TypeVar

Result = TypeVar("Result")


class _StoppedError(Exception):
    """Ends the thread of work that nobody waits for any more."""


class Begun(Generic[Result]):
    """Runs `work` in a thread from now on; leaving the `with` block stops it and waits for it.

    work: is given what it calls before every step; that raises where the work is to stop.
    """

    def __init__(self, work: Callable[[Callable[[], None]], Result], name: str) -> None:
        self._results: list[Result] = []
        self._error: BaseException | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(work,), name=name, daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Wait until it has ended, however it did."""
        self._thread.join()

    def take(self) -> Result:
        """Wait for the result and give it away, once; raises what the work raised."""
        self.wait()
        if self._error is not None:
            raise self._error
        return self._results.pop()

    def __enter__(self) -> Begun[Result]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self, work: Callable[[Callable[[], None]], Result]) -> None:
        try:
            self._results.append(work(self._step))
        except BaseException as error:  # It belongs to whoever takes the result.
            self._error = error

    def _step(self) -> None:
        if self._stopping.is_set():
            raise _StoppedError
