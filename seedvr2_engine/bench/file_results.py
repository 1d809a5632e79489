"""The results of `seedvr2 bench file`: as JSON, and as a picture of what every thread did when."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from io import BytesIO
from typing import Any

from ..doctor.machine import Installation
from .results import require_matplotlib
from .split import GPU, STAGES, Segment
from .whole_command import Series

_SHORTEST_SHARE = 1 / 2000
"""Segments shorter than this share of a run are drawn together with the next one like them."""


@dataclass(frozen=True)
class FileResults:
    """All runs of one command, and what they were obtained with."""

    command: str
    """What was run, with the names of the files left out."""
    clip: str
    """What it read: sizes and frames, or the name of a file."""
    frames: int
    """Frames of the output."""
    size: tuple[int, int]
    """(width, height) of the output in pixels."""
    machine: Installation
    """GPU, driver and versions."""
    date: str
    """When, UTC."""
    commit: str
    """Of the source."""
    series: tuple[Series, ...]
    """Cold, warm, or both."""

    @property
    def file_stem(self) -> str:
        """`file-DATE-GPU`, without characters that a file system minds."""
        return self.machine.file_stem("file", self.date)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the timelines."""
        return {
            "command": self.command,
            "clip": self.clip,
            "frames": self.frames,
            "size": list(self.size),
            "machine": asdict(self.machine),
            "date": self.date,
            "commit": self.commit,
            "warm_up": "cold: none; warm: one run that is not counted",
            **{series.kind: series.to_dict() for series in self.series},
        }

    def to_json(self) -> str:
        """The same as text."""
        return json.dumps(self.to_dict(), indent=1) + "\n"

    def draw(self) -> bytes:
        """The timeline as a PNG."""
        return draw_timeline(self)


def draw_timeline(results: FileResults) -> bytes:
    """A PNG: for the typical run of each series a bar for every thread and the GPU, coloured by stage."""
    require_matplotlib()
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = [stage for stage in STAGES if any(stage in run.split for series in results.series for run in series.runs)]
    palette = colormaps["tab20"]
    color = {stage: palette(index % 20) for index, stage in enumerate(shown)}
    lanes = [lanes_of(series.typical) for series in results.series]
    figure = Figure(figsize=(11, 1.4 + sum(0.7 + 0.32 * len(rows) for rows in lanes)), layout="constrained")
    FigureCanvasAgg(figure)
    plots = figure.subplots(len(lanes), 1, squeeze=False, height_ratios=[2 + len(rows) for rows in lanes])[:, 0]
    for axes, series, rows in zip(plots, results.series, lanes, strict=True):
        for row, segments in enumerate(rows.values()):
            for stage in shown:
                bars = [(part.begin, part.seconds) for part in segments if part.name == stage]
                if bars:
                    axes.broken_barh(bars, (row - 0.4, 0.8), facecolors=color[stage], label=stage)
        axes.set_yticks(range(len(rows)), list(rows), fontsize=8)
        axes.invert_yaxis()
        axes.set_xlim(left=0)
        axes.set_title(f"{series.kind}, seconds", loc="left", fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
    found = {label: bar for axes in plots for bar, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    names = [stage for stage in shown if stage in found]
    figure.legend(
        [found[name] for name in names], names, loc="outside lower center", ncols=8, fontsize=8, frameon=False
    )
    gpu = results.machine.gpu.name if results.machine.gpu is not None else "CPU"
    figure.suptitle(
        f"{results.command}\n{results.clip} on {gpu}, commit {results.commit}, {results.date[:10]}", fontsize=9
    )
    picture = BytesIO()
    figure.savefig(picture, format="png", dpi=150)
    return picture.getvalue()


def lanes_of(segments: Sequence[Segment]) -> dict[str, list[Segment]]:
    """The segments of each thread in the order of their starts; threads of a pool share a lane, the GPU is the last.

    What is shorter than a pixel is joined with its like, or a picture would have as many bars as a clip has frames.
    """
    shortest = _SHORTEST_SHARE * max((segment.end for segment in segments), default=0.0)
    lanes: dict[str, list[Segment]] = {}
    for segment in sorted(segments, key=lambda segment: segment.begin):
        thread = "main" if segment.thread == "MainThread" else segment.thread
        lane = lanes.setdefault("compilers" if thread.startswith("ThreadPool") else thread, [])
        last = next((part for part in reversed(lane[-4:]) if part.name == segment.name), None)
        if last is not None and segment.begin - last.end < shortest:
            lane[lane.index(last)] = Segment(last.name, last.thread, last.begin, max(last.end, segment.end))
        else:
            lane.append(segment)
    if GPU in lanes:
        lanes[GPU] = lanes.pop(GPU)
    return lanes
