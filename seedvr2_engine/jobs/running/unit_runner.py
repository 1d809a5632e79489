"""One device's way through units: it goes on with its streams from neighbour to neighbour, and warms up elsewhere."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch

from ...errors import VideoError
from ...pipeline.clip_stages import Progress, SourceFrame
from ...pipeline.memory import limit_engine
from ...pipeline.options import UpscaleOptions
from ...pipeline.prefetch import READ_AHEAD_FRAMES, prefetched, write_behind
from ...pipeline.setup import ModelFiles
from ...pipeline.upscaler import Upscaler, opening_frames
from ...spans import each, span
from ...video import CodedFrame, Coding, Frame, FrameSource
from ..cut import Cut
from ..job import Precisions
from ..units.unit import Unit
from ..units.unit_file import Passed, Stored, write_unit
from .events import Event, UnitAdvanced, UnitFinished, UnitStarted


@dataclass(frozen=True)
class Order:
    """What every device of a job has to know; plain values, which pass from process to process."""

    source: str
    cut: Cut
    options: UpscaleOptions
    """With nothing left open."""
    models: ModelFiles
    precisions: Precisions
    coding: Coding
    """What a unit's pictures are kept as."""
    folder: Path
    units: tuple[Unit, ...]
    threads: int
    """Of PyTorch on a CPU, whose last bits follow from it."""


class UnitRunner:
    """Computes units on one device, and writes each into the job's folder; `close` it."""

    def __init__(
        self,
        order: Order,
        load: Callable[[UpscaleOptions], Upscaler],
        device_name: str,
        tell: Callable[[Event], None],
        is_stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        """load: gives the models, when the first unit needs them. tell: gets events, from any thread.
        is_stopped: whether the job ends; then KeyboardInterrupt is raised.
        """
        self._order, self._load, self._name = order, load, device_name
        self._tell, self._is_stopped = tell, is_stopped
        self._upscaler: Upscaler | None = None
        self._walk: _Walk | None = None

    def run(self, unit: Unit) -> Stored:
        """Compute a unit; raises whatever goes wrong."""
        began = time.perf_counter()
        walk = self._walk
        if walk is not None and not unit.follows(walk.unit):
            walk.close()
            walk = self._walk = None
        self._tell(UnitStarted(self._name, unit.number, unit.warm_up_frames if walk is None else 0))
        if walk is None:
            walk = self._walk = self._begun(unit)
        walk.unit, walk.done = unit, 0
        with span("writing"):
            stored = write_unit(self._order.folder, unit.number, self._order.coding, walk.taken(unit.frames))
        # By number, because a unit that comes from another process is another object.
        if stored.frames != unit.frames and unit.number != self._order.units[-1].number:
            raise VideoError(
                f"{self._order.source}: expected frames {unit.start} to {unit.stop - 1}, found {stored.frames} of "
                "them; copy the file again."
            )
        self._tell(UnitFinished(self._name, unit.number, stored, time.perf_counter() - began))
        return stored

    def close(self) -> None:
        """Leave the source and the streams."""
        if self._walk is not None:
            self._walk.close()
            self._walk = None

    def _begun(self, unit: Unit) -> _Walk:
        if self._upscaler is None:
            self._upscaler = self._load(self._order.options)
        return _Walk(self._order, self._upscaler, unit, self._advanced, self._is_stopped)

    def _advanced(self, unit: Unit, done: int, progress: Progress) -> None:
        self._tell(UnitAdvanced(self._name, unit.number, progress.stage, done))


class _Walk:
    """One pass of the pipeline, from a unit on to wherever its shot's later units are asked for."""

    def __init__(
        self,
        order: Order,
        upscaler: Upscaler,
        unit: Unit,
        advanced: Callable[[Unit, int, Progress], None],
        is_stopped: Callable[[], bool],
    ) -> None:
        self.unit, self.done = unit, 0
        self._is_stopped, self._is_over = is_stopped, False
        self._passed: deque[Passed] = deque()
        source = self._source = order.cut.open(order.source)
        info = source.info
        limit_engine(upscaler.vae, upscaler.plan((info.height, info.width)))

        def step(progress: Progress) -> None:
            if self._is_over or is_stopped():
                raise KeyboardInterrupt
            advanced(self.unit, self.done, progress)

        pinned = upscaler.vae.device.type == "cuda"
        opening: list[SourceFrame] = []
        if info.has_alpha and not unit.entry.is_start:
            opening = _opening(order, unit, upscaler)
        self._pictures = prefetched(
            each("reading", self._read(source, unit, pinned=pinned)), READ_AHEAD_FRAMES, name="reading"
        )
        self._pictures.start()
        frames = upscaler.upscale(
            self._pictures,
            step,
            transfer=info.color.transfer,
            encoded=order.coding.of_picture,
            entry=unit.entry,
            opening=opening,
        )
        behind = write_behind(order.coding.size_bytes, upscaler.vae.device)
        self._upscaled = prefetched(frames, behind, is_stopped, "computing")

    def taken(self, count: int) -> Iterator[tuple[torch.Tensor, Passed]]:
        """The next pictures with what goes with them."""
        for codes in islice(self._upscaled, count):
            if self._is_stopped():
                raise KeyboardInterrupt
            self.done += 1
            yield codes, self._passed.popleft()

    def close(self) -> None:
        """End both threads, and close the source."""
        self._is_over = True
        self._pictures.close()
        self._upscaled.close()
        self._source.close()

    def _read(self, source: FrameSource, unit: Unit, *, pinned: bool) -> Iterator[SourceFrame]:
        frames = islice(source.coded(pinned=pinned), unit.reads_from, unit.shot.stop)
        for number, frame in enumerate(frames, start=unit.reads_from):
            if number >= unit.start:
                self._passed.append(Passed(frame.pts, frame.duration, frame.metadata))
            yield _picture(frame)


def _opening(order: Order, unit: Unit, upscaler: Upscaler) -> list[SourceFrame]:
    """The first frames of a unit's shot, by which its alpha is judged."""
    with order.cut.open(order.source) as source:
        size = source.info.height, source.info.width
        count = min(opening_frames(upscaler.division(size)), len(unit.shot))
        return [_picture(frame) for frame in islice(source.coded(), unit.shot.start, unit.shot.start + count)]


def _picture(frame: Frame | CodedFrame) -> SourceFrame:
    if isinstance(frame, CodedFrame):
        return frame
    return frame.rgb if frame.alpha is None else torch.cat([frame.rgb, frame.alpha])
