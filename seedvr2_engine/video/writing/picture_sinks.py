"""Single pictures and numbered sequences of them."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import torch

from ...errors import OutputError
from ..info import PictureMetadata, SourceInfo
from .options import SinkOptions
from .partial import PartialFile, check_target, write_errors
from .picture_format import PictureFormat, encode_picture, require_picture
from .picture_names import PictureNames, matching
from .sink import FrameSink


class PictureSink(FrameSink):
    """One picture file; takes exactly one frame."""

    def __init__(self, path: Path, width: int, height: int, source: SourceInfo | None, options: SinkOptions) -> None:
        super().__init__(path, width, height)
        self._suffix = require_picture(path)
        self._format = PictureFormat.of(self._suffix, (width, height), source, options)
        self._file = PartialFile(path, overwrite=options.overwrite)

    def _write(
        self,
        rgb: torch.Tensor,
        alpha: torch.Tensor | None,
        pts: int | None,
        duration: int | None,
        metadata: PictureMetadata | None,
    ) -> None:
        if self.frames_written:
            raise OutputError(
                f"{self.path}: expected one frame for a picture, got more; name a folder or a pattern such as %05d"
                f"{self._suffix} instead."
            )
        self._file.file.write(encode_picture(rgb, alpha, self._format, metadata))

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

    A new folder is filled under the name `<folder>.partial` and renamed at the end. Into a folder that exists, the
    pictures are moved at the end; others that match the pattern are replaced if `options.overwrite`, which removes
    all of the old sequence, and refused otherwise.
    """

    def __init__(self, path: Path, width: int, height: int, source: SourceInfo | None, options: SinkOptions) -> None:
        super().__init__(path, width, height)
        self._names = PictureNames.of(path, source)
        self._folder = self._names.folder
        suffix = require_picture(Path(self._names.pattern))
        self._format = PictureFormat.of(suffix, (width, height), source, options)
        if self._old_pictures() and not options.overwrite:
            raise OutputError(
                f"{path}: such pictures exist already; choose another name, or ask to overwrite them (--overwrite)."
            )
        exists = self._folder.is_dir()
        if not exists:
            check_target(self._folder, overwrite=False)
        folder = self._folder
        self._staging = folder / "pictures.partial" if exists else folder.with_name(f"{folder.name}.partial")
        with write_errors(path):
            self._staging.mkdir(exist_ok=True)
            self._clear_staging()

    def _write(
        self,
        rgb: torch.Tensor,
        alpha: torch.Tensor | None,
        pts: int | None,
        duration: int | None,
        metadata: PictureMetadata | None,
    ) -> None:
        name = self._names.name(self.frames_written)
        (self._staging / name).write_bytes(encode_picture(rgb, alpha, self._format, metadata))

    def _finish(self) -> None:
        if not self._folder.exists():
            self._staging.rename(self._folder)
            return
        for old in self._old_pictures():
            old.unlink()
        for index in range(self.frames_written):
            name = self._names.name(index)
            (self._staging / name).replace(self._folder / name)
        self._staging.rmdir()

    def _abort(self, *, keep_partial: bool) -> Path | None:
        if keep_partial:
            return self._staging
        with suppress(OSError):
            self._clear_staging()
            self._staging.rmdir()
        return None

    def _old_pictures(self) -> list[Path]:
        return self._names.existing()

    def _clear_staging(self) -> None:
        kept = [path for name in self._names.names if (path := self._staging / name).exists()]
        for leftover in kept or matching(self._staging, self._names.pattern):
            leftover.unlink()
