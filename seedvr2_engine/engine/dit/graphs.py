"""Small runs of the transformer as CUDA graphs: there, launching takes longer than computing."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ...models.dit.geometry import Geometry
from ...models.dit.model import Conditioning, NaDiT
from ..graphs import GraphRecorder
from .streamed import StreamedDiT
from .tables import Recent

Velocity = Callable[[Tensor, Geometry, Conditioning], Tensor]

GRAPHS = 4
"""Graphs kept; the least recently used one goes."""
ROWS = 4096
"""Video tokens up to which a run is recorded. A graph keeps the memory of its run, and a longer run hides launches."""


class _Recorded(NamedTuple):
    clips: Tensor
    out: Tensor
    replay: Callable[[], None]


class _Entry:
    """A geometry with a conditioning: seen once, then recorded."""

    def __init__(self) -> None:
        self.is_warm = False
        self.recorded: _Recorded | None = None


class VelocityGraphs:
    """Records a velocity the second time that it is asked for with the same geometry and conditioning."""

    def __init__(self, dit: NaDiT, *, wanted: bool) -> None:
        self.reason = "not wanted" if not wanted else _refusal(dit)
        """Why there are no graphs at all; empty while there are."""
        self._patch_positions = dit.config.patch_positions
        self._recorder = GraphRecorder()
        self._entries = Recent[_Entry](GRAPHS)

    def run(self, velocity: Velocity, clips: Tensor, geometry: Geometry, conditioning: Conditioning) -> Tensor:
        """`velocity(clips, geometry, conditioning)`, launched or replayed."""
        tokens = clips[..., 0].numel() // self._patch_positions
        if self.reason or tokens > ROWS or clips.device.type != "cuda" or torch.cuda.is_current_stream_capturing():
            return velocity(clips, geometry, conditioning)
        entry = self._entries.get((geometry, conditioning), _Entry)
        if not entry.is_warm:
            # The first run compiles what is to be captured.
            entry.is_warm = True
            return velocity(clips, geometry, conditioning)
        if entry.recorded is None:
            entry.recorded = self._record(velocity, clips, geometry, conditioning)
        if entry.recorded is None:
            return velocity(clips, geometry, conditioning)
        entry.recorded.clips.copy_(clips)
        entry.recorded.replay()
        return entry.recorded.out.clone()

    def _record(
        self, velocity: Velocity, clips: Tensor, geometry: Geometry, conditioning: Conditioning
    ) -> _Recorded | None:
        fixed = clips.clone()
        outs: list[Tensor] = []
        replay = self._recorder.record([lambda: outs.append(velocity(fixed, geometry, conditioning))])
        if replay is None:
            self.reason = self._recorder.reason
            return None
        return _Recorded(fixed, outs[0], replay)


def _refusal(dit: NaDiT) -> str:
    if isinstance(dit, StreamedDiT) and dit.is_offloaded:
        return "the weights come from the host"
    return ""
