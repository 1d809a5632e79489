"""What a folder of compiled kernels says of itself: `kernels.json`, read without trust."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...errors import KernelsError

NAME = "kernels.json"
SCHEMA = "seedvr2-kernels"
VERSION = 1
KINDS = ("cubin", "json")
"""What is kept of a kernel: its code, and what Triton has to know of it."""
_LARGEST_BYTES = 64 << 20
_HEX = re.compile(r"[0-9a-f]{64}")
_KERNEL = re.compile(r"[A-Za-z_]\w{0,149}", re.ASCII)
_GENERATION = re.compile(r"sm_\d{2,3}", re.ASCII)


@dataclass(frozen=True)
class PackedFile:
    """A file of the folder. Its name follows from its contents, so no manifest can point outside."""

    size: int
    """Bytes."""
    sha256: str
    """Of its contents, hexadecimal."""

    def path(self, folder: Path, kind: str) -> Path:
        """Where it lies; kind: one of `KINDS`."""
        return folder / f"{self.sha256}.{kind}"

    def read(self, folder: Path, kind: str) -> bytes:
        """The contents; raises KernelsError where they are not the ones that were written."""
        path = self.path(folder, kind)
        try:
            with path.open("rb") as file:
                data = file.read(self.size + 1)
        except OSError as error:
            raise KernelsError(f"{path}: cannot be read ({error.strerror}); build the folder anew.") from error
        if len(data) != self.size or hashlib.sha256(data).hexdigest() != self.sha256:
            raise KernelsError(
                f"{path}: expected the contents that its name says, found others; build the folder anew."
            )
        return data


@dataclass(frozen=True)
class PackedKernel:
    """One kernel for one set of types and constants."""

    name: str
    """Of the function."""
    source: str
    """Triton's hash of the function, of all that it calls, of its types and its constants."""
    options: str
    """Triton's hash of the options."""
    cubin: PackedFile
    """The code."""
    json: PackedFile
    """What Triton has to know of it: warps, shared memory and the like."""

    def files(self) -> dict[str, PackedFile]:
        """By kind."""
        return {"cubin": self.cubin, "json": self.json}


@dataclass(frozen=True)
class Manifest:
    """A folder."""

    generation: str
    """Of the GPUs, such as `sm_120`."""
    triton: str
    """Triton's version."""
    assembler: str
    """What Triton says of the assembler, its version among it."""
    source: str
    """SHA-256 of the kernels' sources (`sources.source_hash`)."""
    engine: str
    """Version of this package."""
    covers: tuple[str, ...]
    """What the kernels are for, for people."""
    kernels: tuple[PackedKernel, ...]
    """All of them."""

    def to_json(self) -> str:
        """As it is written."""
        facts = {"schema": SCHEMA, "version": VERSION, **asdict(self)}
        return json.dumps(facts, indent=1, sort_keys=True) + "\n"

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Of a folder; raises KernelsError where there is none, or not one of this version."""
        path = folder / NAME
        try:
            with path.open("rb") as file:
                data = file.read(_LARGEST_BYTES + 1)
        except OSError as error:
            raise KernelsError(f"{path}: cannot be read ({error.strerror}).") from error
        if len(data) > _LARGEST_BYTES:
            raise KernelsError(f"{path}: expected at most {_LARGEST_BYTES >> 20} MiB.")
        try:
            return _manifest(json.loads(data))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise KernelsError(f"{path}: expected a manifest of version {VERSION}, found another ({error}).") from error


def _manifest(facts: Any) -> Manifest:
    if facts["schema"] != SCHEMA or facts["version"] != VERSION:
        raise ValueError(f"{facts['schema']} {facts['version']}")
    return Manifest(
        generation=_matching(facts["generation"], _GENERATION),
        triton=_text(facts["triton"]),
        assembler=_text(facts["assembler"]),
        source=_matching(facts["source"], _HEX),
        engine=_text(facts["engine"]),
        covers=tuple(_text(line) for line in _list(facts["covers"])),
        kernels=tuple(_kernel(kernel) for kernel in _list(facts["kernels"])),
    )


def _kernel(facts: Any) -> PackedKernel:
    return PackedKernel(
        name=_matching(facts["name"], _KERNEL),
        source=_matching(facts["source"], _HEX),
        options=_matching(facts["options"], _HEX),
        cubin=_file(facts["cubin"]),
        json=_file(facts["json"]),
    )


def _file(facts: Any) -> PackedFile:
    size = facts["size"]
    if type(size) is not int or not 0 < size <= _LARGEST_BYTES:
        raise ValueError(f"a file of {size!r} bytes")
    return PackedFile(size, _matching(facts["sha256"], _HEX))


def _matching(value: Any, pattern: re.Pattern[str]) -> str:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise ValueError(f"{str(value)[:80]!r} where {pattern.pattern} was expected")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > 4096:
        raise TypeError("a value that is no short text")
    return value


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError("a value that is no list")
    return value
