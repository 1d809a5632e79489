"""What is remembered from step to step, as tensors."""

from dataclasses import dataclass

from torch import Tensor

from ..kernels.layout import DTYPES
from ..plan.types import ExecutionPlan, Ring


@dataclass(frozen=True)
class RingTensors:
    """A ring's frames and their exponents."""

    frames: Tensor
    """(slots, H, W, C)."""
    exponents: Tensor | None
    """(slots,) int32, for 8-bit frames."""


def ring_tensors(plan: ExecutionPlan, memory: Tensor, exponents: Tensor) -> tuple[RingTensors, ...]:
    """Views of all rings; `exponents` (`exponent_count`,) int32 holds those of all of them."""
    views, begin = [], 0
    for ring in plan.rings:
        frames = memory[ring.offset : ring.offset + ring.bytes].view(DTYPES[ring.format])
        part = exponents[begin : begin + ring.slots] if _has_exponents(ring) else None
        views.append(RingTensors(frames.view(ring.slots, *ring.size), part))
        begin += _aligned(ring.slots)
    return tuple(views)


def exponent_count(plan: ExecutionPlan) -> int:
    """Numbers that the exponents of all rings take, each ring's beginning at a multiple of 16 bytes."""
    return max(1, sum(_aligned(ring.slots) for ring in plan.rings))


def _aligned(slots: int) -> int:
    return -(-slots // 4) * 4


def _has_exponents(ring: Ring) -> bool:
    return DTYPES[ring.format].itemsize == 1
