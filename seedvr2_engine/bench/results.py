"""Results with what they were obtained with, as a JSON file and as a plot."""

import json
import math
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol

from ..doctor.machine import Installation
from ..errors import InvalidArgumentError, OutputError
from ..output.unfinished import write_whole
from .vae import REFERENCE, Row


@dataclass(frozen=True)
class Results:
    """All rows of one run."""

    machine: Installation
    """GPU, driver and versions."""
    date: str
    """When, UTC."""
    commit: str
    """Of the source, with `+` for uncommitted changes; `unknown` outside a repository."""
    weights: str
    """Which file, or that they are random."""
    matrix_tflops: dict[str, float | None]
    """Rate of an 8192-cubed matrix product by format, measured in the same process."""
    rows: tuple[Row, ...]
    """What was measured."""

    @property
    def file_stem(self) -> str:
        """`vae-DATE-GPU`, without characters that a file system minds."""
        return self.machine.file_stem("vae", self.date)

    def to_json(self) -> str:
        """Everything."""
        return json.dumps(_finite(asdict(self)), indent=1) + "\n"

    def draw(self) -> bytes:
        """Frames a second by work and format, as a PNG."""
        return _plot(self)


def now() -> str:
    """The date and time, UTC, to the second."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def source_commit() -> str:
    """The commit of the repository that this package lies in."""
    here = Path(__file__).parent
    try:
        commands = (["git", "rev-parse", "--short=12", "HEAD"], ["git", "status", "--porcelain", "--", "."])
        commit, changes = (
            subprocess.run(command, cwd=here, capture_output=True, text=True, timeout=20, check=True).stdout.strip()
            for command in commands
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return f"{commit}{'+' if changes else ''}"


class Written(Protocol):
    """Results that go into files."""

    @property
    def file_stem(self) -> str:
        """The files' name without its ending."""

    def to_json(self) -> str:
        """Everything."""

    def draw(self) -> bytes:
        """A PNG; raises InvalidArgumentError without matplotlib."""


def write_results(results: Written, folder: Path, *, plot: bool) -> list[Path]:
    """Write `<stem>.json` and, if wanted, `<stem>.png` into a folder; returns their paths.

    Raises OutputError if one exists already, InvalidArgumentError if a plot is wanted without matplotlib.
    """
    paths = [folder / f"{results.file_stem}.json"]
    if plot:
        paths.append(folder / f"{results.file_stem}.png")
    for path in paths:
        if path.exists():
            raise OutputError(f"{path}: exists already; wait a minute or name another folder.")
    folder.mkdir(parents=True, exist_ok=True)
    if plot:
        write_whole(paths[1], results.draw(), overwrite=False)
    write_whole(paths[0], results.to_json().encode(), overwrite=False)
    return paths


def require_matplotlib() -> None:
    """Raise InvalidArgumentError where plots cannot be drawn."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise InvalidArgumentError(
            "plot: matplotlib is not installed; `pip install matplotlib`, or leave --plot out."
        ) from error


def _plot(results: Results) -> bytes:
    require_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    timed = [row for row in results.rows if row.frames_per_s is not None]
    cases = list(dict.fromkeys(row.case.name for row in timed))
    formats = list(dict.fromkeys(row.precision for row in timed))
    figure = Figure(figsize=(2.5 + 2.2 * max(len(cases), 1), 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    width = 0.8 / max(len(formats), 1)
    for index, format in enumerate(formats):
        rows = [row for row in timed if row.precision == format]
        places = [cases.index(row.case.name) + (index - (len(formats) - 1) / 2) * width for row in rows]
        color = "#9a9a9a" if format == REFERENCE else None
        bars = axes.bar(places, [row.frames_per_s or 0 for row in rows], width * 0.92, label=format, color=color)
        axes.bar_label(bars, [f"{row.ms:.0f} ms" for row in rows], fontsize=7, padding=2)
    axes.set_xticks(range(len(cases)), cases, fontsize=8)
    axes.set_ylabel("frames a second")
    gpu = results.machine.gpu.name if results.machine.gpu is not None else "CPU"
    axes.set_title(
        f"SeedVR2 VAE on {gpu}, {results.weights} weights\nPyTorch {results.machine.torch}, Triton "
        f"{results.machine.triton}, commit {results.commit}, {results.date[:10]}",
        fontsize=9,
    )
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    picture = BytesIO()
    figure.savefig(picture, format="png", dpi=150)
    return picture.getvalue()


def _finite(value: Any) -> Any:
    """JSON has no infinity, which is the PSNR of identical pictures."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
