"""`seedvr2 upscale` as a user runs it, timed from outside: fresh processes, with empty caches and with full ones."""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from ..errors import InvalidArgumentError
from ..spans import VARIABLE
from .split import RunTimes, Segment, run_times

Kind = Literal["cold", "warm"]


@dataclass(frozen=True)
class Command:
    """What is run again and again."""

    source: Path
    target: Path
    """Written anew by every run."""
    options: tuple[str, ...]
    """Of `seedvr2 upscale`."""

    @property
    def line(self) -> list[str]:
        """The command line; the interpreter is this process's own."""
        arguments = [str(self.source), str(self.target), *self.options, "--overwrite", "--json"]
        return [sys.executable, "-m", __package__.split(".")[0], "upscale", *arguments]


@dataclass(frozen=True)
class Series:
    """The runs of one kind."""

    kind: Kind
    """Whether each began with empty caches of kernels and choices, or with those of runs before."""
    runs: tuple[RunTimes, ...]
    timelines: tuple[tuple[Segment, ...], ...]
    """What each thread did when, for each run."""

    def summary(self, of: Callable[[list[float]], float]) -> dict[str, Any]:
        """Every figure over the runs by `of`; None where a run lacks it, and 0 for a stage that a run did not enter."""
        figures: dict[str, Any] = {}
        for field in fields(RunTimes):
            values = [getattr(run, field.name) for run in self.runs]
            if field.name == "split":
                stages = dict.fromkeys(stage for split in values for stage in split)
                figures["split"] = {stage: of([split.get(stage, 0.0) for split in values]) for stage in stages}
            else:
                figures[field.name] = None if None in values else of(values)
        return figures

    @property
    def typical(self) -> tuple[Segment, ...]:
        """The timeline of the run whose total is the median, or the one below it."""
        order = sorted(range(len(self.runs)), key=lambda index: self.runs[index].total_s)
        return self.timelines[order[(len(order) - 1) // 2]]

    def to_dict(self) -> dict[str, Any]:
        """For JSON: every run, the median and the 90th percentile."""
        return {
            "runs": [asdict(run) for run in self.runs],
            "median": self.summary(statistics.median),
            "p90": self.summary(percentile_90),
        }


def percentile_90(values: list[float]) -> float:
    """The smallest value that nine tenths of them do not exceed (nearest rank): of fewer than ten, the largest."""
    return sorted(values)[math.ceil(0.9 * len(values)) - 1]


def run_series(command: Command, kind: Kind, runs: int) -> Iterator[Series]:
    """Run the command so often and give the series as it grows.

    cold: every run has cache folders of its own, empty at its start. warm: all share one, which a run that is not
    counted has filled. Raises InvalidArgumentError where a run does not end well.
    """
    times: list[RunTimes] = []
    timelines: list[tuple[Segment, ...]] = []
    with _cache() as shared:
        if kind == "warm":
            run_once(command, shared)
        for _ in range(runs):
            with _cache() as own:
                run, segments = run_once(command, shared if kind == "warm" else own)
            times.append(run)
            timelines.append(tuple(segments))
            yield Series(kind, tuple(times), tuple(timelines))


def run_once(command: Command, cache: Path) -> tuple[RunTimes, list[Segment]]:
    """One run in a process of its own, whose caches are in this folder."""
    recorded = cache / "spans.json"
    # Triton's kernels, the driver's, and the choices of the accuracy check; the files of models are named by path.
    caches = {
        "TRITON_CACHE_DIR": "triton",
        "CUDA_CACHE_PATH": "cuda",
        "XDG_CACHE_HOME": "user",
        "LOCALAPPDATA": "user",
    }
    environment = {**os.environ, **{name: str(cache / folder) for name, folder in caches.items()}}
    environment[VARIABLE] = str(recorded)
    began = time.time()
    result = subprocess.run(command.line, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    ended = time.time()
    if result.returncode:
        said = result.stderr.strip().splitlines()
        raise InvalidArgumentError(
            f"bench file: expected `seedvr2 upscale` to end well, got exit code {result.returncode} "
            f"({said[-1] if said else 'it said nothing'}); mend that first."
        )
    spans = json.loads(recorded.read_text())["spans"]
    return run_times(spans, began, ended, json.loads(result.stdout))


@contextmanager
def _cache() -> Iterator[Path]:
    with TemporaryDirectory(prefix="seedvr2-bench-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def described(options: Sequence[str]) -> str:
    """The command as a user would type it."""
    return " ".join(("seedvr2", "upscale", "IN", "OUT", *options))
