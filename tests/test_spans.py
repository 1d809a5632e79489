"""The recorder: nothing where it is off, every span of every thread where it is on."""

import json
import os
import subprocess
import sys
import threading

import pytest

from seedvr2_engine import spans


@pytest.fixture
def recorder(monkeypatch):
    monkeypatch.setattr(spans, "RECORDER", spans.Recorder())
    return spans.RECORDER


def recorded(recorder):
    return json.loads(recorder.to_json())["spans"]


def test_off_it_does_nothing():
    assert spans.RECORDER is None
    items = iter([1, 2])
    assert spans.each("stage", items) is items
    assert spans.span("a") is spans.span("b")
    with pytest.raises(KeyError), spans.span("a"):
        raise KeyError


def test_spans_of_all_threads(recorder):
    def work():
        with spans.span("inside"):
            pass

    with spans.span("outside"):
        thread = threading.Thread(target=work, name="worker")
        thread.start()
        thread.join()
    inner, outer = recorded(recorder)
    assert (inner["name"], inner["thread"]) == ("inside", "worker")
    assert (outer["name"], outer["thread"]) == ("outside", "MainThread")
    assert outer["begin"] <= inner["begin"] <= inner["end"] <= outer["end"]
    assert "gpu_begin" not in outer


def test_a_span_ends_with_an_error_too(recorder):
    with pytest.raises(KeyError), spans.span("a"):
        raise KeyError
    assert [span["name"] for span in recorded(recorder)] == ["a"]


def test_the_making_of_each_item_is_a_span(recorder):
    closed = []

    def items():
        try:
            yield from range(3)
        finally:
            closed.append(True)

    assert list(spans.each("stage", items())) == [0, 1, 2]
    assert [span["name"] for span in recorded(recorder)] == ["stage"] * 4  # The last one finds the end.
    stream = spans.each("stage", items())
    next(stream)
    stream.close()
    assert len(closed) == 2


def test_a_clock_gives_the_times_of_a_queue(recorder):
    class Clock:
        marks = 0

        def mark(self):
            self.marks += 1
            return self.marks

        def nanoseconds(self, mark):
            if mark > 2:
                raise RuntimeError("the context is lost")
            return mark * 10**9

    clock = Clock()
    for _ in range(2):
        with spans.span("stage", clock):
            pass
    first, lost = recorded(recorder)
    assert first["gpu_end"] - first["gpu_begin"] == pytest.approx(1)
    assert "gpu_end" not in lost


def test_a_process_writes_them_when_it_ends(tmp_path):
    path = tmp_path / "spans.json"
    code = "from seedvr2_engine.spans import span\nwith span('work'): pass"
    environment = {**os.environ, spans.VARIABLE: str(path)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    assert [span["name"] for span in json.loads(path.read_text())["spans"]] == ["work"]
    subprocess.run([sys.executable, "-c", code], env={**environment, spans.VARIABLE: str(tmp_path)}, check=True)
