"""What the pictures of an output sequence are called: as the pictures they come from, or by their numbers."""

from __future__ import annotations

import os
import re
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from ....errors import OutputError
from ...info import SourceInfo
from ...reading.pictures.selection import is_picture, printf_field
from ..containers import CONTAINERS

DEFAULT_PICTURE_NAME = "%06d.png"
"""Pictures of a clip in a folder."""
_KEPT_SUFFIX = ".png"
_LAST_NUMBER = re.compile(r"([0-9]+)[^0-9]*$")
_LONGEST_NUMBER = 18
"""Most digits that a pattern may ask for."""


@dataclass(frozen=True)
class PictureNames:
    """The names of a sequence's files, decided when it is opened.

    Pictures that go into a folder keep their names, as PNG; pictures that go into a printf pattern keep their
    numbers, so that gaps stay gaps. Where there are no such names or numbers, counting starts at 1.
    """

    folder: Path
    pattern: str
    """printf pattern with one number field; its ending is that of all names."""
    names: tuple[str, ...] = ()
    """Names of the frames that are read, in order; numbers are counted from 1 where there are none."""
    most: int | None = None
    """Frames that will come, as far as is known."""
    warnings: tuple[str, ...] = ()

    @staticmethod
    def of(path: Path, source: SourceInfo | None) -> PictureNames:
        """Return the names for a folder or pattern `path`; raises OutputError if two pictures would get one name."""
        chosen: tuple[str, ...] = ()
        most = None if source is None else source.selected_frames
        if source is not None:
            chosen = source.pictures[source.first_frame : source.first_frame + source.selected_frames]
        if _field(path.name) is None or path.is_dir():
            return _kept(path, chosen, most)
        if not chosen:
            return PictureNames(path.parent, path.name, most=most)
        found = [_LAST_NUMBER.search(Path(name).stem) for name in chosen]
        numbers = [int(match[1]) for match in found if match is not None]
        if len(numbers) < len(chosen) or any(after <= before for before, after in pairwise(numbers)):
            warning = f"The names of {source.path if source else path} hold no rising numbers; counted from 1."
            return PictureNames(path.parent, path.name, most=most, warnings=(warning,))
        return PictureNames(path.parent, path.name, tuple(numbered(path.name, number) for number in numbers), most)

    def name(self, index: int) -> str:
        """Return the name of the `index`-th frame that is written, counted from 0."""
        return self.names[index] if index < len(self.names) else numbered(self.pattern, index + 1)

    def existing(self) -> list[Path]:
        """Return the files that the sequence would replace."""
        if self.names:
            return [path for name in self.names if os.path.lexists(path := self.folder / name)]
        return producible(self.folder, self.pattern, self.most)


def is_sequence(path: Path) -> bool:
    """Return whether an output of this name is many pictures: a pattern, a folder, or a name without an ending.

    Raises OutputError for a pattern without a picture's ending.
    """
    suffix = path.suffix.lower()
    if suffix in CONTAINERS:
        return False
    field = _field(path.name)
    if field is None and is_picture(path):
        return False
    if path.is_dir():
        return True
    if field is not None and not suffix:
        raise OutputError(
            f"{path}: expected a picture's ending behind the number, such as %05d.png; rename the output."
        )
    return field is not None or not suffix


def producible(folder: Path, pattern: str, most: int | None = None) -> list[Path]:
    """Return the files of a folder with a name that the pattern gives to a frame, of the first `most` if given."""
    field = _field(pattern)
    if field is None or not folder.is_dir():
        return []
    name = re.compile(re.escape(pattern[: field.start()]) + r"([0-9]+)" + re.escape(pattern[field.end() :]))
    matches = ((entry, name.fullmatch(entry.name)) for entry in folder.iterdir())
    numbers = [(entry, int(match[1])) for entry, match in matches if match and len(match[1]) <= _LONGEST_NUMBER]
    return [
        entry
        for entry, number in numbers
        if 1 <= number <= (most or number) and entry.name == numbered(pattern, number)
    ]


def numbered(pattern: str, number: int) -> str:
    """Return the name of a frame: ("a_%03d.png", 7) -> "a_007.png"; every other percent sign stands for itself."""
    field = _field(pattern)
    assert field is not None
    width = int(field[2] or 0)
    text = f"{number:0{width}d}" if field[1] else f"{number:{width}d}"
    return f"{pattern[: field.start()]}{text}{pattern[field.end() :]}"


def _field(name: str) -> re.Match[str] | None:
    field = printf_field(name)
    if field is not None and int(field[2] or 0) > _LONGEST_NUMBER:
        raise OutputError(f"{name}: expected at most {_LONGEST_NUMBER} digits, found a field of {field[2]}; use %05d.")
    return field


def _kept(folder: Path, chosen: tuple[str, ...], most: int | None) -> PictureNames:
    names = tuple(f"{Path(name).stem}{_KEPT_SUFFIX}" for name in chosen)
    # File systems of Windows and macOS do not tell A.png from a.png.
    twice = next((name for name, count in Counter(map(str.lower, names)).items() if count > 1), None)
    if twice is not None:
        raise OutputError(
            f"{folder}: expected pictures of different names, found two that would become {twice}; rename one, or "
            "number them by a pattern such as %05d.png."
        )
    return PictureNames(folder, DEFAULT_PICTURE_NAME, names, most)
