"""Requests to end that are held back."""

import signal
import threading

import pytest

from seedvr2_engine.output.signals import ENDING_SIGNALS, held_signals


@pytest.fixture(autouse=True)
def interrupts():
    """As the command sets them up: each request to end is a KeyboardInterrupt."""
    before = {number: signal.signal(number, signal.default_int_handler) for number in ENDING_SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", ENDING_SIGNALS)
@pytest.mark.parametrize("times", [1, 3])
def test_what_is_begun_is_finished_first(number, times):
    done = []

    def work():
        with held_signals():
            for _ in range(times):
                signal.raise_signal(number)
            done.append("finished")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == ["finished"]
    assert signal.getsignal(number) is signal.default_int_handler


def test_inner_blocks_hand_on_to_outer_ones():
    with held_signals() as outer:
        with held_signals():
            signal.raise_signal(signal.SIGINT)
        assert outer.is_pending
        assert outer.take()
    assert not outer.is_pending


def test_where_nothing_can_be_lost_they_pass():
    steps = []

    def work():
        with held_signals() as signals:
            try:
                with signals.let_through():
                    signal.raise_signal(signal.SIGINT)
                    steps.append("never")
            finally:
                signal.raise_signal(signal.SIGINT)  # Held again.
                steps.append("kept")
                signals.take()

    with pytest.raises(KeyboardInterrupt):
        work()
    assert steps == ["kept"]


def test_what_is_ignored_stays_ignored():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with held_signals() as signals:
        signal.raise_signal(signal.SIGTERM)
        assert not signals.is_pending
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN


def test_other_threads_may_use_it():
    errors = []

    def work():
        try:
            with held_signals() as signals, signals.let_through():
                pass
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert errors == []
