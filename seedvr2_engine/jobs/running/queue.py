"""Which unit a device takes next: neighbours as long as there are any, else the longest run of units that is free."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from ...errors import JobError
from ..units.unit import Unit

MOST_ATTEMPTS = 3
_WARM_UP_SHARE = 0.6
"""About what a frame of a warm-up takes of a whole one's time: it is encoded, but not always decoded, nor written."""


class UnitQueue:
    """The units of a job that are still to be done."""

    def __init__(self, units: Sequence[Unit], finished: Collection[int] = ()) -> None:
        self._units = tuple(units)
        self._free = {unit.number for unit in units} - set(finished)
        self._taken: set[int] = set()
        self._attempts: dict[int, int] = {}

    @property
    def is_done(self) -> bool:
        """Whether nothing is free and nothing is being computed."""
        return not self._free and not self._taken

    @property
    def has_free(self) -> bool:
        """Whether a unit waits for a device."""
        return bool(self._free)

    def goes_on(self, last: Unit | None) -> bool:
        """Whether the unit after `last` is free; of several devices that wait, ask for those first that go on."""
        return last is not None and last.number + 1 in self._free and self._units[last.number + 1].follows(last)

    def take(self, last: Unit | None, idle: int = 1) -> Unit | None:
        """The unit for a device that has just finished `last`; None where it would only be in the way of another.

        idle: how many devices wait for a unit, this one included: they share what is free.
        """
        if last is not None and self.goes_on(last):
            return self._begin(last.number + 1)
        for run in sorted(self._runs(), key=lambda run: -sum(unit.frames for unit in run)):
            unit = self._first_of(run, idle)
            if unit is not None:
                return self._begin(unit.number)
        return None

    def finish(self, number: int) -> None:
        """A unit is done."""
        self._taken.discard(number)

    def give_back(self, number: int, reason: str) -> int:
        """A unit was not finished: it is free again. Returns how often it has failed.

        Raises JobError when that was the last time.
        """
        self._taken.discard(number)
        self._attempts[number] = self._attempts.get(number, 0) + 1
        if self._attempts[number] >= MOST_ATTEMPTS:
            raise JobError(
                f"unit {number}: expected a device to finish it, found that {MOST_ATTEMPTS} attempts failed, the last "
                f"one with: {reason.rstrip('.')}; what is finished is kept, and the same command goes on with it."
            )
        self._free.add(number)
        return self._attempts[number]

    def _begin(self, number: int) -> Unit:
        self._free.discard(number)
        self._taken.add(number)
        return self._units[number]

    def _runs(self) -> list[list[Unit]]:
        """Free units, neighbours of one shot together."""
        runs: list[list[Unit]] = []
        for number in sorted(self._free):
            unit = self._units[number]
            if runs and unit.follows(runs[-1][-1]):
                runs[-1].append(unit)
            else:
                runs.append([unit])
        return runs

    def _first_of(self, run: list[Unit], idle: int) -> Unit | None:
        """Where a device begins in a run: at its start, or where whoever works towards it leaves enough."""
        first = run[0]
        is_approached = first.number - 1 in self._taken and first.follows(self._units[first.number - 1])
        if not is_approached:
            return first
        before = 0
        for unit in run:
            after = run[-1].stop - unit.start + _WARM_UP_SHARE * unit.warm_up_frames
            if unit is not first and before >= after / idle:
                return unit
            before += unit.frames
        return None
