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
    from ...video import FrameSink, SinkOptions

_SLOW_SHARE = 0.1


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


def slow_encoder(waited_s: float, seconds: float, sink: FrameSink, options: SinkOptions) -> str | None:
    """A sentence where computing waited for the encoder more than a tenth of the time, with what to do about it."""
    from ...video.writing.options import NVENC, PRESETS

    if seconds <= 0 or waited_s <= _SLOW_SHARE * seconds:
        return None
    advice = "write it to a faster disk or in a format that is quicker to write"
    if sink.coding is not None:
        slower = PRESETS[PRESETS.index("veryfast") + 1 :]
        faster = ["--preset veryfast"] if options.preset in slower else []
        if options.codec not in NVENC:
            faster.append("an encoder in hardware where there is one (--codec hevc_nvenc)")
        if faster:
            advice = "faster: " + ", or ".join(faster)
            return f"Computing waited {waited_s:.1f} of {seconds:.1f} s for the encoder; {advice}."
    return f"Computing waited {waited_s:.1f} of {seconds:.1f} s for the output to be written; {advice}."
