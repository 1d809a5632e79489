"""One writer for each target: a lock file beside it that the system lets go of when its process dies."""

from __future__ import annotations

import errno
import os
import socket
import stat
import sys
from contextlib import suppress
from pathlib import Path

from ..errors import OutputError
from .names import hidden_sibling

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

LOCK_MARK = "seedvr2-lock"
_TITLE = "SeedVR2 Engine is writing"
_UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP}
_MOST_TRIES = 100
# Windows locks bytes against everybody, so the one that is locked lies far behind the text.
_LOCKED_BYTE = 1 << 30


class TargetLock:
    """Held from the opening of an output to its end; raises OutputError if another process holds it.

    The file says who writes. The system releases the lock of a killed process, whose file the next run takes over.
    Nothing depends on it but that sentence: names are unique and the last step replaces nothing unasked, so where a
    file system has no locks, or somebody's own file has that name, writing goes on without.
    """

    def __init__(self, target: Path) -> None:
        self._target = target
        self._path = hidden_sibling(target, LOCK_MARK)
        self._fd: int | None = None
        for _ in range(_MOST_TRIES):
            if self._try():
                return

    def release(self) -> None:
        """Remove the lock file and let go; may be called again."""
        if self._fd is None:
            return
        fd, self._fd = self._fd, None
        # Removed before it is let go, or the next holder's would be; Windows removes no open file.
        with suppress(OSError):
            if sys.platform != "win32" and _is_same(fd, self._path):
                self._path.unlink()
        os.close(fd)
        with suppress(OSError):
            if sys.platform == "win32":
                self._path.unlink()

    def _try(self) -> bool:
        """Whether the matter is decided; False if the file vanished meanwhile."""
        try:
            fd = _open(self._path)
        except FileNotFoundError:
            return False
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
                return True  # Somebody's link, folder or pipe.
            raise
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            return True
        try:
            is_ours = _lock(fd)
        except OSError as error:
            created_by_us = os.fstat(fd).st_size == 0
            os.close(fd)
            if created_by_us:
                with suppress(OSError):
                    self._path.unlink()
            if error.errno in _UNSUPPORTED:
                return True
            raise
        text = _text(fd)
        if not is_ours:
            os.close(fd)
            if _is_dead(text):
                return True  # What holds the lock is a child that outlived it.
            raise OutputError(
                f"{self._target}: {_holder(text)} is writing it; wait until that one ends, or choose another name."
            )
        if sys.platform != "win32" and not _is_same(fd, self._path):
            os.close(fd)
            return False
        if text and not text.startswith(_TITLE):
            os.close(fd)
            return True
        self._fd = fd
        with suppress(OSError):
            os.ftruncate(fd, 0)
            os.lseek(fd, 0, os.SEEK_SET)
            os.write(fd, f"{_TITLE}\n{os.getpid()}\n{socket.gethostname()}\n".encode(errors="replace"))
        return True


def _open(path: Path) -> int:
    flags = os.O_RDWR
    for name in ("O_CLOEXEC", "O_NOFOLLOW", "O_NONBLOCK", "O_NOINHERIT", "O_BINARY"):
        flags |= getattr(os, name, 0)
    try:
        return os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o666)
    except FileExistsError:
        return os.open(path, flags)


def _lock(fd: int) -> bool:
    try:
        if sys.platform == "win32":
            os.lseek(fd, _LOCKED_BYTE, os.SEEK_SET)
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES, errno.EWOULDBLOCK):
            return False
        raise
    return True


def _is_same(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.lstat())
    except FileNotFoundError:
        return False


def _text(fd: int) -> str:
    try:
        os.lseek(fd, 0, os.SEEK_SET)
        return os.read(fd, 1024).decode(errors="replace")
    except OSError:
        return ""


def _facts(text: str) -> tuple[int, str] | None:
    """(process, host) of a lock file's text, or None while it is being written."""
    lines = text.splitlines()
    if len(lines) < 3 or lines[0] != _TITLE or not lines[1].isdecimal():
        return None
    return int(lines[1]), lines[2]


def _holder(text: str) -> str:
    facts = _facts(text)
    return "another process" if facts is None else f"process {facts[0]} on {facts[1]}"


def _is_dead(text: str) -> bool:
    facts = _facts(text)
    if facts is None or facts[1] != socket.gethostname() or sys.platform == "win32":
        return False
    try:
        os.kill(facts[0], 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False
