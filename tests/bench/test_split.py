"""What the spans of a run come to."""

import pytest

from seedvr2_engine.bench.split import Segment, covered_seconds, run_times, segments_of
from seedvr2_engine.bench.whole_command import Series, percentile_90

START = 1000.0


def span(name, begin, end, thread="MainThread", gpu=None):
    found = {"name": name, "thread": thread, "begin": START + begin, "end": START + end}
    return found if gpu is None else {**found, "gpu_begin": START + gpu[0], "gpu_end": START + gpu[1]}


def own(spans, thread="MainThread"):
    found = [segment for segment in segments_of(spans, START) if segment.thread == thread]
    return [(segment.name, round(segment.begin, 6), round(segment.end, 6)) for segment in found]


def test_each_moment_belongs_to_the_innermost_span():
    spans = [span("inner", 2, 3), span("inner", 4, 5), span("innermost", 4.2, 4.4), span("outer", 1, 6)]
    assert own(spans) == [
        ("outer", 1, 2),
        ("inner", 2, 3),
        ("outer", 3, 4),
        ("inner", 4, 4.2),
        ("innermost", 4.2, 4.4),
        ("inner", 4.4, 5),
        ("outer", 5, 6),
    ]


def test_spans_of_other_threads_and_later_ones_stay_apart():
    spans = [span("a", 1, 2), span("b", 1.5, 3, "reading"), span("c", 2, 4)]
    assert own(spans) == [("a", 1, 2), ("c", 2, 4)]
    assert own(spans, "reading") == [("b", 1.5, 3)]


def test_a_moment_counts_once_however_many_threads_were_in_it():
    parts = [Segment("compiling", thread, *times) for thread, *times in (("a", 1, 3), ("b", 2, 5), ("c", 7, 8))]
    assert covered_seconds(parts) == 5
    assert covered_seconds(parts, 2.5, 7.5) == 3


def a_run(frames=12, chunk=4, *, gpu=True):
    """A frame a second from the fourth second on, the GPU at work for half of each."""
    spans = [span("imports", 0.5, 1)]
    for index in range(frames):
        at = 4 + index
        spans.append(span("writing", at + 0.8, at + 1))
        times = (at + 0.25, at + 0.75) if gpu else None
        spans.append(span("decode", at, at + 0.5, "computing", gpu=times))
        spans.append(span("waiting", at + 0.5, at + 0.9, "computing", gpu=(at + 0.75, at + 1) if gpu else None))
    summary = {"chunk_frames": chunk, "overlap": 1, "seconds": 12.5}
    return run_times(spans, START, START + 20, summary)[0]


def test_the_figures_of_a_run():
    run = a_run()
    assert (run.total_s, run.loop_s) == (20, 12.5)
    assert run.first_frame_s == pytest.approx(5)
    assert run.steady_frames_per_s == pytest.approx(1)
    assert run.gpu_share == pytest.approx(12 * 0.5 / 20)
    assert run.gpu_steady_share == pytest.approx(0.5)
    assert run.split == pytest.approx({"start": 0.5, "imports": 0.5, "decode": 6, "end": 4})


def test_a_clip_of_one_chunk_has_no_steady_rate():
    run = a_run(frames=5, chunk=5)
    assert run.steady_frames_per_s is None
    assert run.gpu_steady_share is None


def test_without_a_gpu_its_share_is_left_out():
    run = a_run(gpu=False)
    assert run.gpu_share is None
    assert run.steady_frames_per_s is not None


def test_the_summary_of_a_series():
    assert percentile_90([3.0, 1.0, 2.0]) == 3
    assert percentile_90([float(number) for number in range(1, 21)]) == 18
    series = Series("warm", (a_run(), a_run(frames=5, chunk=5)), ((), ()))
    whole = series.to_dict()
    assert whole["median"]["total_s"] == 20
    assert whole["median"]["steady_frames_per_s"] is None
    assert whole["median"]["split"]["decode"] == pytest.approx((6 + 2.5) / 2)
    assert whole["p90"]["split"]["decode"] == pytest.approx(6)
