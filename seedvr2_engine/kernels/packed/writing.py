"""Compiled kernels as a folder that travels."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import triton
from triton._C.libtriton import get_cache_invalidating_env_vars

from ...errors import KernelsError, OutputError
from ...output.unfinished import new_folder, system_errors
from ...version import __version__
from .elsewhere import capability_of
from .keys import backend_for, cache_digest, options_hash
from .manifest import NAME, Manifest, PackedFile, PackedKernel
from .sources import source_hash


def write_folder(target: Path, generation: str, kernels: Iterable[Any], covers: Sequence[str]) -> Manifest:
    """Write kernels that `launch.compile_only` gave inside `compiling_for`, into a new folder.

    covers: lines for people. Raises OutputError where the folder exists or cannot be written, and KernelsError where
    Triton's keys are not made as this was written for.
    """
    if target.exists() or target.is_symlink():
        raise OutputError(f"{target}: it exists already; choose another name.")
    if not target.parent.is_dir():
        raise OutputError(f"{target}: its folder does not exist; create {target.parent} first.")
    with system_errors(target):
        folder = new_folder(target)
        try:
            manifest = _fill(folder, generation, kernels, covers)
            folder.rename(target)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
    return manifest


def _fill(folder: Path, generation: str, kernels: Iterable[Any], covers: Sequence[str]) -> Manifest:
    backend = backend_for(capability_of(generation))
    packed = {kernel.hash: _pack(folder, backend, kernel) for kernel in kernels}
    manifest = Manifest(
        generation=generation,
        triton=triton.__version__,
        assembler=backend.hash(),
        source=source_hash(),
        engine=__version__,
        covers=tuple(covers),
        kernels=tuple(sorted(packed.values(), key=lambda kernel: (kernel.name, kernel.source, kernel.options))),
    )
    (folder / NAME).write_text(manifest.to_json())
    return manifest


def _pack(folder: Path, backend: Any, kernel: Any) -> PackedKernel:
    metadata = kernel.metadata._asdict()
    source, options = kernel.src.hash(), options_hash(backend, metadata)
    environment = get_cache_invalidating_env_vars()
    if cache_digest(source, backend.hash(), options, environment) != kernel.hash:
        raise KernelsError(
            f"{kernel.src.name}: expected Triton to name kernels by source, assembler, options and environment, and "
            f"Triton {triton.__version__} does not; take a version that this package was tried with."
        )
    # What is only true here, or only of this build, does not travel.
    facts = {key: value for key, value in metadata.items() if key not in environment and key != "extern_libs"}
    facts["target"] = {key: getattr(facts["target"], key) for key in ("backend", "arch", "warp_size")}
    text = json.dumps(facts, sort_keys=True, default=vars).encode()
    return PackedKernel(
        name=kernel.src.name[:150],
        source=source,
        options=options,
        cubin=_write(folder, kernel.asm["cubin"], "cubin"),
        json=_write(folder, text, "json"),
    )


def _write(folder: Path, data: bytes, kind: str) -> PackedFile:
    file = PackedFile(len(data), hashlib.sha256(data).hexdigest())
    file.path(folder, kind).write_bytes(data)
    return file
