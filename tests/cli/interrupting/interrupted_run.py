"""One `seedvr2 upscale` in a fork of this process, which tells what it is at; a stand-in for the models by default.

Only POSIX has forks. Everything is imported and the small models are loaded before, so that a run takes a second.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from seedvr2_engine.checkpoint.text_embedding import load_text_embedding
from seedvr2_engine.cli import app, main
from seedvr2_engine.loading import load_vae
from seedvr2_engine.loading_dit import load_dit
from seedvr2_engine.pipeline.options import UpscaleOptions
from seedvr2_engine.pipeline.setup import Setup
from seedvr2_engine.pipeline.upscaler import Upscaler
from seedvr2_engine.video.writing.sink import FrameSink

READ, COMPUTED, WRITTEN, FINISHING, FINISHED = b"rcwfF"
"""What a run tells: a frame was taken from the source, computed, given to the sink; the end has begun, is over."""


_ENDING = {signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])}


class Run(NamedTuple):
    """A run that was started."""

    process_id: int
    events: int
    """Where its events are read."""
    stdout: int
    stderr: int


def start(arguments: Sequence[str], *, real_models: bool = False, file_bytes: int | None = None) -> Run:
    """Fork, and let the fork run `seedvr2` with these arguments; `file_bytes` limits the size of its files."""
    pipes = [os.pipe() for _ in range(3)]
    sys.stdout.flush()
    sys.stderr.flush()
    # A signal must not meet a fork that is not yet the command.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    process_id = os.fork()
    if process_id == 0:
        code = 70
        try:
            _become_the_command(pipes)
            _tell_events(pipes[0][1])
            if not real_models:
                _stand_in_for_the_models(pipes[0][1])
            if file_bytes is not None:
                import resource

                resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
            code = _run_to_its_end(arguments)
        finally:
            os._exit(code)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    for _, theirs in pipes:
        os.close(theirs)
    return Run(process_id, *(ours for ours, _ in pipes))


def _become_the_command(pipes: list[tuple[int, int]]) -> None:
    """The standard streams, signals and threads of a process that was started afresh."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    for descriptor, number in ((nothing, 0), (pipes[1][1], 1), (pipes[2][1], 2)):
        os.dup2(descriptor, number)
    # Pipes of other runs too: their readers count on an end.
    keep = {0, 1, 2, pipes[0][1]}
    for number in range(3, 256):
        if number not in keep:
            with contextlib.suppress(OSError):
                os.close(number)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    for name in ("SIGTERM", "SIGHUP"):
        signal.signal(getattr(signal, name), signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    prepare = app.keep_what_is_finished

    def prepare_and_listen() -> None:
        prepare()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)

    app.keep_what_is_finished = prepare_and_listen


def _run_to_its_end(arguments: Sequence[str]) -> int:
    """What the interpreter does around a script: uncaught errors, threads that are waited for, streams flushed."""
    sys.argv = ["seedvr2", *arguments]
    code: Any = 0
    try:
        try:
            main()
        except SystemExit as end:
            code = end.code
        threading._shutdown()  # type: ignore[attr-defined]
    except BaseException:
        with contextlib.suppress(OSError):
            traceback.print_exc()
        code = 1
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            code = code or 120
    return code if isinstance(code, int) else int(code is not None)


def _tell_events(descriptor: int) -> None:
    def telling(method: Callable[..., Any], before: int | None, after: int | None) -> Callable[..., Any]:
        @functools.wraps(method)
        def told(*arguments: Any, **named: Any) -> Any:
            _tell(descriptor, before)
            result = method(*arguments, **named)
            _tell(descriptor, after)
            return result

        return told

    FrameSink.write = telling(FrameSink.write, None, WRITTEN)  # type: ignore[method-assign]
    FrameSink.finish = telling(FrameSink.finish, FINISHING, FINISHED)  # type: ignore[method-assign]


def _tell(descriptor: int, event: int | None) -> None:
    if event is not None:
        os.write(descriptor, bytes([event]))


CHUNK = 5
SECONDS_PER_FRAME = 0.004


def _stand_in_for_the_models(descriptor: int) -> None:
    """Frames come in chunks, each after a while, enlarged by repeating pixels."""

    def upscale(
        self: Upscaler, frames: Iterable[Any], on_progress: Any = None, *, transfer: Any = None, encoded: Any = None
    ) -> Iterator[Tensor]:
        waiting: list[Tensor] = []

        def chunk() -> Iterator[Tensor]:
            for frame in waiting:
                time.sleep(SECONDS_PER_FRAME)
                _tell(descriptor, COMPUTED)
                height, width = self.options.resize((frame.shape[1], frame.shape[2])).output
                larger = torch.nn.functional.interpolate(frame[None], (height, width))[0]
                yield larger if encoded is None else encoded(larger)
            waiting.clear()

        for frame in frames:
            _tell(descriptor, READ)
            waiting.append(frame if isinstance(frame, Tensor) else frame.on("cpu"))
            if len(waiting) == CHUNK:
                yield from chunk()
        yield from chunk()

    Upscaler.upscale = upscale  # type: ignore[method-assign]


def load_models_once(dit: Path, vae: Path) -> None:
    """Load a transformer and a VAE that all runs share; the transformer's file holds a text embedding."""
    torch.set_num_threads(1)
    models = load_dit(dit), load_vae(vae)
    text = load_text_embedding(dit)

    def load(self: Setup, options: UpscaleOptions) -> Upscaler:
        return Upscaler(*models, options, text=text)

    Setup.load = load  # type: ignore[method-assign]


def is_available() -> bool:
    """Whether this system has forks and the signals."""
    return hasattr(os, "fork") and hasattr(signal, "SIGHUP")
