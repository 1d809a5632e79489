"""What the spans of a run come to: seconds of each stage, and how long the GPU worked."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

GPU = "GPU"
"""The name under which a GPU's queue stands among the threads."""
GPU_STAGES = ("encode", "transformer", "decode", "colour")
"""What a GPU computes; in other spans its queue only waits, or copies."""
STAGES = (
    "start",
    "imports",
    "headers",
    "opening",
    "weights",
    "engine",
    "compiling",
    "kernels found",
    "accuracy check",
    "reading",
    *GPU_STAGES,
    "to host",
    "host",
    "codec",
    "finishing",
    "end",
)
"""The rows of the split, in the order of a run; `start` and `end` are the interpreter's."""
_FRAME = "writing"


@dataclass(frozen=True)
class Segment:
    """A stretch of time in which a thread was in one span and in none inside it."""

    name: str
    thread: str
    begin: float
    """Seconds since the process was started."""
    end: float

    @property
    def seconds(self) -> float:
        """Its length."""
        return self.end - self.begin


@dataclass(frozen=True)
class RunTimes:
    """What one run of the command took; seconds count from the start of its process."""

    total_s: float
    """Until the process was gone."""
    first_frame_s: float
    """Until the encoder had the first frame."""
    loop_s: float
    """From the first frame that is read to the last that is written, as the command's own summary has it."""
    steady_frames_per_s: float | None
    """Of the frames behind the first chunk; None where a clip has fewer of them than that chunk."""
    gpu_share: float | None
    """Of the whole run, in which the GPU had work of some stage; None without a GPU."""
    gpu_steady_share: float | None
    """Of the time of the steady frames."""
    split: dict[str, float]
    """Seconds in which at least one thread was in the stage itself; threads overlap, so the sum may be more."""


def segments_of(spans: Iterable[Mapping[str, Any]], began: float) -> list[Segment]:
    """What every thread, and the GPU, was in itself; began: when the process was started, seconds since 1970."""
    threads: dict[str, list[tuple[float, float, str]]] = defaultdict(list)
    for span in spans:
        threads[span["thread"]].append((span["begin"] - began, span["end"] - began, span["name"]))
        if "gpu_begin" in span:
            threads[GPU].append((span["gpu_begin"] - began, span["gpu_end"] - began, span["name"]))
    return [segment for thread, found in threads.items() for segment in _own(thread, found)]


def _own(thread: str, spans: list[tuple[float, float, str]]) -> list[Segment]:
    """Each moment given to the innermost span of a thread."""
    own: list[Segment] = []
    open_spans: list[tuple[float, str]] = []  # (end, name), the innermost last
    at = 0.0

    def advance(to: float) -> None:
        nonlocal at
        if open_spans and to > at:
            own.append(Segment(open_spans[-1][1], thread, at, to))
        at = max(at, to)

    for begin, end, name in sorted(spans, key=lambda span: (span[0], -span[1])):
        while open_spans and open_spans[-1][0] <= begin:
            advance(open_spans[-1][0])
            open_spans.pop()
        advance(begin)
        open_spans.append((min(end, open_spans[-1][0]) if open_spans else end, name))
    while open_spans:
        advance(open_spans[-1][0])
        open_spans.pop()
    return own


def covered_seconds(segments: Iterable[Segment], begin: float = 0.0, end: float = float("inf")) -> float:
    """How much of a stretch of time the segments cover, each moment counted once."""
    covered, reached = 0.0, begin
    for segment in sorted(segments, key=lambda segment: segment.begin):
        first, last = max(segment.begin, reached), min(segment.end, end)
        covered += max(0.0, last - first)
        reached = max(reached, last)
    return covered


def run_times(
    spans: Iterable[Mapping[str, Any]], began: float, ended: float, summary: Mapping[str, Any]
) -> tuple[RunTimes, list[Segment]]:
    """The figures of a run, and the segments they come from.

    began, ended: of its process, seconds since 1970. summary: what `seedvr2 upscale --json` printed.
    """
    spans = list(spans)
    segments, total = segments_of(spans, began), ended - began
    hosts = [segment for segment in segments if segment.thread != GPU]
    own: dict[str, list[Segment]] = defaultdict(list)
    for segment in hosts:
        own[segment.name].append(segment)
    own["start"] = [Segment("start", "MainThread", 0.0, min(segment.begin for segment in hosts))]
    own["end"] = [Segment("end", "MainThread", max(segment.end for segment in hosts), total)]
    written = sorted(span["end"] - began for span in spans if span["name"] == _FRAME)
    gpu = [segment for segment in segments if segment.thread == GPU and segment.name in GPU_STAGES]
    first = summary["chunk_frames"] - summary["overlap"]
    is_steady = len(written) >= 2 * first
    steady_s = written[-1] - written[first - 1] if is_steady else 0.0
    times = RunTimes(
        total_s=total,
        first_frame_s=written[0],
        loop_s=summary["seconds"],
        steady_frames_per_s=(len(written) - first) / steady_s if is_steady else None,
        gpu_share=covered_seconds(gpu) / total if gpu else None,
        gpu_steady_share=covered_seconds(gpu, written[first - 1], written[-1]) / steady_s
        if gpu and is_steady
        else None,
        split={name: covered_seconds(own[name]) for name in STAGES if name in own},
    )
    return times, [*own["start"], *segments, *own["end"]]
