"""What the fused transformer needs to know of a geometry, and a memory for the last few of them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

from ..kernels.token_operands import Placement
from ..models.geometry import Geometry
from ..models.rope import Rotation
from ..models.windows import WindowLayout

V = TypeVar("V")


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


def joint_tables(geometry: Geometry) -> tuple[JointTables, JointTables]:
    """The tables of even and of odd layers."""
    even, odd = (_tables(geometry, parity) for parity in (0, 1))
    return even, odd


def _tables(geometry: Geometry, parity: int) -> JointTables:
    layout, video = geometry.layouts[parity], geometry.rotations[parity]
    text = geometry.text_rotation
    if text is None:
        shape = (geometry.shape[0] * geometry.text_tokens, *video.cos.shape[1:])
        text = Rotation(video.cos.new_ones(shape), video.cos.new_zeros(shape))
    cos, sin = (torch.cat(parts).flatten(1) for parts in zip(video, text, strict=True))
    return JointTables(layout, cos, sin, Placement(layout.video_rows, layout.text_rows), geometry.hops[parity])


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
