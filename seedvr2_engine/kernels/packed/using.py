"""Kernels from folders instead of the compiler, by way of Triton's cache."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
import triton
from triton.runtime.cache import FileCacheManager

from ...errors import KernelsError
from ..architectures import ARCHITECTURES
from .elsewhere import capability_of
from .keys import backend_for, cache_name
from .manifest import NAME, Manifest, PackedKernel
from .sources import FOLDERS_VARIABLE, package_folder, source_hash

log = logging.getLogger(__name__)


class _Found(NamedTuple):
    folder: Path
    kernel: PackedKernel


class PackedKernels:
    """The kernels of all folders that fit this machine, found when the first one is wanted."""

    def __init__(self, generations: Iterable[str], folders: Callable[[str], list[Path]]) -> None:
        """folders: where to look for a generation's kernels; a folder that does not fit is named in the log."""
        self._generations = sorted(set(generations))
        self._folders = folders
        self._lock = threading.Lock()
        self._known: dict[str, _Found] | None = None

    def files(self, name: str, wanted: str) -> dict[str, bytes] | None:
        """The verified files of a kernel by its name in Triton's cache, or None; wanted: the file that is asked for."""
        with self._lock:
            if self._known is None:
                self._known = self._look()
            found = self._known.get(name)
            if found is None or wanted != f"{found.kernel.name}.json":
                return None
            try:
                return {
                    f"{found.kernel.name}.{kind}": file.read(found.folder, kind)
                    for kind, file in found.kernel.files().items()
                }
            except KernelsError as error:
                # What is wrong with one file can be wrong with others, and one line is enough.
                log.warning("kernels are compiled: %s", error)
                self._known = {key: other for key, other in self._known.items() if other.folder != found.folder}
                return None

    def _look(self) -> dict[str, _Found]:
        known: dict[str, _Found] = {}
        for generation in self._generations:
            for folder in self._folders(generation):
                try:
                    manifest = fitting_manifest(folder, generation)
                except KernelsError as error:
                    log.info("kernels are compiled: %s", error)
                    continue
                log.info("%d compiled kernels for %s come from %s", len(manifest.kernels), generation, folder)
                for kernel in manifest.kernels:
                    known.setdefault(cache_name(kernel, manifest.assembler), _Found(folder, kernel))
        return known


def fitting_manifest(folder: Path, generation: str) -> Manifest:
    """The manifest of a folder for this generation, this Triton and these sources; KernelsError says what differs."""
    manifest = Manifest.read(folder)
    facts = {
        "generation": (manifest.generation, generation),
        "Triton": (manifest.triton, triton.__version__),
        "assembler": (manifest.assembler, backend_for(capability_of(generation)).hash()),
        "source": (manifest.source, source_hash()),
    }
    for name, (there, here) in facts.items():
        if there != here:
            raise KernelsError(
                f"{folder}: expected kernels for {name} {_short(here)}, found {_short(there)}; build the folder anew "
                "(seedvr2 kernels build)."
            )
    return manifest


def _short(text: str) -> str:
    """One line of what can be a page or a hash."""
    last = text.strip().splitlines()[-1] if text.strip() else "nothing"
    return last[:16] if len(last) == 64 else last


def listed_folders(generation: str) -> list[Path]:
    """Where a generation's kernels are: folders of SEEDVR2_KERNELS, then the installed package's."""
    folders = []
    for entry in filter(None, os.environ.get(FOLDERS_VARIABLE, "").split(os.pathsep)):
        folder = Path(entry).expanduser()
        nested = folder / generation
        folders.append(nested if (nested / NAME).is_file() else folder)
    package = package_folder(generation)
    return [*folders, package] if package is not None else folders


def use_packed_kernels() -> None:
    """Let Triton take kernels from the folders of this machine's generations where it would compile them; once."""
    if triton.knobs.runtime.interpret or not torch.cuda.is_available():
        return
    found = {torch.cuda.get_device_capability(index) for index in range(torch.cuda.device_count())}
    generations = {f"sm_{major}{minor}" for major, minor in found}
    install(PackedKernels(generations & set(ARCHITECTURES), listed_folders))


def install(kernels: PackedKernels) -> None:
    """Put `kernels` between Triton and its cache; does nothing where some are in place already."""
    base = triton.knobs.cache.manager_class or FileCacheManager
    if not hasattr(base, "packed_kernels"):
        triton.knobs.cache.manager_class = _manager(base, kernels)


def _manager(base: Any, kernels: PackedKernels) -> Any:
    class PackedCacheManager(base):  # type: ignore[misc]
        """A cache that asks folders for what it does not have itself, and keeps it."""

        packed_kernels = kernels

        def __init__(self, key: str, override: bool = False, dump: bool = False) -> None:
            super().__init__(key, override=override, dump=dump)
            self._name = "" if override or dump else key

        def get_group(self, filename: str) -> dict[str, str] | None:
            group: dict[str, str] | None = super().get_group(filename)
            if group or not self._name:
                return group
            files = kernels.files(self._name, filename)
            if files is None:
                return group
            group = {name: self.put(data, name, binary=True) for name, data in files.items()}
            self.put_group(filename, group)
            return group

    return PackedCacheManager
