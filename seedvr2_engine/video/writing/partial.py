"""Files that take their name only when they are complete, and one sentence for whatever goes wrong on the way."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import av

from ...errors import OutputError


def partial_path(target: Path) -> Path:
    """Return where a file is kept until it is complete: `clip.mp4` -> `clip.partial.mp4`, beside it."""
    return target.with_name(f"{target.stem}.partial{target.suffix}")


def check_target(target: Path, *, overwrite: bool) -> None:
    """Raise OutputError if the folder is missing, or the target exists and may not be replaced."""
    if not target.parent.is_dir():
        raise OutputError(f"{target}: its folder does not exist; create {target.parent} first.")
    if target.exists() and not target.is_file():
        raise OutputError(f"{target}: it exists and is no ordinary file; choose another name.")
    if target.exists() and not overwrite:
        raise OutputError(f"{target}: it exists already; choose another name, or ask to overwrite it (--overwrite).")


@contextmanager
def write_errors(target: Path) -> Iterator[None]:
    """Turn errors of the operating system and of FFmpeg into an OutputError that names the target."""
    try:
        yield
    except (OSError, av.FFmpegError) as error:
        raise OutputError(_sentence(target, error)) from error


class _Writer:
    """The file as FFmpeg writes to it: an error is raised once, since PyAV prints those that follow on it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        return len(data) if self.error is not None else self._once(self._file.write, data)

    def seek(self, offset: int, whence: int = 0) -> int:
        return 0 if self.error is not None else self._once(self._file.seek, offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def _once(self, operation: Callable[..., int], *arguments: bytes | int) -> int:
        try:
            return operation(*arguments)
        except OSError as error:
            self.error = error
            raise


class PartialFile:
    """A file under its partial name, until `commit` gives it its own in one step or `discard` removes it."""

    def __init__(self, target: Path, *, overwrite: bool) -> None:
        check_target(target, overwrite=overwrite)
        self.target = target
        self.path = partial_path(target)
        with write_errors(target):
            # A leftover of a killed run, or a link that someone put there, is never written through.
            self.path.unlink(missing_ok=True)
            self.file: BinaryIO = self.path.open("xb")
        self.writer = _Writer(self.file)
        """What FFmpeg is given."""

    def commit(self) -> None:
        """Flush to the disk, close, and replace the target atomically."""
        if self.writer.error is not None:
            raise self.writer.error
        self.file.flush()
        os.fsync(self.file.fileno())
        self.file.close()
        self.path.replace(self.target)

    def keep(self) -> Path:
        """Close the file under its partial name and return that."""
        self.file.close()
        return self.path

    def discard(self) -> None:
        """Close and remove the file; the target stays as it was."""
        try:
            self.file.close()
        finally:
            self.path.unlink(missing_ok=True)


def _sentence(target: Path, error: OSError | av.FFmpegError) -> str:
    # Files are written through Python, so FFmpeg's own errors, whatever their number, never come from the disk.
    code = None if isinstance(error, av.FFmpegError) else error.errno
    if code in (errno.ENOSPC, errno.EDQUOT):
        return f"{target}: the disk is full; free some space and run it again."
    if code == errno.EFBIG:
        return f"{target}: the file grew past what this file system or account allows; write it elsewhere."
    if code in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{target}: not allowed to write here; choose another folder or change its permissions."
    if code is not None:
        return f"{target}: writing failed ({error.strerror}); check the disk and the folder."
    return f"{target}: FFmpeg could not encode it ({error.strerror}); choose another codec, preset or kind of file."
