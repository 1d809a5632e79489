"""What must be the same where kernels are compiled and where they are used."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

_ROOM = Path(__file__).parent.parent
FOLDERS_VARIABLE = "SEEDVR2_KERNELS"
"""Lists folders, separated as PATH is, that are looked into before the installed packages."""


@lru_cache(maxsize=1)
def source_hash() -> str:
    """SHA-256 over the names and texts of all files of the kernels' room but this one's folder."""
    digest = hashlib.sha256()
    own = Path(__file__).parent
    for path in sorted(_ROOM.rglob("*.py"), key=lambda path: path.relative_to(_ROOM).as_posix()):
        if own not in path.parents:
            text = path.read_bytes().replace(b"\r\n", b"\n")
            digest.update(f"{path.relative_to(_ROOM).as_posix()} {len(text)}\n".encode() + text)
    return digest.hexdigest()


def package_name(generation: str) -> str:
    """The import name of the package with a generation's kernels: `sm_120` -> `seedvr2_kernels_sm120`."""
    return f"seedvr2_kernels_{generation.replace('_', '')}"


def package_folder(generation: str) -> Path | None:
    """Where the installed package lies; None without one. Nothing of it is run."""
    name = package_name(generation)
    try:
        spec = find_spec(name) if name not in sys.modules else sys.modules[name].__spec__
    except (ImportError, ValueError):
        return None
    locations: Sequence[str] = () if spec is None else spec.submodule_search_locations or ()
    return Path(next(iter(locations))) if locations else None
