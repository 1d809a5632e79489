"""Work that is begun before its result is needed."""

import threading

import pytest

from seedvr2_engine.errors import ModelFileError
from seedvr2_engine.pipeline.prefetch import Begun


def test_it_runs_beside_and_gives_its_result_away_once():
    go = threading.Event()

    def work(step):
        go.wait()
        step()
        return [threading.current_thread().name]

    with Begun(work, "weights") as begun:
        go.set()
        assert begun.take() == ["weights"]
        with pytest.raises(IndexError):
            begun.take()


def test_its_error_belongs_to_who_takes_the_result():
    def work(step):
        raise ModelFileError("there is no such file.")

    with Begun(work, "weights") as begun:
        begun.wait()
        with pytest.raises(ModelFileError, match="no such file"):
            begun.take()
    with Begun(work, "weights"):
        pass


def test_leaving_stops_it_at_its_next_step_and_waits_for_it():
    steps = []
    begun_working = threading.Event()

    def work(step):
        while True:
            step()
            steps.append(1)
            begun_working.set()

    with Begun(work, "weights"):
        begun_working.wait()
    assert not any(thread.name == "weights" for thread in threading.enumerate())
    assert steps
