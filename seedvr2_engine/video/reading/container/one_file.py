"""One file, opened with FFmpeg, and nothing that it points to."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import av

from ....errors import VideoError
from .demuxers import WHITELIST, clip_endings, playlist_kind

_READ_BYTES = 1 << 18
_HEAD_BYTES = 512


@dataclass(frozen=True)
class Identity:
    """What a file is told apart by: where it lies, how long it is, and when it was written."""

    device: int
    inode: int
    size_bytes: int
    written_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> Identity:
        """Take it from what the system says about a file."""
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


class OneFile:
    """The bytes of one regular file, as FFmpeg reads them: with no protocol of its own, it can reach no other file.

    Raises VideoError in one sentence if the file is missing, may not be read, is empty, or is no regular file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        ending = path.suffix.lower()
        # Some demuxers look at a clip's ending; nothing else of the name may mean anything to FFmpeg, which would take
        # a picture's ending for an image sequence.
        self.name = "input" + (ending if ending in clip_endings() else "")
        self.error: OSError | None = None
        """What the system said when the file could not be read further."""
        self._file = _open_regular(path)
        self.identity = Identity.of(os.fstat(self._file.fileno()))

    def read(self, size: int) -> bytes:
        """Give up to `size` bytes; b"" at the end, and from an error of the disk on, which `error` then holds."""
        try:
            return self._file.read(size)
        except OSError as error:
            self.error = error
            return b""

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move as `io.IOBase.seek` does; a negative number, FFmpeg's way to say no, for a place that cannot be."""
        try:
            return self._file.seek(offset, whence)
        except OSError as error:
            return -(error.errno or errno.EINVAL)

    def tell(self) -> int:
        """Say where the next read begins."""
        return self._file.tell()

    def readable(self) -> bool:
        """Say that this is for reading, and only for it."""
        return True

    def seekable(self) -> bool:
        """Say that this is a file and no stream."""
        return True

    def current_identity(self) -> Identity:
        """What the open file is now; it differs from `identity` if somebody changed it."""
        return Identity.of(os.fstat(self._file.fileno()))

    def close_file(self) -> None:
        """Close the file; not called `close`, which FFmpeg's wrapper would call at moments of its own."""
        self._file.close()


def require_file(path: Path) -> None:
    """Raise VideoError in one sentence unless this is a regular file with something in it, and no playlist.

    Whatever else opens the path by itself comes after this: a pipe would make it wait.
    """
    _opened_once(path).close_file()


@contextmanager
def opened(path: Path) -> Iterator[av.container.InputContainer]:
    """Open a local file for reading and close it at the end.

    Nothing but this one file is read: its bytes are all that FFmpeg gets, only demuxers that open nothing else are
    used, and a playlist is refused under any name. Raises VideoError in one sentence if the file is missing,
    unreadable, truncated, or no clip.
    """
    with opened_file(path) as (container, _):
        yield container


@contextmanager
def opened_file(path: Path) -> Iterator[tuple[av.container.InputContainer, OneFile]]:
    """Like `opened`, with the file behind the container."""
    file = _opened_once(path)
    try:
        try:
            container = av.open(
                file,
                "r",
                options={"format_whitelist": WHITELIST, "protocol_whitelist": "none"},
                metadata_errors="replace",
                buffer_size=_READ_BYTES,
                io_open=_refuse,
            )
        except (OSError, av.FFmpegError, ValueError, UnicodeError) as error:
            raise VideoError(_open_failure(path, error)) from error
        try:
            yield container, file
        finally:
            container.close()
    finally:
        file.close_file()


def _opened_once(path: Path) -> OneFile:
    try:
        file = OneFile(path)
    except (OSError, ValueError) as error:
        raise VideoError(_open_failure(path, error)) from error
    try:
        head = file.read(_HEAD_BYTES)
        file.seek(0)
    except OSError as error:
        file.close_file()
        raise VideoError(_open_failure(path, error)) from error
    kind = playlist_kind(head)
    if not head or kind is not None:
        file.close_file()
        if kind is None:
            raise VideoError(f"{path}: expected a clip or a picture, found an empty file; name another file.")
        raise VideoError(
            f"{path}: expected a clip or a picture, found {kind}, which only points to other files; name the clip "
            "itself."
        )
    return file


def _open_regular(path: Path) -> BinaryIO:
    """Open a file or a link to one; a pipe would wait for somebody to write, and a device may never end."""
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, "is a folder")
    if stat.S_ISREG(status.st_mode):
        # Should a pipe take the file's place just now, this does not wait either.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        status = os.fstat(descriptor)
        if stat.S_ISREG(status.st_mode):
            return os.fdopen(descriptor, "rb", buffering=0)
        os.close(descriptor)
    raise VideoError(
        f"{path}: expected a file, found {_kind_of(status.st_mode)}; copy what comes from there into a file first."
    )


def _kind_of(mode: int) -> str:
    kinds = (
        (stat.S_ISFIFO, "a pipe"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISCHR, "a device"),
        (stat.S_ISBLK, "a disk"),
    )
    return next((name for test, name in kinds if test(mode)), "something else")


def _refuse(url: str, flags: int, options: dict[str, str]) -> None:
    raise PermissionError(errno.EACCES, "a file that points to others")


def _open_failure(path: Path, error: Exception) -> str:
    if isinstance(error, VideoError):
        return str(error)
    code = getattr(error, "errno", None)
    if isinstance(error, FileNotFoundError) or code in (errno.ENOENT, errno.ENOTDIR):
        return f"{path}: no such file; check the name and the folder."
    if isinstance(error, PermissionError) or code in (errno.EACCES, errno.EPERM):
        return f"{path}: not allowed to read it; change its permissions."
    if isinstance(error, IsADirectoryError):
        return f"{path}: expected a file, found a folder; name a file in it."
    if code == errno.ELOOP:
        return f"{path}: its links lead in a circle; name the file itself."
    if code == errno.ENAMETOOLONG or (isinstance(error, ValueError) and "null byte" in str(error)):
        return f"{str(path)[:80]!r}: no file can have this name; check it."
    return (
        f"{path}: expected a clip or a picture that FFmpeg reads, found none; it is damaged, truncated, or something "
        "else."
    )
