"""What Ctrl-C, SIGTERM and SIGHUP do to the command."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from ...output.signals import ENDING_SIGNALS
from .console import EXIT_INTERRUPTED

_AGAIN_S = 0.01


class _State:
    was_interrupted = False
    is_waiting = False
    number = signal.SIGINT
    """Of the first request."""


def _interrupt(number: int, _frame: FrameType | None) -> None:
    """The first one ends the command; later ones change nothing until only waiting is left."""
    if _State.is_waiting:
        os._exit(EXIT_INTERRUPTED)
    if not _State.was_interrupted:
        _State.was_interrupted, _State.number = True, signal.Signals(number)
        raise KeyboardInterrupt


def was_interrupted() -> bool:
    """Whether a request to end has come; errors after it are its consequences."""
    return _State.was_interrupted


@contextmanager
def waiting() -> Iterator[None]:
    """Around a wait in which nothing can be lost: another request ends the process at once."""
    _State.is_waiting = True
    try:
        yield
    finally:
        _State.is_waiting = False


def end_at_once() -> None:
    """From here on nothing can be lost: a request to end ends the process."""
    _State.is_waiting = True


def _sent_again(lost: sys.UnraisableHookArgs) -> None:
    """A request that came while an object was being taken apart, where Python drops exceptions, comes once more."""
    if lost.exc_type is not KeyboardInterrupt or not _State.was_interrupted:
        sys.__unraisablehook__(lost)
        return
    _State.was_interrupted = False
    # From another thread, so that it does not come in here.
    threading.Timer(_AGAIN_S, signal.raise_signal, (_State.number,)).start()


def keep_what_is_finished() -> None:
    """Let every request to end, and a terminal that closes, break the command off once and in order.

    Who ignores them, as nohup does, may.
    """
    sys.unraisablehook = _sent_again
    for number in ENDING_SIGNALS:
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, _interrupt)
