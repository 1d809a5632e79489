"""Single pictures and numbered sequences of them."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

import torch

from ...errors import OutputError
from ...output.lock import TargetLock
from ...output.unfinished import PartialFile, check_target, new_folder, place_new
from ..info import SourceInfo
from ..reading.pictures import is_picture, printf_field
from .options import CONTAINERS, SinkOptions
from .partial import write_errors
from .picture_format import PictureFormat, encode_picture, require_picture
from .sink import FrameSink

DEFAULT_PICTURE_NAME = "%06d.png"
_LONGEST_NUMBER = 18
"""Most digits that a pattern may ask for."""


class PictureSink(FrameSink):
    """One picture file; takes exactly one frame."""

    def __init__(self, path: Path, width: int, height: int, source: SourceInfo | None, options: SinkOptions) -> None:
        super().__init__(path, width, height)
        self._suffix = require_picture(path)
        self._format = PictureFormat.of(self._suffix, (width, height), source, options)
        self.warnings += self._format.warnings
        self._file = PartialFile(path, overwrite=options.overwrite)

    def _write(self, rgb: torch.Tensor, alpha: torch.Tensor | None, pts: int | None, duration: int | None) -> None:
        if self.frames_written:
            raise OutputError(
                f"{self.path}: expected one frame for a picture, got more; name a folder or a pattern such as %05d"
                f"{self._suffix} instead."
            )
        self._file.write(encode_picture(rgb, alpha, self._format))

    def _finish(self) -> None:
        self._file.commit()

    def _abort(self, *, keep_partial: bool) -> Path | None:
        if keep_partial:
            return self._file.keep()
        with suppress(OSError):
            self._file.discard()
        return None


class SequenceSink(FrameSink):
    """Numbered pictures, counted from 1, in a folder.

    They are written into a folder of their own, which gets its name at the end, or, where that folder exists, whose
    pictures are moved there. With `options.overwrite` exactly the names that were written are replaced: the old
    pictures are set aside first and removed last, so that neither old nor new ones are lost at whatever point it
    breaks off. Without it, none is.
    """

    def __init__(self, path: Path, width: int, height: int, source: SourceInfo | None, options: SinkOptions) -> None:
        super().__init__(path, width, height)
        self._folder, self._pattern = _split(path)
        self._format = PictureFormat.of(require_picture(Path(self._pattern)), (width, height), source, options)
        self.warnings += self._format.warnings
        self._overwrites = options.overwrite
        if pictures_of(path, source) and not options.overwrite:
            raise OutputError(
                f"{path}: such pictures exist already; choose another name, or ask to overwrite them (--overwrite)."
            )
        with write_errors(path):
            exists = self._folder.is_dir()
            if not exists:
                _check_folder(self._folder)
            self._lock = TargetLock(self._folder / self._pattern if exists else self._folder)
            try:
                self._staging = new_folder(self._folder / "pictures" if exists else self._folder)
            except BaseException:
                self._lock.release()
                raise

    def _write(self, rgb: torch.Tensor, alpha: torch.Tensor | None, pts: int | None, duration: int | None) -> None:
        target = self._staging / self._name(self.frames_written)
        data = encode_picture(rgb, alpha, self._format)
        try:
            with target.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            with suppress(OSError):
                target.unlink()  # Half a picture is none.
            raise

    def _name(self, index: int) -> str:
        return numbered(self._pattern, index + 1)

    def _finish(self) -> None:
        if self._folder.exists():
            self._move_into_folder()
        else:
            self._staging.rename(self._folder)
        self._lock.release()

    def _move_into_folder(self) -> None:
        """Move every picture to its name; on an error all are back where they were."""
        names = [self._name(index) for index in range(self.frames_written)]
        old = [name for name in names if os.path.lexists(self._folder / name)]
        if old and not self._overwrites:
            raise OutputError(f"{self._folder / old[0]}: it appeared in the meantime and was left as it is.")
        aside = new_folder(self._folder / "pictures", "replaced") if old else None
        moved: list[tuple[Path, Path]] = []
        try:
            for name in names:
                target = self._folder / name
                if aside is not None and os.path.lexists(target):
                    _move(target, aside / name, moved)
                _move(self._staging / name, target, moved)
        except BaseException:
            for before, after in reversed(moved):
                with suppress(OSError):
                    place_new(after, before)
            if aside is not None:
                with suppress(OSError):
                    aside.rmdir()
            raise
        # The new ones are in place; what is left to do can fail without harm.
        with suppress(OSError):
            if aside is not None:
                for name in old:
                    (aside / name).unlink(missing_ok=True)
                aside.rmdir()
        with suppress(OSError):
            self._staging.rmdir()
        others = len(producible(self._folder, self._pattern)) - len(names)
        if others > 0:
            self.warnings.append(
                f"{self._folder}: {others} other pictures of the same pattern stay beside the new ones."
            )

    def _abort(self, *, keep_partial: bool) -> Path | None:
        try:
            if keep_partial:
                return self._staging
            with suppress(OSError):
                for index in range(self.frames_written):
                    (self._staging / self._name(index)).unlink(missing_ok=True)
                self._staging.rmdir()
            return None
        finally:
            self._lock.release()


def _move(path: Path, target: Path, moved: list[tuple[Path, Path]]) -> None:
    try:
        place_new(path, target)
    except FileExistsError:
        raise OutputError(f"{target}: it appeared in the meantime and was left as it is.") from None
    moved.append((path, target))


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


def pictures_of(path: Path, source: SourceInfo | None) -> list[Path]:
    """Return the pictures that a `SequenceSink` of this path would replace: those of the frames that it will get."""
    most = None if source is None else source.selected_frames
    return producible(*_split(path), most)


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


def _split(path: Path) -> tuple[Path, str]:
    """Return the folder of a sequence and its pattern."""
    is_pattern = _field(path.name) is not None and not path.is_dir()
    return (path.parent, path.name) if is_pattern else (path, DEFAULT_PICTURE_NAME)


def _check_folder(folder: Path) -> None:
    if folder.is_file():
        raise OutputError(f"{folder}: expected a folder for the pictures, found a file; choose another name.")
    check_target(folder, overwrite=False)
