"""The command itself: its subcommands, and what every error becomes."""

import ctypes
import functools
import logging
import sys
from collections.abc import Callable
from typing import Annotated

import typer

from ..version import __version__
from .commands import bench, bench_file, bench_upscale, clips, compare, doctor, files, plan, shots, upscale
from .failures import PASSED_ON, sentence_of
from .terminal.console import EXIT_INTERRUPTED, fail
from .terminal.interruption import end_at_once, keep_what_is_finished, was_interrupted
from .terminal.shown import ShownFormatter
from .terminal.streams import drop_what_waits

_M_MMAP_THRESHOLD = -3
"""Its number in glibc's malloc.h."""
_OWN_PAGES_BYTES = 1 << 20
_M_TRIM_THRESHOLD = -1
_KEPT_BYTES = 64 << 20
"""What the heap of the smaller blocks keeps when they are freed, instead of giving it back and asking anew."""


def _with_exit_codes(command: Callable[..., None]) -> Callable[..., None]:
    """Turn every error into one sentence and an exit code: 2 for bad input, 130 for Ctrl-C, 1 for a fault of ours."""

    @functools.wraps(command)
    def run(*args: object, **kwargs: object) -> None:
        try:
            _interruptible(command, *args, **kwargs)
        except PASSED_ON:
            raise
        except BrokenPipeError:
            raise  # Whoever read our output has gone, which is theirs to decide.
        except KeyboardInterrupt:
            raise typer.Exit(fail("interrupted.", EXIT_INTERRUPTED)) from None
        except Exception as error:
            raise typer.Exit(_failed(error)) from None

    return run


def _interruptible(command: Callable[..., None], *args: object, **kwargs: object) -> None:
    """Run a command; an interruption that comes out of a half-imported module or a callback as an error is one."""
    try:
        command(*args, **kwargs)
    except typer.Exit:
        raise
    except Exception:
        if was_interrupted():
            raise KeyboardInterrupt from None
        raise


def _failed(error: Exception) -> int:
    try:
        return fail(*sentence_of(error))
    except KeyboardInterrupt:
        return fail("interrupted.", EXIT_INTERRUPTED)


app = typer.Typer(
    name="seedvr2",
    help="The SeedVR2 video upscaler and its VAE: exact, streaming, from file to file.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _command in (
    upscale.upscale,
    shots.shots,
    compare.compare,
    clips.reconstruct,
    plan.plan,
    doctor.doctor,
    files.info,
    files.convert,
    files.download,
    files.models,
):
    app.command()(_with_exit_codes(_command))
_bench = typer.Typer(name="bench", help="Measure on the machine at hand; nothing gets a time before it is right.")
_bench.callback()(lambda: None)
_bench.command("file")(_with_exit_codes(bench_file.bench_file))
_bench.command("upscale")(_with_exit_codes(bench_upscale.bench_upscale))
_bench.command("vae")(_with_exit_codes(bench.vae))
app.add_typer(_bench)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"seedvr2-engine {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log every step.")] = False,
) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(ShownFormatter("%(levelname)s: %(message)s"))
    logging.basicConfig(level=logging.DEBUG if verbose else logging.WARNING, handlers=[handler])


def main() -> None:
    """Run the command line and exit."""
    _keep_memory_steady()
    keep_what_is_finished()
    try:
        app()
    except KeyboardInterrupt:  # Before the command began, or after it ended.
        sys.exit(fail("interrupted.", EXIT_INTERRUPTED))
    finally:
        end_at_once()
        drop_what_waits()


def _keep_memory_steady() -> None:
    """Let glibc give every large block pages of its own, and back when it is freed.

    Left alone it does so only for blocks larger than any freed before; the others come from a heap that fragments,
    whose peak wandered by a fifth over a long clip.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none, and no need of it.
        if mallopt is not None:
            mallopt(_M_MMAP_THRESHOLD, _OWN_PAGES_BYTES)
            mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
