"""Remembered frames that wait in pinned host memory: fetched one layer ahead, on streams of their own.

A layer's frames are on the GPU only around its own launch. While a layer computes, its new frame leaves on one stream
and the next layer's past arrives on another.
"""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from ...kernels.layout import DTYPES
from ...plan.execution_plan import ExecutionPlan, Operation, Schedule
from ..graphs import Launch
from .rings import RingTensors


class HostRings:
    """The host's part of a plan's rings; frame t of a ring waits at t mod its length."""

    def __init__(self, plan: ExecutionPlan, device: torch.device) -> None:
        self._plan = plan
        self._inward, self._outward = _CopyStream(device), _CopyStream(device)
        self._frames = {
            index: torch.zeros(
                ring.host_frames, *ring.size, dtype=DTYPES[ring.format], pin_memory=device.type == "cuda"
            )
            for index, ring in enumerate(plan.rings)
            if ring.host_frames
        }
        self._next: dict[int, int] = {}

    @property
    def frames(self) -> tuple[Tensor, ...]:
        """All host memory."""
        return tuple(self._frames.values())

    def begin(self, index: int) -> None:
        """Step `index` begins."""
        for ring in self._frames:
            self._next[ring] = self._plan.frames_before(self._plan.rings[ring].segment, index)

    def finish(self) -> None:
        """Wait until all host memory is written."""
        self._outward.finish()

    def surround(
        self, operation: Operation, launches: Sequence[Launch], schedule: Schedule, rings: tuple[RingTensors, ...]
    ) -> list[Launch]:
        """The launches of an operation, with the copies that belong to it."""
        users = [
            other.slot.ring
            for other in schedule.operations
            if other.segment == operation.segment
            and other.problem is None
            and other.slot is not None
            and self._plan.rings[other.slot.ring].fetched_early
        ]
        around = list(launches)
        ring = operation.slot.ring if operation.slot is not None else -1
        if ring in self._frames and operation.problem is None:
            late = ring not in users
            after = [ring] if late else users[users.index(ring) + 1 :][:1]
            fetches = [partial(self._fetch, other, rings[other]) for other in after]
            arrives, leaves = partial(self._arrive, rings[ring]), partial(self._leave, ring, rings[ring])
            before = [*fetches, arrives] if late else [arrives, *fetches]
            around = [*before, *launches, leaves]
        elif ring in self._frames:
            # What follows may overwrite the layer's frames once they have left.
            around.append(self._outward.before_launches)
        if users and operation is next(other for other in schedule.operations if other.segment == operation.segment):
            around.insert(0, partial(self._fetch, users[0], rings[users[0]]))
        return around

    def _fetch(self, ring: int, tensors: RingTensors) -> None:
        """Bring a layer's past to the GPU."""
        host, frame = self._frames[ring], self._next[ring]
        # What it replaces there may still be in use, and what it reads may still be on its way out.
        self._inward.after_launches()
        self._inward.after(self._outward)
        for past in range(1, min(frame, len(host)) + 1):
            self._inward.copy(tensors.frames[-1 - past], host[(frame - past) % len(host)])

    def _arrive(self, tensors: RingTensors) -> None:
        """Before a layer's new frame is written: wait until its past is there."""
        self._inward.before_launches()
        if tensors.exponents is not None:
            for slot in range(1, tensors.exponents.numel()):
                tensors.exponents[slot - 1].copy_(tensors.exponents[slot])

    def _leave(self, ring: int, tensors: RingTensors) -> None:
        """After a layer's new frame is written: send it to the host."""
        host, frame = self._frames[ring], self._next[ring]
        self._outward.after_launches()
        self._outward.copy(host[frame % len(host)], tensors.frames[-1])
        self._next[ring] += 1


class _CopyStream:
    """Copies in one direction, in order, beside the launches; on a CPU they are done at once."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def after_launches(self) -> None:
        """Copies from here on wait for the launches so far."""
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.current_stream(self._stream.device))

    def before_launches(self) -> None:
        """Launches from here on wait for the copies so far."""
        if self._stream is not None:
            torch.cuda.current_stream(self._stream.device).wait_stream(self._stream)

    def after(self, other: "_CopyStream") -> None:
        """Copies from here on wait for those of the other stream so far."""
        if self._stream is not None and other._stream is not None:
            self._stream.wait_stream(other._stream)

    def copy(self, target: Tensor, source: Tensor) -> None:
        """Copy a frame, bytes: not every device copies every 8-bit float format."""
        if self._stream is None:
            target.view(torch.uint8).copy_(source.view(torch.uint8))
            return
        with torch.cuda.stream(self._stream):
            target.view(torch.uint8).copy_(source.view(torch.uint8), non_blocking=True)

    def finish(self) -> None:
        """Wait for all copies."""
        if self._stream is not None:
            self._stream.synchronize()
