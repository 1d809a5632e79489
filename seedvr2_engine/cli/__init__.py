"""The command `seedvr2`: parse arguments, call the library, map errors to exit codes."""

import atexit
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from types import FrameType

from ..spans import span

__all__ = ["main"]


def main() -> None:
    """Run the command line and exit."""
    from .terminal.streams import fill_closed_streams

    fill_closed_streams()
    _require_folder()
    ending = _Ending()
    atexit.register(ending.leave)  # The first that is registered is the last that is called.
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
        ending.code = 0
    except SystemExit as end:
        ending.code = 0 if end.code is None else end.code
        raise
    except KeyboardInterrupt:  # Before the command has its own way with it.
        _end()


class _Ending:
    """Ends a process that has used a GPU without taking everything in it apart first, which takes half a second.

    The driver takes back what is left. Files are closed by then, threads have ended, and all that had something to do
    at the end has done it.
    """

    code: object = None
    """The exit code, where there is one."""

    def leave(self) -> None:
        torch = sys.modules.get("torch")
        if torch is None or not isinstance(self.code, int) or not torch.cuda.is_initialized():
            return
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except (OSError, ValueError):
            return  # Python has its own exit code for it.
        os._exit(self.code)


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
