"""Which slots of the rings every operation of a step reads and writes, and how that moves on from step to step."""

from collections.abc import Iterator

from ..kernels.conv.upsample import SET_OF_SECOND
from .execution_plan import ExecutionPlan, Operation, Ring, Schedule

ROW = 4
"""An operation's numbers fill whole rows. 16 bytes, so that every operation's are aligned alike."""
STILL = 1 << 30
"""Modulus of a number that does not move."""
SETTLED = 2
"""From this step on, a step's rows follow from the row before it."""

Row = tuple[int, int, int, int]


def row_count(operation: Operation) -> int:
    """Rows of the tables that an operation looks into.

    A convolution has the frames that its taps see and its weight set, for each frame that it computes; a norm the slots
    it writes, after the two it reads where it makes Winograd inputs; a convolution of
    these has none.
    """
    if operation.problem is not None:
        numbers = 0 if operation.problem.paired else operation.frames * (operation.problem.kernel[0] + 1)
    elif operation.kernel in ("load", "norm"):
        numbers = operation.frames * (2 if operation.makes_winograd_inputs else 1)
    else:
        numbers = 0
    return -(-numbers // ROW)


def step_rows(plan: ExecutionPlan, index: int) -> list[Row]:
    """The rows of step `index` (0 is the clip's first frame), in the order of `Schedule.executions`."""
    return [row for operation, frame in _frames(plan, index) for row in _rows(_numbers(plan, operation, frame), 0)]


def row_moves(plan: ExecutionPlan) -> tuple[list[Row], list[Row]]:
    """(increments, moduli) that turn the rows of one settled step into those of the next."""
    increments: list[Row] = []
    moduli: list[Row] = []
    for operation, frame in _frames(plan, SETTLED):
        ring = plan.rings[operation.slot.ring] if operation.slot is not None else None
        # Numbers that are no slots: a convolution's weight sets.
        every = operation.problem.kernel[0] + 1 if operation.problem is not None else 0
        move, modulus = [], []
        for place, _ in enumerate(_numbers(plan, operation, frame)):
            still = ring is None or ring.offset is None or (every and place % every == every - 1)
            move.append(0 if still else plan.steady.frames_of(ring.segment) % ring.slots)  # type: ignore[union-attr]
            modulus.append(STILL if still else ring.slots)  # type: ignore[union-attr]
        increments += _rows(move, 0)
        moduli += _rows(modulus, STILL)
    return increments, moduli


def _frames(plan: ExecutionPlan, index: int) -> Iterator[tuple[Operation, int]]:
    """Every operation that has rows, with the first frame of its segment that it computes."""
    schedule: Schedule = plan.steady if index else plan.first
    for operation, run in schedule.executions():
        if row_count(operation):
            yield operation, plan.frames_before(operation.segment, index) + run


def _numbers(plan: ExecutionPlan, operation: Operation, first: int) -> list[int]:
    frames = range(first, first + operation.frames)
    if operation.slot is None:
        return [0] * (operation.frames * (operation.problem.kernel[0] + 1 if operation.problem else 1))
    ring, base = plan.rings[operation.slot.ring], operation.slot.base
    if operation.problem is None:
        seen = [max(first - 2, 0), max(first - 1, 0)] if operation.makes_winograd_inputs else []
        return [_slot(ring, base, frame, frame) for frame in (*seen, *frames)]
    numbers = []
    for frame in frames:
        newest, weight_set = _newest(operation, frame)
        taps = range(operation.problem.kernel[0] - 1, -1, -1)
        numbers += [_slot(ring, base, max(newest - past, 0), newest) for past in taps]
        numbers.append(weight_set)
    return numbers


def _newest(operation: Operation, frame: int) -> tuple[int, int]:
    """The newest input frame that output frame `frame` sees, and the weight set it is computed with."""
    if operation.temporal_rate == "down":
        return 2 * frame, 0
    if operation.temporal_rate == "same" or frame == 0:
        return frame, 0
    low, phase = (frame + 1) // 2, (frame + 1) % 2
    return low, phase + (SET_OF_SECOND if low == 1 else 0)


def _slot(ring: Ring, base: int, frame: int, newest: int) -> int:
    if ring.offset is None:
        return ring.slots - 1 - (newest - frame)
    return (frame - base) % ring.slots


def _rows(numbers: list[int], filler: int) -> list[Row]:
    filled = [*numbers, *[filler] * (-len(numbers) % ROW)]
    return [(a, b, c, d) for a, b, c, d in zip(*[iter(filled)] * ROW, strict=True)]
