"""A thread works ahead, but not further than asked; errors and the end arrive in their turn."""

import threading
import time

import pytest

from seedvr2_engine.pipeline.prefetch import prefetched


def test_order_is_kept():
    assert list(prefetched(iter(range(100)), 3)) == list(range(100))
    assert list(prefetched([], 1)) == []


def test_it_works_in_another_thread_and_no_further_ahead_than_asked():
    made, threads = [], set()
    enough = threading.Event()

    def items():
        for index in range(50):
            made.append(index)
            threads.add(threading.get_ident())
            if index == 5:
                enough.set()
            yield index

    stream = prefetched(items(), 4)
    assert next(stream) == 0
    # One in use, four waiting, one that finds no place.
    assert enough.wait(60)
    time.sleep(0.2)  # For a thread that goes too far; a slow one is not waited for.
    assert made == list(range(6))
    assert threading.get_ident() not in threads
    stream.close()


def test_errors_arrive_after_what_was_made_before_them():
    def items():
        yield 1
        yield 2
        raise ValueError("three")

    stream = prefetched(items(), 8)
    assert [next(stream), next(stream)] == [1, 2]
    with pytest.raises(ValueError, match="three"):
        next(stream)


def test_closing_stops_the_thread_and_closes_its_source():
    closed = []

    def items():
        try:
            while True:
                yield 0
        finally:
            closed.append(threading.current_thread().name)

    before = threading.active_count()
    stream = prefetched(items(), 2)
    next(stream)
    stream.close()
    assert closed == ["prefetch"]
    assert threading.active_count() == before


def test_once_cancelled_what_is_made_still_comes_and_nothing_is_waited_for():
    goes_on, cancelled = threading.Event(), threading.Event()

    def items():
        yield 1
        cancelled.set()
        goes_on.wait(20)
        yield 2

    stream = prefetched(items(), 4, cancelled.is_set)
    assert next(stream) == 1
    with pytest.raises(KeyboardInterrupt):
        next(stream)
    goes_on.set()
    stream.close()


def test_waiting_for_a_slow_taker_is_counted_and_for_a_slow_maker_is_not():
    taken = prefetched(iter(range(4)), 1)
    for _ in taken:
        time.sleep(0.05)
    assert taken.waited_s > 0.04

    def slow():
        for index in range(4):
            time.sleep(0.05)
            yield index

    made = prefetched(slow(), 4)
    assert list(made) == [0, 1, 2, 3]
    assert made.waited_s < taken.waited_s
