"""A file under a name of its own until it is whole, and one sentence for whatever the system says to that."""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from types import TracebackType

from ..errors import OutputError
from .lock import TargetLock
from .names import longest_name, unique_sibling
from .signals import held_signals

PARTIAL_MARK = "partial"
_MOST_TRIES = 100
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV, errno.EINVAL}


def check_target(target: Path, *, overwrite: bool) -> None:
    """Raise OutputError if the folder is missing, or the target exists and may not be replaced."""
    if len(os.fsencode(target.name)) > (most := longest_name(target.parent)):
        raise OutputError(
            f"{target}: its name has {len(os.fsencode(target.name))} bytes, and {most} are allowed here; shorten it."
        )
    if not target.parent.is_dir():
        raise OutputError(f"{target}: its folder does not exist; create {target.parent} first.")
    if target.is_symlink() and not target.exists():
        raise OutputError(f"{target}: it is a link to what does not exist; remove it, or name the file it should be.")
    if target.is_dir():
        raise OutputError(f"{target}: it is a folder; choose another name, or name a file in it.")
    if target.exists() and not target.is_file():
        raise OutputError(f"{target}: it exists and is no ordinary file; choose another name.")
    if target.exists() and not overwrite:
        raise OutputError(f"{target}: it exists already; choose another name, or ask to overwrite it (--overwrite).")


def system_sentence(target: Path, error: OSError) -> str:
    """Say what an error of the operating system means for an output."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{target}: the disk is full; free some space and run it again."
    if error.errno == errno.EFBIG:
        return f"{target}: the file grew past what this file system or account allows; write it elsewhere."
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{target}: not allowed to write here; choose another folder or change its permissions."
    if error.errno == errno.ENAMETOOLONG:
        return f"{target}: the name is too long for this file system; shorten it."
    return f"{target}: writing failed ({error.strerror or error}); check the disk and the folder."


@contextmanager
def system_errors(target: Path) -> Iterator[None]:
    """Turn errors of the operating system into an OutputError that names the target."""
    try:
        yield
    except OSError as error:
        raise OutputError(system_sentence(target, error)) from error


class PartialFile:
    """An open file beside its target, until `commit` gives it the target's name or it is kept or removed.

    It is created exclusively under a name with a random part, so that nothing which was there before is written to or
    removed. A link to a file that may be replaced stays a link: what it points to is replaced. Nothing is buffered:
    what was written is the system's, whatever becomes of the process.
    """

    def __init__(self, target: Path, *, overwrite: bool, keeps_ending: bool = True) -> None:
        with system_errors(target):
            check_target(target, overwrite=overwrite)
            self.target = target
            self._place = target.resolve() if target.is_symlink() else target
            self._overwrite = overwrite
            self._is_committed = False
            self._lock = TargetLock(self._place)
            try:
                self.path, self._file = self._create(keeps_ending)
            except BaseException:
                self._lock.release()
                raise

    def _create(self, keeps_ending: bool) -> tuple[Path, FileIO]:
        for _ in range(_MOST_TRIES):
            path = unique_sibling(self._place, PARTIAL_MARK, keeps_ending=keeps_ending)
            with suppress(FileExistsError):
                return path, path.open("xb", 0)
        raise FileExistsError(errno.EEXIST, "no free name was found")

    @property
    def size_bytes(self) -> int:
        """How much is in the file."""
        return os.fstat(self._file.fileno()).st_size if not self._file.closed else self.path.stat().st_size

    def write(self, data: bytes) -> int:
        """Write all of the data."""
        rest = memoryview(data)
        while rest:  # A disk that fills up takes a part first and fails then.
            rest = rest[self._file.write(rest) :]
        return len(data)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move to a place in the file."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Return the place in the file."""
        return self._file.tell()

    def truncate(self, size_bytes: int) -> None:
        """Cut off what comes after so many bytes."""
        self._file.truncate(size_bytes)

    def commit(self) -> None:
        """Flush to the disk and give the file the target's name in one step; the caller holds signals back.

        On any error the file is where it was, to be kept or discarded.
        """
        os.fsync(self._file.fileno())
        if not self._is_own():
            raise OutputError(
                f"{self.target}: {self.path} was moved, changed or removed by another program; run again."
            )
        check_target(self.target, overwrite=True)
        self._file.close()
        try:
            (replace if self._overwrite else place_new)(self.path, self._place)
        except FileExistsError:
            raise OutputError(
                f"{self.target}: another file took this name in the meantime and was left as it is; choose another "
                "name, or ask to overwrite it (--overwrite)."
            ) from None
        self._is_committed = True
        _flush_folder(self._place.parent)
        self._lock.release()

    def keep(self) -> Path | None:
        """Close the file under the name it has and return that; None if another program took it away."""
        try:
            if not self._file.closed:
                with suppress(OSError):
                    os.fsync(self._file.fileno())
                with suppress(OSError):
                    self._file.close()
            return self.path if self.path.exists() else None
        finally:
            self._lock.release()

    def discard(self) -> None:
        """Close and remove the file; the target stays as it was."""
        try:
            is_own = self._file.closed or self._is_own()
            with suppress(OSError):
                self._file.close()
            if is_own:
                self.path.unlink(missing_ok=True)
        finally:
            self._lock.release()

    def __enter__(self) -> PartialFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Commit after an ordinary end, and remove the file after an error: half of it is of no use."""
        with held_signals():
            try:
                if error is None:
                    with system_errors(self.target):
                        self.commit()
            finally:
                if not self._is_committed:
                    self.discard()

    def _is_own(self) -> bool:
        """Whether the name still is this file's."""
        if sys.platform == "win32":
            return True  # Nobody can take it away while it is open.
        try:
            return os.path.samestat(os.fstat(self._file.fileno()), self.path.lstat())
        except FileNotFoundError:
            return False


