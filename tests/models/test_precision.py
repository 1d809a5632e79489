"""TF32 switches, which a whole process shares."""

import threading
from contextlib import ExitStack

import pytest
import torch

from seedvr2_engine.models.precision import exact_float32


@pytest.fixture(autouse=True)
def _on(monkeypatch):
    before = switches()
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def switches():
    return torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32


def test_spans_that_overlap_stay_exact_to_the_last_and_leave_the_switches_as_they_were():
    first, second = ExitStack(), ExitStack()
    first.enter_context(exact_float32())
    second.enter_context(exact_float32())
    first.close()
    assert switches() == (False, False)
    second.close()
    assert switches() == (True, True)


def test_inside_each_other_and_after_an_error():
    with exact_float32():
        with pytest.raises(ValueError), exact_float32():
            raise ValueError
        assert switches() == (False, False)
    assert switches() == (True, True)


def test_two_threads_that_overlap():
    inside, may_leave, seen = threading.Barrier(3), threading.Barrier(2), []

    def work(leaves_first):
        with exact_float32():
            inside.wait(10)
            if leaves_first:
                return
            may_leave.wait(10)
            seen.append(switches())

    threads = [threading.Thread(target=work, args=(leaves_first,)) for leaves_first in (True, False)]
    for thread in threads:
        thread.start()
    inside.wait(10)
    threads[0].join(10)
    may_leave.wait(10)
    threads[1].join(10)
    assert seen == [(False, False)]
    assert switches() == (True, True)
