"""What is finished is kept and named, whatever a command ends with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from ...output.signals import HeldSignals, held_signals
from ...spans import span
from ..terminal.console import EXIT_INTERRUPTED, fail, note

if TYPE_CHECKING:
    from ...video import FrameSink


@contextmanager
def kept_output(open_output: Callable[[], FrameSink]) -> Iterator[tuple[FrameSink, HeldSignals]]:
    """Open an output, and finish it behind the block; after an error of any kind, keep and name what is written.

    Requests to end are held back all the time. The block looks whether one is pending, or lets them through where
    nothing can be lost.
    """
    with held_signals() as signals:
        sink = open_output()
        try:
            yield sink, signals
            with span("finishing"):
                sink.finish()
        except KeyboardInterrupt:
            keep(sink, signals)
            raise typer.Exit(EXIT_INTERRUPTED) from None
        except BaseException:
            sink.abort(keep_partial=True)
            if sink.kept is not None:
                note(f"what was finished, {_frames(sink)}, is in {sink.kept}")
            raise
        if signals.take():
            raise typer.Exit(fail(f"interrupted; {sink.path} is finished.", EXIT_INTERRUPTED))


def keep(sink: FrameSink, signals: HeldSignals) -> None:
    """Keep what an interrupted command has written, and say where; once, however often it is called."""
    signals.take()
    if sink.is_closed:
        return
    sink.abort(keep_partial=True)
    done = "nothing was finished" if sink.kept is None else f"what was finished is in {sink.kept} ({_frames(sink)})"
    fail(f"interrupted; {done}.", EXIT_INTERRUPTED)


def _frames(sink: FrameSink) -> str:
    return f"{sink.frames_written} frame{'s' if sink.frames_written != 1 else ''}"