def write_whole(target: Path, data: bytes, *, overwrite: bool) -> None:
    """Write a small file at once, or not at all."""
    with held_signals(), PartialFile(target, overwrite=overwrite, keeps_ending=False) as file, system_errors(target):
        file.write(data)


def new_folder(target: Path, mark: str = PARTIAL_MARK) -> Path:
    """Create a folder of a unique name beside the target and return it."""
    for _ in range(_MOST_TRIES):
        folder = unique_sibling(target, mark, keeps_ending=False)
        with suppress(FileExistsError):
            folder.mkdir()
            return folder
    raise FileExistsError(errno.EEXIST, "no free name was found")


def replace(path: Path, target: Path) -> None:
    """Move a file to a name, in place of the file that has it."""
    path.replace(target)


def place_new(path: Path, target: Path) -> None:
    """Move a file to a name that is free; raises FileExistsError, and moves nothing, if it is taken."""
    if sys.platform == "win32":
        path.rename(target)
        return
    try:
        os.link(path, target, follow_symlinks=False)
    except FileExistsError:
        raise
    except (OSError, NotImplementedError) as error:
        if isinstance(error, OSError) and error.errno not in _NO_LINKS:
            raise
        _reserve(path, target, Path.replace)
    else:
        with suppress(OSError):
            path.unlink()


def _reserve(path: Path, target: Path, move: Callable[[Path, Path], object]) -> None:
    """Where a file system has no hard links: take the name with an empty file of our own, which is then replaced."""
    with target.open("xb"):
        pass
    try:
        move(path, target)
    except BaseException:
        with suppress(OSError):
            if stat.S_ISREG(target.lstat().st_mode) and target.lstat().st_size == 0:
                target.unlink()
        raise


def _flush_folder(folder: Path) -> None:
    """Have the new name on the disk too, where a system can do that."""
    if sys.platform == "win32":
        return
    with suppress(OSError):
        fd = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
