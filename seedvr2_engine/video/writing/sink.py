"""FrameSink: what every kind of output has in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import torch

from ...errors import InvalidArgumentError, OutputError
from ...output.signals import held_signals
from ..coded import Coding
from ..info import PictureMetadata
from .partial import write_errors


@dataclass(frozen=True)
class Written:
    """One frame that is to be written; see `FrameSink.write`."""

    rgb: torch.Tensor
    """Floating point (3,H,W) in [0,1], or uint8 (bytes,) as the sink's `coding` says."""
    alpha: torch.Tensor | None
    """Floating point (1,H,W) in [0,1]."""
    pts: int | None
    """When it is shown, in ticks of the source; None: right after the one before."""
    duration: int | None
    """Ticks of the source."""
    metadata: PictureMetadata | None
    """What its own picture file said; None takes that of the whole source."""


class FrameSink(ABC):
    """Takes frames in order; `finish` puts the file in its place, `abort` gives up.

    In a `with` statement, leaving normally finishes; an exception of any kind keeps the frames so far under a name of
    their own, which `kept` gives. Requests to end (Ctrl-C, SIGTERM, SIGHUP) are held back while a frame is written or
    the file is finished or kept. `warnings` collects sentences about whatever differs from what was asked; nothing
    prints.
    """

    def __init__(self, path: Path, width: int, height: int) -> None:
        self.path = path
        self.width = width
        self.height = height
        self.frames_written = 0
        self.warnings: list[str] = []
        self.kept: Path | None = None
        """Where the frames so far are, as a playable file, if the target did not get them."""
        self._is_closed = False

    @property
    def coding(self) -> Coding | None:
        """What `write_coded` takes; None where the sink makes code values itself, of what `write` gets."""
        return None

    @property
    def keeping(self) -> Coding | None:
        """Code values that lose nothing of what `write` would take into the file; None where there are none.

        Where `coding` is None, `write` makes the same file of R'G'B' that is decoded from them.
        """
        return self.coding

    @property
    def unfinished(self) -> Path | None:
        """The file or folder that becomes the output."""
        return None

    @property
    def is_closed(self) -> bool:
        """Whether it was finished or given up."""
        return self._is_closed

    @abstractmethod
    def _write(self, frame: Written) -> None: ...

    @abstractmethod
    def _finish(self) -> None: ...

    @abstractmethod
    def _abort(self, *, keep_partial: bool) -> Path | None: ...

    def write(
        self,
        rgb: torch.Tensor,
        *,
        pts: int | None = None,
        duration: int | None = None,
        alpha: torch.Tensor | None = None,
        metadata: PictureMetadata | None = None,
    ) -> None:
        """Append a frame: float (3,H,W) in [0,1] on any device, rounded to the nearest code value.

        `pts` and `duration` are in ticks of the source's time base, as `Frame` gives them; without `pts` the frame
        follows the one before. `alpha` is (1,H,W) in [0,1]; where the file holds none it is left out, which a
        warning has said when the sink was opened. `metadata` is what the frame's own picture file said; without it
        pictures take that of the whole source, and clips never need it. Raises OutputError if the disk is full or the
        encoder fails, and InvalidArgumentError for a wrong shape or a time that does not come after the last one.
        """
        self._check_open()
        expected = (3, self.height, self.width)
        if tuple(rgb.shape) != expected or not rgb.is_floating_point():
            raise InvalidArgumentError(
                f"rgb: expected floating point {expected}, got {rgb.dtype} {tuple(rgb.shape)}; convert the frame."
            )
        if alpha is not None and tuple(alpha.shape) != (1, self.height, self.width):
            raise InvalidArgumentError(f"alpha: expected shape {(1, *expected[1:])}, got {tuple(alpha.shape)}.")
        self._take(Written(rgb, alpha, pts, duration, metadata))

    def write_coded(self, codes: torch.Tensor, *, pts: int | None = None, duration: int | None = None) -> None:
        """Append a frame as `coding.encoded` makes it on any device, brought to the CPU: uint8 (bytes,).

        Times as in `write`. Raises InvalidArgumentError for another number of bytes, or where `coding` is None.
        """
        self._check_open()
        expected = None if self.coding is None else self.coding.size_bytes
        if codes.dtype != torch.uint8 or tuple(codes.shape) != (expected,):
            wanted = "frames for write(), which this sink rounds itself" if expected is None else f"{expected} bytes"
            raise InvalidArgumentError(
                f"codes: expected {wanted}, got {codes.dtype} {tuple(codes.shape)}; use the sink's own coding."
            )
        self._take(Written(codes, None, pts, duration, None))

    def _check_open(self) -> None:
        if self._is_closed:
            raise InvalidArgumentError(f"{self.path}: the sink is closed; open another one to write more.")

    def _take(self, frame: Written) -> None:
        with held_signals(), write_errors(self.path):
            self._write(frame)
            self.frames_written += 1

    def finish(self) -> Path:
        """Complete the file, put it in its place in one step, and return its path.

        On any error the target is as it was, and what was written is kept (`kept`).
        """
        with held_signals():
            if self._is_closed:
                return self.path
            if self.frames_written == 0:
                self.abort(keep_partial=False)
                raise OutputError(f"{self.path}: expected at least one frame, got none; nothing was written.")
            try:
                with write_errors(self.path):
                    self._finish()
            except BaseException:
                self.abort(keep_partial=True)
                raise
            self._is_closed = True
        return self.path

    def abort(self, *, keep_partial: bool) -> Path | None:
        """Give up; the target stays untouched.

        Returns where the frames so far were kept, as an ordinary playable file, or None if they were removed (asked
        for, or there were none).
        """
        with held_signals():
            if self._is_closed:
                return None
            self._is_closed = True
            self.kept = self._abort(keep_partial=keep_partial and self.frames_written > 0)
        return self.kept

    def __enter__(self) -> FrameSink:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._is_closed:
            return
        try:
            if error is None:
                self.finish()
        finally:
            self.abort(keep_partial=True)
