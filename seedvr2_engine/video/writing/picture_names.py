"""What the pictures of an output sequence are called: as the pictures they come from, or by their numbers."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from ...errors import OutputError
from ..info import SourceInfo
from ..reading.pictures import printf_field

DEFAULT_PICTURE_NAME = "%06d.png"
"""Pictures of a clip in a folder."""
_KEPT_SUFFIX = ".png"
_LAST_NUMBER = re.compile(r"(\d+)\D*$")


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
    warnings: tuple[str, ...] = ()

    @staticmethod
    def of(path: Path, source: SourceInfo | None) -> PictureNames:
        """Return the names for a folder or pattern `path`; raises OutputError if two pictures would get one name."""
        chosen: tuple[str, ...] = ()
        if source is not None:
            chosen = source.pictures[source.first_frame : source.first_frame + source.selected_frames]
        if not printf_field(path.name):
            return _kept(path, chosen)
        if not chosen:
            return PictureNames(path.parent, path.name)
        found = [_LAST_NUMBER.search(Path(name).stem) for name in chosen]
        numbers = [int(match[1]) for match in found if match is not None]
        if len(numbers) < len(chosen) or any(after <= before for before, after in pairwise(numbers)):
            warning = f"The names of {source.path if source else path} hold no rising numbers; counted from 1."
            return PictureNames(path.parent, path.name, warnings=(warning,))
        return PictureNames(path.parent, path.name, tuple(numbered(path.name, number) for number in numbers))

    def name(self, index: int) -> str:
        """Return the name of the `index`-th frame that is written, counted from 0."""
        return self.names[index] if index < len(self.names) else numbered(self.pattern, index + 1)

    def existing(self) -> list[Path]:
        """Return the files that the sequence would replace."""
        if self.names:
            return [path for name in self.names if (path := self.folder / name).exists()]
        return matching(self.folder, self.pattern)


def numbered(pattern: str, number: int) -> str:
    """Return the file name that a printf pattern makes of a number."""
    field = printf_field(pattern)
    assert field is not None
    return pattern[: field.start()] + field[0] % number + pattern[field.end() :]


def matching(folder: Path, pattern: str) -> list[Path]:
    """Return the files of a folder whose names a printf pattern can produce; none if there is no such folder."""
    field = printf_field(pattern)
    if field is None or not folder.is_dir():
        return []
    name = re.compile(re.escape(pattern[: field.start()]) + r"\d+" + re.escape(pattern[field.end() :]))
    return [entry for entry in folder.iterdir() if name.fullmatch(entry.name)]


def _kept(folder: Path, chosen: tuple[str, ...]) -> PictureNames:
    names = tuple(f"{Path(name).stem}{_KEPT_SUFFIX}" for name in chosen)
    # File systems of Windows and macOS do not tell A.png from a.png.
    twice = next((name for name, count in Counter(map(str.lower, names)).items() if count > 1), None)
    if twice is not None:
        raise OutputError(
            f"{folder}: expected pictures of different names, found two that would become {twice}; rename one, or "
            "number them by a pattern such as %05d.png."
        )
    return PictureNames(folder, DEFAULT_PICTURE_NAME, names)
