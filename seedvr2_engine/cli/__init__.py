"""The command `seedvr2`: parse arguments, call the library, map errors to exit codes."""

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from types import FrameType

from .ending import ENDING  # First, so that it is called last.

# isort: split
from ..spans import span

__all__ = ["main"]


def main() -> None:
    """Run the command line and exit."""
    from .terminal.streams import fill_closed_streams

    fill_closed_streams()
    _require_folder()
    # Nothing is begun while modules are imported: there Ctrl-C just ends, and no library can make of it what it likes.
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)
    _ask_for_large_pages()
    with span("imports"):
        from .app import main as run

    try:
        if before is signal.default_int_handler:
            signal.signal(signal.SIGINT, before)
        run()
        ENDING.code = 0
    except SystemExit as end:
        ENDING.code = 0 if end.code is None else end.code
        raise
    except KeyboardInterrupt:  # Before the command has its own way with it.
        _end()


def _ask_for_large_pages() -> None:
    """Have PyTorch ask Linux for pages of 2 MB; it looks at this once, before its first tensor.

    Blocks of many megabytes come and go with every layer, and in pages of 4 KB a third of a CPU's time went into them.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def _end(_number: int = signal.SIGINT, _frame: FrameType | None = None) -> None:
    # Whoever closed the terminal reads nothing.
    with suppress(OSError):
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
