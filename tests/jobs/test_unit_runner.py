"""A unit that came from another process is the unit that it was there."""

import copy
from pathlib import Path
from types import SimpleNamespace

import pytest

from seedvr2_engine.errors import VideoError
from seedvr2_engine.jobs.running import unit_runner
from seedvr2_engine.jobs.units.unit_file import Stored


class Unit(SimpleNamespace):
    """What the runner asks of a unit."""

    def follows(self, other):
        return True


def runner_of(units, monkeypatch):
    monkeypatch.setattr(unit_runner, "write_unit", lambda folder, number, coding, pictures: Stored(Path("u"), 3, 1))
    order = SimpleNamespace(units=units, folder=Path(), coding=None, source="clip.mp4")
    runner = unit_runner.UnitRunner(order, None, "cpu", lambda event: None)
    runner._walk = SimpleNamespace(unit=None, done=0, taken=lambda count: iter(()))
    return runner


def test_the_last_unit_may_be_shorter_in_any_process(monkeypatch):
    units = [Unit(number=n, start=4 * n, stop=4 * n + 4, frames=4, warm_up_frames=0) for n in range(2)]
    assert runner_of(units, monkeypatch).run(copy.deepcopy(units[1])).frames == 3
    with pytest.raises(VideoError, match="expected frames 0 to 3, found 3 of them"):
        runner_of(units, monkeypatch).run(units[0])
