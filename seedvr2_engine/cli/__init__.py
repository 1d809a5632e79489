"""The command `seedvr2`: parse arguments, call the library, map errors to exit codes."""

import os
import signal
import sys
from pathlib import Path
from types import FrameType

__all__ = ["main"]


def main() -> None:
    """Run the command line and exit."""
    _open_missing_streams()
    _require_folder()
    # Nothing is begun while modules are imported: there Ctrl-C just ends, and no library can make of it what it likes.
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)
    from .app import main as run

    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, before)
    run()


def _end(_number: int, _frame: FrameType | None) -> None:
    os.write(2, b"error: interrupted.\n")
    os._exit(130)


def _require_folder() -> None:
    """Say that the working folder is gone: libraries end the process where they look for it."""
    try:
        Path.cwd()
    except OSError:
        print(
            "error: expected a working folder that is there, found it removed; change to another one.", file=sys.stderr
        )
        sys.exit(2)


def _open_missing_streams() -> None:
    """Take the numbers of closed standard streams: the first file that is opened would get them, and what libraries
    print with it. Characters that an output's encoding lacks are written out rather than an error.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)  # None where the stream was closed.
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
