"""What is remembered from step to step, as tensors."""

from dataclasses import dataclass

from torch import Tensor

from ...kernels.layout import DTYPES
from ...plan.execution_plan import ExecutionPlan, Ring, Schedule, ring_buffer


@dataclass(frozen=True)
class Memory:
    """The device memory that a plan is bound to."""

    arena: Tensor
    """(bytes,) uint8."""
    rings: Tensor
    """(bytes,) uint8."""


@dataclass(frozen=True)
class RingTensors:
    """A ring's frames and their exponents."""

    frames: Tensor
    """(slots, H, W, C)."""
    exponents: Tensor | None
    """(slots,) int32, for 8-bit frames."""


def ring_tensors(plan: ExecutionPlan, schedule: Schedule, memory: Memory, exponents: Tensor) -> tuple[RingTensors, ...]:
    """Views of all rings for the operations of a schedule; `exponents` (`exponent_count`,) int32 is for all of them."""
    views, begin = [], 0
    for index, ring in enumerate(plan.rings):
        if ring.offset is None:
            buffer = schedule.places[ring_buffer(index)]
            frames = memory.arena[buffer.offset : buffer.offset + buffer.bytes]
        else:
            frames = memory.rings[ring.offset : ring.offset + ring.bytes]
        part = exponents[begin : begin + ring.slots] if _has_exponents(ring) else None
        views.append(RingTensors(frames.view(DTYPES[ring.format]).view(ring.slots, *ring.size), part))
        begin += _aligned(ring.slots)
    return tuple(views)


def exponent_count(plan: ExecutionPlan) -> int:
    """Numbers that the exponents of all rings take, each ring's beginning at a multiple of 16 bytes."""
    return max(1, sum(_aligned(ring.slots) for ring in plan.rings))


def _aligned(slots: int) -> int:
    return -(-slots // 4) * 4


def _has_exponents(ring: Ring) -> bool:
    return DTYPES[ring.format].itemsize == 1
