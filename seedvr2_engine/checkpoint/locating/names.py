"""Names of model files that come from elsewhere: a workflow, a registry. They stay inside their folder on every OS."""

import os
from collections.abc import Iterator
from pathlib import Path, PureWindowsPath

MODEL_SUFFIXES = frozenset({".safetensors", ".gguf"})
"""Endings of the files that are offered as models."""

_LONGEST_NAME_BYTES = 255
"""Of one part of a path, on all common file systems."""
_LONGEST_PATH_BYTES = 1000
_DEVICES = frozenset(
    ("con", "prn", "aux", "nul", "conin$", "conout$", *(f"{kind}{n}" for kind in ("com", "lpt") for n in "123456789"))
)


def stays_inside(name: str) -> bool:
    r"""Whether a relative path with `/` or `\\` means something inside its folder, on every operating system.

    No drive, root, share, stream, device name, `..`, control character, or name that Windows would shorten. A link
    inside a folder may lead elsewhere: who may make one there has the folder.
    """
    path = PureWindowsPath(name)
    if not path.parts or path.drive or path.root or (os.name == "nt" and ":" in name):
        return False
    if any(character < " " or character == "\x7f" for character in name) or _bytes_of(name) > _LONGEST_PATH_BYTES:
        return False
    return all(_is_plain_part(part) for part in name.replace("\\", "/").split("/"))


def is_plain_name(name: str) -> bool:
    """Whether this is the name of a file without folders, that every operating system takes as it is."""
    return stays_inside(name) and not any(mark in name for mark in "/\\:") and not name.startswith(".")


def _bytes_of(name: str) -> int:
    try:
        return len(os.fsencode(name))
    except UnicodeEncodeError:  # Half a character, which no file has in its name.
        return _LONGEST_PATH_BYTES + 1


def _is_plain_part(part: str) -> bool:
    stem = part.split(".")[0].strip().lower()
    shortened = part.rstrip(" .") != part
    return bool(part) and not shortened and stem not in _DEVICES and _bytes_of(part) <= _LONGEST_NAME_BYTES


def model_paths(folder: Path) -> Iterator[Path]:
    """Files in `folder` and below, by name, without hidden ones: those are other programs', or unfinished."""
    for path in sorted(folder.rglob("*")) if folder.is_dir() else ():
        if not any(part.startswith(".") for part in path.relative_to(folder).parts) and path.is_file():
            yield path
