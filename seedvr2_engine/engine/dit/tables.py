"""What the fused transformer needs to know of a geometry, and a memory for the last few of them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import torch
from torch import Tensor

from ...kernels.configs import WindowConfig
from ...kernels.tokens.operands import Placement, pad_bounds, plan_padded_work, plan_work
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
class PaddedWork:
    """A layout as attention in 8 bits goes through it: every sequence begins at a multiple of 64 rows."""

    rows: Tensor
    """(padded rows,) int64: the row of [video, text] for each row, -1 in the padding."""
    work: Tensor
    """(programs, 4) int32, of all queries."""
    places: Tensor
    """(padded rows,) int32: the row of the result, as `WindowWork.joint_places` has it."""


@dataclass(frozen=True)
class JointTables:
    """One window layout as the kernels take it; rows are the video's in raster order, then the text's."""

    layout: WindowLayout
    rows: Tensor
    """(joint rows,) int64: the row for each row of the joint sequences."""
    ranks: Tensor
    """(video rows,) int64: the place in window order of each row."""
    cos: Tensor
    """(rows, head width / 2) float32."""
    sin: Tensor
    """The same."""
    places: Placement
    """Where each row is in the joint sequences."""
    work: WindowWork | None
    """For the attention kernel; None where PyTorch's is used."""
    padded: PaddedWork | None = None
    """For the attention kernel in 8 bits; None where it is not used."""


def joint_tables(
    geometry: Geometry, config: WindowConfig | None = None, *, in_8_bits: bool = False
) -> tuple[JointTables, JointTables]:
    """The tables of even and of odd layers. config: of the attention kernel; None: it is not used."""
    even, odd = (_tables(geometry, parity, config) for parity in (0, 1))
    if config is not None and in_8_bits:
        return _with_padding(even, config), _with_padding(odd, config)
    return even, odd


def _with_padding(tables: JointTables, config: WindowConfig) -> JointTables:
    assert tables.work is not None
    return replace(tables, padded=padded_work(tables, tables.work.joint_places, config))


def _tables(geometry: Geometry, parity: int, config: WindowConfig | None) -> JointTables:
    layout, video = geometry.layouts[parity], geometry.rotations[parity]
    text = geometry.text_rotation
    if text is None:
        shape = (geometry.shape[0] * geometry.text_tokens, *video.cos.shape[1:])
        text = Rotation(video.cos.new_ones(shape), video.cos.new_zeros(shape))
    ranks = layout.order.argsort()
    cos, sin = (torch.cat([of_video[ranks], of_text]).flatten(1) for of_video, of_text in zip(video, text, strict=True))
    rows = torch.arange(len(cos), device=ranks.device)
    rows[: len(ranks)] = layout.order
    places = Placement(layout.video_rows[ranks], layout.text_rows)
    work = None if config is None else _work(layout, config)
    return JointTables(layout, rows[layout.joint_rows], ranks, cos, sin, places, work)


def _work(layout: WindowLayout, config: WindowConfig) -> WindowWork:
    video, text_rows, device = len(layout.order), layout.text_rows, layout.order.device
    first = video + text_rows[:, 0].numel()
    text_places = torch.arange(first, first + text_rows.numel(), device=device).view(text_rows.shape)
    places = torch.empty(len(layout.joint_rows), dtype=torch.int32, device=device)
    places[layout.video_rows] = layout.order.int()
    places[text_rows] = text_places.int()
    joint, own = _values(layout.joint_bounds), _values(layout.video_bounds)
    return WindowWork(
        config,
        plan_work(joint, joint, config.block_m).to(device),
        plan_work(own, joint, config.block_m).to(device),
        places,
        layout.order.int(),
        Placement(text_places.new_empty(0), text_places),
    )


def padded_work(tables: JointTables, places: Tensor, config: WindowConfig) -> PaddedWork:
    """The same sequences with padding between; places: of `WindowWork.joint_places`."""
    bounds = _values(tables.layout.joint_bounds)
    spans = pad_bounds(bounds, 64)
    begins = torch.tensor([begin for begin, _ in spans], device=places.device)
    lengths = torch.tensor([end - begin for begin, end in spans], device=places.device)
    shifts = begins - torch.tensor(bounds[:-1], device=places.device)
    at = torch.arange(len(places), device=places.device) + shifts.repeat_interleave(lengths)
    count = -(-spans[-1][1] // 64) * 64
    rows = torch.full((count,), -1, device=places.device)
    rows[at] = tables.rows
    moved = torch.zeros(count, dtype=torch.int32, device=places.device)
    moved[at] = places
    return PaddedWork(rows, plan_padded_work(spans, config.block_m).to(places.device), moved)


def _values(bounds: Tensor) -> list[int]:
    # What is only compiled for has no values, and needs one sequence.
    return [0, 1] if bounds.is_meta else bounds.tolist()


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
