"""How every kernel is launched, so that many can be compiled side by side before the first one runs.

A kernel takes one to four seconds to compile, and a decode needs some forty of them. Triton lets go of Python's lock
while it compiles, so threads suffice: sixteen cores compile a decode in the time of its two slowest kernels.
"""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any

import triton

_compiling: ContextVar[bool] = ContextVar("compiling", default=False)


def launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, **options: Any) -> None:
    """`kernel[grid](*arguments, **options)`; while `compile_ahead` is at work the kernel is compiled and not run."""
    if _compiling.get():
        kernel.warmup(*arguments, grid=grid, **options)
    else:
        kernel[grid](*arguments, **options)


def compile_ahead(launches: Iterable[Callable[[], object]], threads: int | None = None) -> None:
    """Compile what these launches need, side by side; none of them computes anything.

    threads: None is one a core. A kernel that does not compile is left for its real launch, which says why.
    """
    if triton.knobs.runtime.interpret:
        return
    token = _compiling.set(True)
    try:
        with (
            ThreadPoolExecutor(threads or os.cpu_count()) as pool,
            triton.AsyncCompileMode(pool, ignore_errors=True),
        ):
            for call in launches:
                call()
    finally:
        _compiling.reset(token)
