"""A clip's file as FFmpeg writes to it, and one sentence for whatever goes wrong on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
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


def discard(output: av.container.OutputContainer | None, file: PartialFile) -> None:
    """Close and remove a file that is not wanted, if FFmpeg has it at all; a full disk fails its trailer, too."""
    if output is not None:
        with suppress(OSError, av.FFmpegError):
            output.close()
    with suppress(OSError):
        file.discard()


# How a box of MP4 (type behind its size) and an element of Matroska begin, which are whole or worth nothing.
_FRAGMENT, _BOXES = b"moof", (b"styp", b"moof", b"moov", b"mdat", b"mfra")
_CLUSTER, _ELEMENTS = b"\x1f\x43\xb6\x75", (b"\x1f\x43\xb6\x75", b"\x1c\x53\xbb\x6b", b"\x12\x54\xc3\x67")


class PartialWriter:
    """What FFmpeg is given: an error is raised once, since PyAV prints those that follow on it.

    After an error nothing is written any more, so that what a full disk has taken stays as it is, without the
    fragment or cluster that did not fit: neither a trailer nor an index that was to be put at the start.
    """

    def __init__(self, file: PartialFile, *, has_units: bool = True) -> None:
        """has_units: whether the file is made of fragments or clusters, and not of single frames."""
        self._file = file
        self._has_units = has_units
        self._size = 0
        self._whole = 0
        self._first_unit: int | None = None
        self.error: OSError | None = None

    @property
    def holds_frames(self) -> bool:
        """Whether a whole fragment or cluster is in the file; without an error that is the muxer's affair."""
        return self.error is None or (self._first_unit is not None and self._whole > self._first_unit)

    def write(self, data: bytes) -> int:
        """Write, or do as if."""
        if self.error is not None:
            return len(data)
        place = self._file.tell()
        if place == self._size and (bytes(data[4:8]) in _BOXES or bytes(data[:4]) in _ELEMENTS):
            self._whole = place
            if self._first_unit is None and (data[4:8] == _FRAGMENT or data[:4] == _CLUSTER):
                self._first_unit = place
        count = self._once(self._file.write, data)
        self._size = max(self._size, place + count)
        return count

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
            if self._has_units:
                with suppress(OSError):
                    self._file.truncate(self._whole)
            raise
