"""What an error that ended a piece of work becomes: one sentence and an exit code, whatever it was."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator

import typer

from ..errors import SeedVR2Error
from .terminal.console import EXIT_BAD_INPUT, EXIT_UNEXPECTED

log = logging.getLogger(__name__)

PASSED_ON = (typer.Exit, typer.Abort, typer.BadParameter)
"""What typer itself understands; no failures."""


def sentence_of(error: Exception) -> tuple[str, int]:
    """One sentence for any error, and the exit code: 2 for what a user can mend, 1 for a fault of this program.

    The traceback of a fault is in the log, which `--verbose` shows. Raises KeyboardInterrupt where the error is what a
    library made of one.
    """
    if any(isinstance(link, KeyboardInterrupt) for link in _chain(error)):
        raise KeyboardInterrupt from error
    if isinstance(error, SeedVR2Error):
        return str(error), EXIT_BAD_INPUT
    log.debug("%s", type(error).__name__, exc_info=error)
    if _is_out_of_memory(error):
        return (
            "memory: expected enough free memory for the work, found too little; close other programs, or take a "
            "smaller size, fewer --chunk-frames or --tile 512.",
            EXIT_BAD_INPUT,
        )
    if isinstance(error, OSError):
        # What a library raises where no sentence of ours fits: a full disk, a folder without permission.
        return f"{_name(error.filename) or 'the file system'}: {error.strerror or error}.", EXIT_BAD_INPUT
    if isinstance(error, (ImportError, SystemError)):
        return (
            f"a library that this needs cannot be loaded ({error}); give this process more memory, or install it "
            "again.",
            EXIT_BAD_INPUT,
        )
    return (
        f"unexpected {type(error).__name__} ({str(error)[:300] or 'no more is known'}); this is a fault of this "
        "program, so please report it with what `seedvr2 --verbose` and the same command print.",
        EXIT_UNEXPECTED,
    )


def _is_out_of_memory(error: Exception) -> bool:
    if isinstance(error, MemoryError):
        return True
    # Not imported for this: it may be PyTorch that cannot be loaded.
    device = sys.modules.get(SeedVR2Error.__module__.replace("errors", "device"))
    asked = getattr(device, "is_out_of_memory", None)
    return asked is not None and bool(asked(error))


def _name(file: object) -> str:
    return file.decode("utf-8", "surrogateescape") if isinstance(file, bytes) else "" if file is None else str(file)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
