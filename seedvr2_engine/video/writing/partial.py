"""A clip's file as FFmpeg writes to it, and one sentence for whatever goes wrong on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import av

from ...errors import OutputError
from ...output.unfinished import PartialFile, system_sentence


@contextmanager
def write_errors(target: Path) -> Iterator[None]:
    """Turn errors of the operating system and of FFmpeg into an OutputError that names the target."""
    try:
        yield
    except av.FFmpegError as error:
        # Files are written through Python, so FFmpeg's own errors, whatever their number, never come from the disk.
        raise OutputError(
            f"{target}: FFmpeg could not encode it ({error.strerror}); choose another codec, preset or kind of file."
        ) from error
    except OSError as error:
        raise OutputError(system_sentence(target, error)) from error


class PartialWriter:
    """What FFmpeg is given: an error is raised once, since PyAV prints those that follow on it.

    After an error nothing is written any more, so that what a full disk has taken stays as it is: neither a trailer
    nor an index that was to be put at the start.
    """

    def __init__(self, file: PartialFile) -> None:
        self._file = file
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        """Write, or do as if."""
        return len(data) if self.error is not None else self._once(self._file.write, data)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move, or do as if."""
        return 0 if self.error is not None else self._once(self._file.seek, offset, whence)

    def tell(self) -> int:
        """Return the place in the file."""
        return self._file.tell()

    def _once(self, operation: Callable[..., int], *arguments: bytes | int) -> int:
        try:
            return operation(*arguments)
        except OSError as error:
            self.error = error
            raise
