"""What the fused transformer needs to know of a geometry, and a memory for the last few of them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

from ...kernels.configs import WindowConfig
from ...kernels.tokens.operands import Placement, plan_work
from ...models.dit.geometry import Geometry
from ...models.dit.rope import Rotation
from ...models.dit.windows import WindowLayout

V = TypeVar("V")


@dataclass(frozen=True)
class WindowWork:
    """How the attention kernel goes through a layout, and where it puts what comes out.

    Its result has the rows of video and text, then the text's of every window, whose mean is still to be taken.
    """

    config: WindowConfig
    joint: Tensor
    """The work, (programs, 4) int32, of all queries."""
    video: Tensor
    """The same, of the video's queries alone."""
    joint_places: Tensor
    """(joint rows,) int32: the row of the result for each joint row."""
    video_places: Tensor
    """(video rows,) int32."""
    text: Placement
    """The rows of the result where the windows' text is; no video."""


@dataclass(frozen=True)
class JointTables:
    """One window layout as the kernels take it; rows are the video's in window order, then the text's."""

    layout: WindowLayout
    cos: Tensor
    """(rows, head width / 2) float32."""
    sin: Tensor
    """The same."""
    places: Placement
    """Where each row is in the joint sequences."""
    order: Tensor | None
    """Which row of the other layout each video row was."""
    work: WindowWork | None
    """For the attention kernel; None where PyTorch's is used."""


def joint_tables(geometry: Geometry, config: WindowConfig | None = None) -> tuple[JointTables, JointTables]:
    """The tables of even and of odd layers. config: of the attention kernel; None: it is not used."""
    even, odd = (_tables(geometry, parity, config) for parity in (0, 1))
    return even, odd


def _tables(geometry: Geometry, parity: int, config: WindowConfig | None) -> JointTables:
    layout, video = geometry.layouts[parity], geometry.rotations[parity]
    text = geometry.text_rotation
    if text is None:
        shape = (geometry.shape[0] * geometry.text_tokens, *video.cos.shape[1:])
        text = Rotation(video.cos.new_ones(shape), video.cos.new_zeros(shape))
    cos, sin = (torch.cat(parts).flatten(1) for parts in zip(video, text, strict=True))
    places = Placement(layout.video_rows, layout.text_rows)
    work = None if config is None else _work(layout, config)
    return JointTables(layout, cos, sin, places, geometry.permutations[parity], work)


def _work(layout: WindowLayout, config: WindowConfig) -> WindowWork:
    video, text_rows, device = len(layout.order), layout.text_rows, layout.order.device
    first = video + text_rows[:, 0].numel()
    text_places = torch.arange(first, first + text_rows.numel(), device=device).view(text_rows.shape)
    places = torch.empty(len(layout.joint_rows), dtype=torch.int32, device=device)
    places[layout.video_rows] = torch.arange(video, dtype=torch.int32, device=device)
    places[text_rows] = text_places.int()
    joint, own = layout.joint_bounds.tolist(), layout.video_bounds.tolist()
    return WindowWork(
        config,
        plan_work(joint, joint, config.block_m).to(device),
        plan_work(own, joint, config.block_m).to(device),
        places,
        torch.arange(video, dtype=torch.int32, device=device),
        Placement(text_places.new_empty(0), text_places),
    )


class Recent(Generic[V]):
    """Values that belong to objects, which are known by identity and kept alive; the least recently used one goes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._values: OrderedDict[tuple[int, ...], tuple[tuple[object, ...], V]] = OrderedDict()

    def get(self, owners: tuple[object, ...], make: Callable[[], V]) -> V:
        """The value of these owners, made if there is none."""
        key = tuple(id(owner) for owner in owners)
        if key not in self._values:
            self._values[key] = owners, make()
            if len(self._values) > self._limit:
                self._values.popitem(last=False)
        self._values.move_to_end(key)
        return self._values[key][1]
