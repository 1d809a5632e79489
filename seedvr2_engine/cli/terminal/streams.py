"""Standard output and error that may go away at any time: a closed terminal, a reader that left, a full disk."""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from typing import Any


class Errors:
    """Standard error, as it is at the moment of writing; what it does not take is lost, and nothing else.

    What is said there helps people to follow the work. The work does not depend on it.
    """

    def write(self, text: str) -> int:
        """Write what can be written."""
        # RuntimeError: a signal's handler writes in the midst of another write.
        with suppress(OSError, ValueError, RuntimeError, AttributeError):
            sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush what can be flushed."""
        with suppress(OSError, ValueError, RuntimeError, AttributeError):
            sys.stderr.flush()

    def isatty(self) -> bool:
        """Whether people read it in a terminal."""
        try:
            return sys.stderr.isatty()
        except (OSError, ValueError, AttributeError):
            return False

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stderr, name)


def fill_closed_streams() -> None:
    """Give closed standard streams a place to go to.

    Left closed, their numbers would go to the next files that are opened, and what a library says on standard error
    would be written into somebody's clip.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # Gets the lowest free number, which is this one.
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115, PTH123
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123
    # File names may hold bytes that are no text, and terminals may lack letters; either is shown as an escape.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def drop_what_waits() -> None:
    """Let go of what standard error could not take, so that the interpreter does not complain at its end."""
    try:
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError):
        with suppress(OSError, ValueError, AttributeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            sys.stderr.flush()
