"""Remembered frames that wait in pinned host memory: fetched one layer ahead on a stream of their own.

A layer's frames are on the GPU only around its own launch. Two places take turns, so that the next layer's frames
arrive while this one computes.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..kernels.layout import DTYPES
from ..plan.types import ExecutionPlan
from .rings import RingTensors


@dataclass
class _Use:
    """One use of a ring within a step."""

    ring: int
    frame: int


@dataclass
class _Place:
    """One of the places on the GPU, and the uses that are still to come in this step."""

    uses: list[_Use] = field(default_factory=list)
    arrived: torch.cuda.Event | None = None


class HostRings:
    """The host's part of a plan's rings; frame t of a ring waits at t mod its length."""

    def __init__(self, plan: ExecutionPlan, rings: tuple[RingTensors, ...]) -> None:
        self._plan = plan
        self._rings = rings
        device = rings[0].frames.device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._frames = {
            index: torch.zeros(
                ring.host_frames, *ring.size, dtype=DTYPES[ring.format], pin_memory=self._stream is not None
            )
            for index, ring in enumerate(plan.rings)
            if ring.host_frames
        }
        self._places: dict[int, _Place] = {}

    @property
    def frames(self) -> tuple[Tensor, ...]:
        """All host memory."""
        return tuple(self._frames.values())

    def holds(self, ring: int) -> bool:
        """Whether a ring waits in host memory."""
        return ring in self._frames

    def begin(self, index: int) -> None:
        """Step `index` begins: fetch what the first layers need."""
        plan = self._plan
        schedule = plan.steady if index else plan.first
        self._places = {plan.rings[ring].offset: _Place() for ring in self._frames}
        for step, run in schedule.executions():
            if step.problem is not None and step.slot is not None and self.holds(step.slot.ring):
                use = _Use(step.slot.ring, plan.frames_before(step.segment, index) + run)
                self._places[plan.rings[use.ring].offset].uses.append(use)
        for place in self._places.values():
            self._prefetch(place)

    def fetch(self, ring: int) -> None:
        """Before a layer's new frame is written: wait until its past has arrived."""
        place, tensors = self._places[self._plan.rings[ring].offset], self._rings[ring]
        assert place.uses[0].ring == ring
        if place.arrived is not None:
            place.arrived.wait()
        if tensors.exponents is not None:
            for slot in range(1, tensors.exponents.numel()):
                tensors.exponents[slot - 1].copy_(tensors.exponents[slot])

    def store(self, ring: int) -> None:
        """After a layer has run: bring its new frame to the host, and fetch for the next layer in this place."""
        place = self._places[self._plan.rings[ring].offset]
        use = place.uses.pop(0)
        if self._stream is None:
            self._keep(use)
            self._prefetch(place)
            return
        self._stream.wait_stream(torch.cuda.current_stream(self._stream.device))
        with torch.cuda.stream(self._stream):
            self._keep(use)
        self._prefetch(place)

    def finish(self) -> None:
        """Wait until all host memory is written."""
        if self._stream is not None:
            self._stream.synchronize()

    def _keep(self, use: _Use) -> None:
        host, device = self._frames[use.ring], self._rings[use.ring].frames
        _copy(host[use.frame % len(host)], device[-1])

    def _prefetch(self, place: _Place) -> None:
        if not place.uses:
            return
        if self._stream is None:
            self._bring(place.uses[0])
            return
        with torch.cuda.stream(self._stream):
            self._bring(place.uses[0])
            place.arrived = torch.cuda.Event()
            place.arrived.record()

    def _bring(self, use: _Use) -> None:
        host, device = self._frames[use.ring], self._rings[use.ring].frames
        for past in range(1, min(use.frame, len(host)) + 1):
            _copy(device[-1 - past], host[(use.frame - past) % len(host)])


def _copy(target: Tensor, source: Tensor) -> None:
    # Bytes: not every device copies every 8-bit float format.
    target.view(torch.uint8).copy_(source.view(torch.uint8), non_blocking=True)
