"""Which picture files a folder, a printf pattern or a glob stands for, in order."""

from __future__ import annotations

import re
from fnmatch import fnmatch
from glob import has_magic
from pathlib import Path

from ....errors import VideoError
from ..container.demuxers import PICTURE_SUFFIXES, is_picture
from ..folder import natural, visible

__all__ = ["PICTURE_SUFFIXES", "is_picture", "list_pictures", "printf_field"]

_PRINTF = re.compile(r"%(0?)(\d*)d")
# More digits than any file system's names have room for beside an ending.
_MOST_DIGITS = 200


def printf_field(name: str) -> re.Match[str] | None:
    """Return the one `%d` or `%0Nd` field of a file name, or None; raises VideoError if it has several."""
    fields = list(_PRINTF.finditer(name))
    if len(fields) > 1:
        raise VideoError(f"{name}: expected one number field such as %05d, found {len(fields)}; keep one.")
    return fields[0] if fields else None


def list_pictures(path: Path) -> list[Path] | None:
    """Return the pictures of a folder, a printf pattern (`a_%05d.png`) or a glob, sorted by their numbers.

    None if `path` names a single file: one that exists is never taken for a pattern. Hidden files are left out. A
    printf pattern starts at its lowest number, and a hole in its numbers raises VideoError, as does a folder or
    pattern without pictures, and an empty picture.
    """
    try:
        is_folder, exists = path.is_dir(), path.exists()
    except (OSError, ValueError) as error:
        raise VideoError(f"{str(path)[:80]!r}: no file can have this name; check it.") from error
    if is_folder:
        found = [entry for entry in visible(path) if is_picture(entry) and entry.is_file()]
        if not found:
            raise VideoError(
                f"{path}: expected a folder with pictures, found none; name a folder of PNG or JPEG files."
            )
        return _without_holes(found)
    if exists:
        return None
    if printf_field(path.name):
        return _without_holes(_numbered(path))
    if has_magic(path.name):
        found = [entry for entry in _beside(path) if fnmatch(entry.name, path.name)]
        found = [entry for entry in found if is_picture(entry) and entry.is_file()]
        if not found:
            raise VideoError(f"{path}: no picture matches this pattern; check the folder and the pattern.")
        return _without_holes(sorted(found, key=natural))
    return None


def _beside(path: Path) -> list[Path]:
    """What a pattern is held against: all files of its folder, hidden ones only if it asks for them."""
    if not path.parent.is_dir():
        return []
    return list(path.parent.iterdir()) if path.name.startswith(".") else visible(path.parent)


def _without_holes(pictures: list[Path]) -> list[Path]:
    for picture in pictures:
        if picture.stat().st_size == 0:
            raise VideoError(f"{picture}: expected a picture, found an empty file; replace it, or take it away.")
    return pictures


def _numbered(path: Path) -> list[Path]:
    field = printf_field(path.name)
    assert field is not None
    least = field[2].lstrip("0") or "0"
    if len(least) > 3 or int(least) > _MOST_DIGITS:
        raise VideoError(f"{path}: expected at most {_MOST_DIGITS} digits, found %{field[2]}d; write %05d for five.")
    digits = r"\d+" if not field[2] else rf"\d{{{least},}}"
    before, after = re.escape(path.name[: field.start()]), re.escape(path.name[field.end() :])
    pattern = re.compile(f"{before}({digits}){after}", re.ASCII)
    numbers: dict[int, Path] = {}
    for entry in _beside(path):
        if match := pattern.fullmatch(entry.name):
            other = numbers.setdefault(int(match[1]), entry)
            if other != entry:
                raise VideoError(
                    f"{path}: expected one picture {int(match[1])}, found {other.name} and {entry.name}; take one away "
                    "or write the number of digits (%05d)."
                )
    if not numbers:
        raise VideoError(f"{path}: no picture matches this pattern; check the folder and the number of digits.")
    ordered = sorted(numbers)
    for expected, number in enumerate(ordered, ordered[0]):
        if number != expected:
            raise VideoError(
                f"{path}: expected picture {expected} after {expected - 1}, found {number}; add the missing one or "
                "name the folder to read the pictures without regard to gaps."
            )
    return [numbers[number] for number in ordered]
