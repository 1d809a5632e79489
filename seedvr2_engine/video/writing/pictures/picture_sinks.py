"""Single pictures and numbered sequences of them."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from ....errors import OutputError
from ....output.lock import TargetLock
from ....output.unfinished import PartialFile, check_target, new_folder, place_new
from ...coded import Coding
from ...info import SourceInfo
from ..options import SinkOptions
from ..partial import write_errors
from ..sink import FrameSink, Written
from .picture_format import PictureFormat, encode_picture, require_picture
from .picture_names import PictureNames, producible

REPLACED_MARK = "replaced"
"""In the name of a folder that holds pictures while new ones take their place."""


class PictureSink(FrameSink):
    """One picture file; takes exactly one frame."""

    def __init__(self, path: Path, width: int, height: int, source: SourceInfo | None, options: SinkOptions) -> None:
        super().__init__(path, width, height)
        self._suffix = require_picture(path)
        self._format = PictureFormat.of(self._suffix, (width, height), source, options)
        self._file = PartialFile(path, overwrite=options.overwrite)

    def _write(self, frame: Written) -> None:
        if self.frames_written:
            raise OutputError(
                f"{self.path}: expected one frame for a picture, got more; name a folder or a pattern such as %05d"
                f"{self._suffix} instead."
            )
        self._file.write(encode_picture(frame.rgb, frame.alpha, self._format, frame.metadata))

    def _finish(self) -> None:
        self._file.commit()

    def _abort(self, *, keep_partial: bool) -> Path | None:
        if keep_partial:
            return self._file.keep()
        with suppress(OSError):
            self._file.discard()
        return None


class SequenceSink(FrameSink):
    """Pictures in a folder, under the names of `PictureNames`.

    They are written into a folder of their own, which gets its name at the end, or, where that folder exists, whose
    pictures are moved there. With `options.overwrite` exactly the names that were written are replaced: the old
    pictures are set aside first and removed last, so that neither old nor new ones are lost at whatever point it
    breaks off. Without it, none is.
    """

    def __init__(self, path: Path, width: int, height: int, source: SourceInfo | None, options: SinkOptions) -> None:
        super().__init__(path, width, height)
        self._names = PictureNames.of(path, source)
        self._folder = self._names.folder
        suffix = require_picture(Path(self._names.pattern))
        self._format = PictureFormat.of(suffix, (width, height), source, options)
        self._overwrites = options.overwrite
        self._has_alpha = source is not None and source.has_alpha
        check_sequence_place(path, self._names, overwrite=options.overwrite)
        with write_errors(path):
            exists = self._folder.is_dir()
            self._lock = TargetLock(self._folder / self._names.pattern if exists else self._folder)
            try:
                self._staging = new_folder(self._folder / "pictures" if exists else self._folder)
            except BaseException:
                self._lock.release()
                raise

    @property
    def keeping(self) -> Coding:
        """Full-range R'G'B' of the pictures' depth."""
        return self._format.coding(self.width, self.height, has_alpha=self._has_alpha)

    @property
    def unfinished(self) -> Path:
        """The folder of the pictures that are written."""
        return self._staging

    def _write(self, frame: Written) -> None:
        target = self._staging / self._names.name(self.frames_written)
        data = encode_picture(frame.rgb, frame.alpha, self._format, frame.metadata)
        try:
            with target.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            with suppress(OSError):
                target.unlink()  # Half a picture is none.
            raise

    def _finish(self) -> None:
        if self._folder.exists():
            self._move_into_folder()
        else:
            self._staging.rename(self._folder)
        self._lock.release()

    def _move_into_folder(self) -> None:
        """Move every picture to its name; on an error all are back where they were."""
        names = [self._names.name(index) for index in range(self.frames_written)]
        old = [name for name in names if os.path.lexists(self._folder / name)]
        if old and not self._overwrites:
            raise OutputError(f"{self._folder / old[0]}: it appeared in the meantime and was left as it is.")
        aside = new_folder(self._folder / "pictures", REPLACED_MARK) if old else None
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
        others = sum(entry.name not in names for entry in producible(self._folder, self._names.pattern))
        if others and not self._names.names:
            self.warnings.append(
                f"{self._folder}: {others} other pictures of the same pattern stay beside the new ones."
            )

    def _abort(self, *, keep_partial: bool) -> Path | None:
        try:
            if keep_partial:
                return self._staging
            with suppress(OSError):
                for index in range(self.frames_written):
                    (self._staging / self._names.name(index)).unlink(missing_ok=True)
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


def check_sequence_place(path: Path, names: PictureNames, *, overwrite: bool) -> None:
    """Raise OutputError if the pictures of `path` have no place, or exist and may not be replaced."""
    if names.existing() and not overwrite:
        raise OutputError(
            f"{path}: such pictures exist already; choose another name, or ask to overwrite them (--overwrite)."
        )
    if names.folder.is_file():
        raise OutputError(f"{names.folder}: expected a folder for the pictures, found a file; choose another name.")
    if not names.folder.is_dir():
        check_target(names.folder, overwrite=False)
