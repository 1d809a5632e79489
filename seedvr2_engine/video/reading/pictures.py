"""Which picture files a folder, a printf pattern or a glob stands for, in order."""

from __future__ import annotations

import glob
import re
from pathlib import Path

from ...errors import VideoError

_JPEG = (".jpg", ".jpeg", ".jpe", ".jfif")
_NETPBM = (".ppm", ".pgm", ".pnm", ".pbm", ".pam")
_OTHERS = (".png", ".webp", ".tif", ".tiff", ".bmp", ".dib", ".tga", ".dpx", ".exr", ".jp2", ".j2k", ".jxl", ".qoi")
PICTURE_SUFFIXES = frozenset((*_JPEG, *_NETPBM, *_OTHERS))
_PRINTF = re.compile(r"%(0?)(\d*)d")


def is_picture(path: Path) -> bool:
    """Return whether the name ends like a picture's."""
    return path.suffix.lower() in PICTURE_SUFFIXES


def printf_field(name: str) -> re.Match[str] | None:
    """Return the one `%d` or `%0Nd` field of a file name, or None; raises VideoError if it has several."""
    fields = list(_PRINTF.finditer(name))
    if len(fields) > 1:
        raise VideoError(f"{name}: expected one number field such as %05d, found {len(fields)}; keep one.")
    return fields[0] if fields else None


def list_pictures(path: Path) -> list[Path] | None:
    """Return the pictures of a folder, a printf pattern (`a_%05d.png`) or a glob, sorted by their numbers.

    None if `path` names a single file. A printf pattern starts at its lowest number, and a hole in its numbers
    raises VideoError, as does a folder or pattern without pictures.
    """
    if path.is_dir():
        found = [entry for entry in path.iterdir() if is_picture(entry) and entry.is_file()]
        if not found:
            raise VideoError(
                f"{path}: expected a folder with pictures, found none; name a folder of PNG or JPEG files."
            )
        return sorted(found, key=_natural)
    if path.exists():
        return None
    if printf_field(path.name):
        return _numbered(path)
    if glob.has_magic(path.name):
        found = [entry for entry in path.parent.glob(path.name) if is_picture(entry) and entry.is_file()]
        if not found:
            raise VideoError(f"{path}: no picture matches this pattern; check the folder and the pattern.")
        return sorted(found, key=_natural)
    return None


def _numbered(path: Path) -> list[Path]:
    field = printf_field(path.name)
    assert field is not None
    digits = r"\d+" if not field[2] else rf"\d{{{field[2]},}}"
    before, after = re.escape(path.name[: field.start()]), re.escape(path.name[field.end() :])
    pattern = re.compile(f"{before}({digits}){after}")
    entries = path.parent.iterdir() if path.parent.is_dir() else iter(())
    numbers = {int(match[1]): entry for entry in entries if (match := pattern.fullmatch(entry.name))}
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


def _natural(path: Path) -> list[tuple[int, str]]:
    """Sort key under which frame2 comes before frame10."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", path.name)]
