"""Signals that ask the process to end, held back while something must not be broken off."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

# SIGHUP is POSIX's, SIGBREAK Windows's.
_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")
ENDING_SIGNALS = tuple(getattr(signal, name) for name in _NAMES if hasattr(signal, name))
"""What asks a process to end and can be caught."""


class HeldSignals:
    """What came while signals were held back."""

    def __init__(self) -> None:
        self._received: list[int] = []
        self._previous: dict[int, Any] = {}

    @property
    def is_pending(self) -> bool:
        """Whether a signal waits to be delivered."""
        return bool(self._received)

    def take(self) -> bool:
        """Whether a signal waited; it is the caller's business from here on and is not delivered."""
        was_pending = self.is_pending
        self._received.clear()
        return was_pending

    @contextmanager
    def let_through(self) -> Iterator[None]:
        """Deliver what waits, and let signals do what they usually do inside the block."""
        self._release()
        try:
            self._deliver()
            yield
        finally:
            self._hold()

    def _record(self, number: int, _: FrameType | None) -> None:
        self._received.append(number)

    def _hold(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return  # Python runs its handlers in the main thread only, so nothing else can be interrupted.
        try:
            for number in ENDING_SIGNALS:
                handler = signal.getsignal(number)
                if handler not in (signal.SIG_IGN, None) and number not in self._previous:
                    self._previous[number] = handler
                    signal.signal(number, self._record)
        except BaseException:
            self._release()
            raise

    def _release(self) -> None:
        while self._previous:
            number, handler = self._previous.popitem()
            signal.signal(number, handler)

    def _deliver(self) -> None:
        if not self._received:
            return
        number = self._received[0]
        self._received.clear()
        handler: Callable[..., object] | int | None = signal.getsignal(number)
        if callable(handler):
            handler(number, None)
        else:
            signal.raise_signal(number)


@contextmanager
def held_signals() -> Iterator[HeldSignals]:
    """Hold back requests to end until the block is left; the first of them takes effect then.

    Other threads may use it too, where it does nothing: handlers run in the main thread only.
    """
    signals = HeldSignals()
    signals._hold()
    try:
        yield signals
    finally:
        signals._release()
        signals._deliver()
