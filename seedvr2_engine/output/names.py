"""Names for what is not finished yet: unique, beside the target, and never longer than the file system allows."""

from __future__ import annotations

import os
import re
import secrets
from hashlib import sha256
from pathlib import Path

_USUAL_NAME_BYTES = 255
_RANDOM_DIGITS = 8


def longest_name(folder: Path) -> int:
    """Return how many bytes a file name in this folder may have."""
    try:
        return os.pathconf(folder, "PC_NAME_MAX")
    except (AttributeError, OSError, ValueError):  # Windows has no pathconf, and its 255 units are no fewer bytes.
        return _USUAL_NAME_BYTES


def unique_sibling(target: Path, mark: str, *, keeps_ending: bool = True) -> Path:
    """Return a new name beside the target: `clip.mp4` -> `clip.partial-3f9a01c2.mp4` for the mark `partial`.

    The ending stays where the file is of use before it is finished; otherwise the mark comes last, so that nothing
    takes it for a finished one. The random part makes it nobody else's; who creates it still does so exclusively.
    """
    stem, ending = _parts(target, keeps_ending)
    return _fitting(target, stem, f".{mark}-{secrets.token_hex(_RANDOM_DIGITS // 2)}{ending}")


def earlier_siblings(target: Path, mark: str, *, keeps_ending: bool = True) -> list[Path]:
    """Return what is there under names that `unique_sibling` gives: of runs that were broken off, or still write."""
    stem, ending = _parts(target, keeps_ending)
    example = _fitting(target, stem, f".{mark}-{'0' * _RANDOM_DIGITS}{ending}").name
    begin = example[: len(example) - len(ending) - _RANDOM_DIGITS]
    pattern = re.compile(f"{re.escape(begin)}[0-9a-f]{{{_RANDOM_DIGITS}}}{re.escape(ending)}")
    try:
        return sorted(path for path in target.parent.iterdir() if pattern.fullmatch(path.name))
    except OSError:
        return []


def hidden_sibling(target: Path, mark: str) -> Path:
    """Return the one name beside the target that all runs agree on: `clip.mp4` -> `.clip.mp4.lock` for `lock`."""
    name = f".{target.name}.{mark}"
    if len(os.fsencode(name)) <= longest_name(target.parent):
        return target.with_name(name)
    digest = sha256(os.fsencode(target.name)).hexdigest()[:16]
    return _fitting(target, f".{target.name}", f".{digest}.{mark}")


def _parts(target: Path, keeps_ending: bool) -> tuple[str, str]:
    return (target.stem, target.suffix) if keeps_ending else (target.name, "")


def _fitting(target: Path, stem: str, rest: str) -> Path:
    room = longest_name(target.parent) - len(os.fsencode(rest))
    while len(os.fsencode(stem)) > room:
        stem = stem[:-1]
    return target.parent / f"{stem}{rest}"
