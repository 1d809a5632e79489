"""Which slots of the rings every operation of a step reads and writes, and how that moves on from step to step."""

from collections.abc import Iterator

from ..kernels.upsample import SET_OF_SECOND
from .types import ExecutionPlan, Ring, Schedule, Step

ROW = 4
"""Numbers of an operation: at most three frames and a weight set. 16 bytes, so that every row is aligned alike."""
STILL = 1 << 30
"""Modulus of a number that does not move."""
SETTLED = 2
"""From this step on, a step's rows follow from the row before it."""

Row = tuple[int, int, int, int]


def uses_row(step: Step) -> bool:
    """Whether an operation looks into the tables."""
    return step.kernel in ("load", "norm", "conv3d")


def step_rows(plan: ExecutionPlan, index: int) -> list[Row]:
    """The rows of step `index` (0 is the clip's first frame), in the order of `Schedule.executions`."""
    return [_row(plan, step, frame) for step, frame in _frames(plan, index)]


def row_moves(plan: ExecutionPlan) -> tuple[list[Row], list[Row]]:
    """(increments, moduli) that turn the rows of one settled step into those of the next."""
    increments, moduli = [], []
    for step, _ in plan.steady.executions():
        if not uses_row(step):
            continue
        ring = plan.rings[step.slot.ring] if step.slot is not None else None
        if ring is None or ring.offset is None:
            increments.append((0, 0, 0, 0))
            moduli.append((STILL, STILL, STILL, STILL))
            continue
        frames = plan.steady.order.count(ring.segment)
        taps = 1 if step.problem is None else step.problem.kernel[0]
        increments.append(_pad([frames % ring.slots] * taps, 0))
        moduli.append(_pad([ring.slots] * taps, STILL))
    return increments, moduli


def _frames(plan: ExecutionPlan, index: int) -> Iterator[tuple[Step, int]]:
    """Every operation that has a row, with the frame of its segment that it computes."""
    schedule: Schedule = plan.steady if index else plan.first
    for step, run in schedule.executions():
        if uses_row(step):
            yield step, plan.frames_before(step.segment, index) + run


def _row(plan: ExecutionPlan, step: Step, frame: int) -> Row:
    if step.slot is None:
        return (0, 0, 0, 0)
    ring, base = plan.rings[step.slot.ring], step.slot.base
    if step.problem is None:
        return _pad([_slot(ring, base, frame, frame)], 0)
    newest, weight_set = _newest(step, frame)
    taps = step.problem.kernel[0]
    seen = [max(newest - past, 0) for past in range(taps - 1, -1, -1)]
    return _pad([*(_slot(ring, base, one, newest) for one in seen), weight_set], 0)


def _newest(step: Step, frame: int) -> tuple[int, int]:
    """The newest input frame that output frame `frame` sees, and the weight set it is computed with."""
    if step.pace == "down":
        return 2 * frame, 0
    if step.pace == "same" or frame == 0:
        return frame, 0
    low, phase = (frame + 1) // 2, (frame + 1) % 2
    return low, phase + (SET_OF_SECOND if low == 1 else 0)


def _slot(ring: Ring, base: int, frame: int, newest: int) -> int:
    if ring.offset is None:
        return ring.slots - 1 - (newest - frame)
    return (frame - base) % ring.slots


def _pad(numbers: list[int], filler: int) -> Row:
    a, b, c, d = [*numbers, *[filler] * (ROW - len(numbers))]
    return a, b, c, d
