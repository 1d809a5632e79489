"""Launches compiled for a GPU that is not here: Triton asks a driver what to compile for, and this one says so."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import triton
from triton._C.libtriton import get_cache_invalidating_env_vars
from triton.backends.compiler import GPUTarget

from ...errors import KernelsError
from ..architectures import ARCHITECTURES


class _Elsewhere:
    """What Triton asks of a driver before a launch; there is nothing to launch on."""

    def __init__(self, capability: int) -> None:
        self._capability = capability

    def get_current_device(self) -> int:
        # Functions keep their kernels by device, so each generation has one.
        return -self._capability

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self._capability, 32)


def capability_of(generation: str) -> int:
    """`sm_120` -> 120; raises KernelsError for a generation that the kernels do not know."""
    if generation not in ARCHITECTURES:
        raise KernelsError(f"arch: expected one of {', '.join(ARCHITECTURES)}, got {generation}.")
    return int(generation.removeprefix("sm_"))


@contextmanager
def compiling_for(generation: str) -> Iterator[None]:
    """Inside, launches are compiled for GPUs of this generation, into a cache that is thrown away; none can run.

    What is compiled is what a launch on such a GPU would compile, but for the lines of the sources, whose paths would
    travel along. Raises KernelsError where the environment changes what compilers give.
    """
    capability = capability_of(generation)
    if triton.knobs.runtime.interpret:
        raise KernelsError("compiling: Triton's interpreter compiles nothing; unset TRITON_INTERPRET.")
    changed = sorted(get_cache_invalidating_env_vars())
    if changed:
        raise KernelsError(f"compiling: {', '.join(changed)} changes what Triton compiles; unset it.")
    config = triton.runtime.driver
    before = config._active
    with (
        tempfile.TemporaryDirectory(prefix="seedvr2-kernels-") as cache,
        triton.knobs.cache.scope(),
        triton.knobs.compilation.scope(),
    ):
        triton.knobs.cache.dir = os.fspath(cache)
        triton.knobs.cache.manager_class = None
        triton.knobs.compilation.disable_line_info = True
        config.set_active(_Elsewhere(capability))
        try:
            yield
        finally:
            config._active = before
