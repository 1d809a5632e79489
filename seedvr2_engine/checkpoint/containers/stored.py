"""The bytes of a checkpoint file, read where they are asked for and never mapped.

A file that is cut short while it is mapped ends the process with a signal that nothing can catch; a read says so.
"""

import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import torch

from ...errors import CheckpointError, InvalidArgumentError, ModelFileError
from ..base import CPU
from .staging import to_gpu

_READS_AT_A_PLACE = hasattr(os, "preadv")


class StoredBytes:
    """An open file whose content must stay as it was when it was opened; may be read from several threads."""

    def __init__(self, path: Path) -> None:
        """Open it; raises ModelFileError if there is no such readable file, CheckpointError if it is no regular one."""
        self.path = path
        try:
            # Asked before it is opened: to open a pipe would wait for a writer.
            if not stat.S_ISREG(path.stat().st_mode):
                raise CheckpointError(f"{path}: expected a checkpoint file, found a folder or a device.")
            self._file = path.open("rb", buffering=0)
        except FileNotFoundError as error:
            raise ModelFileError(f"{path}: expected a checkpoint file, found none; check the path.") from error
        except (OSError, ValueError) as error:  # A name with a NUL in it is a ValueError.
            reason = getattr(error, "strerror", None) or error
            raise ModelFileError(f"{path}: the checkpoint cannot be read ({reason}).") from error
        self._lock = threading.Lock()
        self._identity = self._now()
        self.size = self._identity[0]
        """Bytes of the whole file."""

    def read(self, begin: int, count: int, device: torch.device = CPU) -> torch.Tensor:
        """`count` bytes from `begin` on, flat uint8 in memory of their own, on `device`.

        Raises CheckpointError where the file is not as it was when it was opened.
        """
        if device.type == "cuda":
            return to_gpu(lambda part, offset: self._fill(part, begin + offset), count, device)
        values = torch.empty(count, dtype=torch.uint8)
        self._fill(values.numpy().data, begin)
        return values.to(device)

    def head(self, count: int) -> bytes:
        """The first bytes, `count` or as many as there are; raises as `read`."""
        content = bytearray(min(count, self.size))
        self._fill(memoryview(content), 0)
        return bytes(content)

    def close(self) -> None:
        """Close the file; what was read stays."""
        self._file.close()

    def __enter__(self) -> "StoredBytes":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _fill(self, target: memoryview, begin: int) -> None:
        if self._file.closed:
            raise InvalidArgumentError(f"{self.path}: expected an open checkpoint, found a closed one.")
        try:
            if _READS_AT_A_PLACE:
                descriptor = self._file.fileno()
                done = _filled(target, lambda part, done: os.preadv(descriptor, [part], begin + done))
            else:
                with self._lock:  # The position belongs to the file.
                    self._file.seek(begin)
                    done = _filled(target, lambda part, _: self._file.readinto(part))
            same = done == len(target) and self._now() == self._identity
        except OSError as error:
            raise ModelFileError(f"{self.path}: the checkpoint cannot be read ({error.strerror}).") from error
        if not same:
            raise CheckpointError(
                f"{self.path}: expected a file that stays as it was when it was opened, found it changed meanwhile; "
                "wait until whatever writes it is done, and start again."
            )

    def _now(self) -> tuple[int, int]:
        status = os.fstat(self._file.fileno())
        return status.st_size, status.st_mtime_ns


def _filled(target: memoryview, read: Callable[[memoryview, int], int]) -> int:
    """How many bytes came before the file's end; read: fills a part of the target, whose place in it is given."""
    done = 0
    while done < len(target):
        count = read(target[done:], done)
        if not count:
            break
        done += count
    return done
