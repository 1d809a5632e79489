"""How every kernel is launched, so that many can be compiled side by side before the first one runs.

A kernel takes one to four seconds to compile, and a decode needs some fifty of them. Triton lets go of Python's lock
for most of it, so threads suffice. What a kernel needs at its first launch, a C function of its own and a place on the
GPU, is made side by side as well.
"""

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
import triton

from ..spans import RECORDER, span

_compiled: ContextVar[list[Any] | None] = ContextVar("compiled", default=None)
"""Kernels, or promises of them, while `compile_ahead` is at work."""


def launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, **options: Any) -> None:
    """`kernel[grid](*arguments, **options)`; while `compile_ahead` is at work the kernel is compiled and not run."""
    compiled = _compiled.get()
    if compiled is None:
        kernel[grid](*arguments, **options)
    else:
        compiled.append(kernel.warmup(*arguments, grid=grid, **options))


def compile_ahead(launches: Iterable[Callable[[], object]], threads: int | None = None) -> None:
    """Compile what these launches need and load it, side by side; none of them computes anything.

    threads: None is one a core. A kernel that does not compile is left for its real launch, which says why.
    """
    if triton.knobs.runtime.interpret:
        return
    with span("compiling"):
        _compile_ahead(launches, threads)


def compile_only(launches: Iterable[Callable[[], object]], threads: int | None = None) -> list[Any]:
    """Compile what these launches need, side by side, and load none of it: the kernels, each once.

    Raises whatever the compiler raises. threads: None is one a core.
    """
    with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
        return _compiled_by(launches, pool, ignore_errors=False)


def _compile_ahead(launches: Iterable[Callable[[], object]], threads: int | None) -> None:
    with ThreadPoolExecutor(threads or os.cpu_count(), initializer=_enter()) as pool:
        list(pool.map(_load, _compiled_by(launches, pool, ignore_errors=True)))


def _compiled_by(
    launches: Iterable[Callable[[], object]], pool: ThreadPoolExecutor, *, ignore_errors: bool
) -> list[Any]:
    """The distinct kernels of these launches, compiled by the pool; those that fail are left out or raise."""
    compiled: list[Any] = []
    token = _compiled.set(compiled)
    try:
        with triton.AsyncCompileMode(pool, ignore_errors=ignore_errors):
            for call in launches:
                call()
    finally:
        _compiled.reset(token)
    finished = (_result(kernel, ignore_errors) for kernel in compiled)
    return list({id(kernel): kernel for kernel in finished if kernel is not None}.values())


@contextmanager
def counted() -> Iterator[Counter[str]]:
    """Inside, how many kernels Triton has "compiled", and "found" in its cache or packed."""
    counts: Counter[str] = Counter()
    knobs = triton.knobs.compilation
    before = knobs.listener

    def listen(*, cache_hit: bool, **facts: Any) -> None:
        counts["found" if cache_hit else "compiled"] += 1
        if before is not None:
            before(cache_hit=cache_hit, **facts)

    knobs.listener = listen
    try:
        yield counts
    finally:
        knobs.listener = before


def _record(*, times: Any, cache_hit: bool, **_: Any) -> None:
    """Record that this thread has compiled a kernel, or found it in the cache."""
    ended = time.perf_counter_ns()
    if RECORDER is not None:
        RECORDER.add("kernels found" if cache_hit else "compiling", ended - 1000 * times.total, ended)


if RECORDER is not None:
    triton.knobs.compilation.listener = _record


def _enter() -> Callable[[], None]:
    """What a thread does first: this thread's GPU is to be its own."""
    if not torch.cuda.is_available():
        return lambda: None
    device = torch.cuda.current_device()
    return lambda: torch.cuda.set_device(device)


def _result(kernel: Any, ignore_errors: bool) -> Any:
    """A compiled kernel, or None where compiling it failed and that is not to be raised."""
    return kernel.result(ignore_errors=ignore_errors) if hasattr(kernel, "result") else kernel


def _load(kernel: Any) -> None:
    """Make a compiled kernel ready for its first launch."""
    try:
        _ = kernel.run
    except Exception:  # The launch meets the same failure where it can be told.
        if kernel.module is None:
            # Triton keeps the launch function of a kernel whose code could not be loaded, and would call it with none.
            kernel._run = None
