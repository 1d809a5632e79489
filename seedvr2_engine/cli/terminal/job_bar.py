"""The bar of a job in units: the whole, and a line for each device where there are several."""

from __future__ import annotations

from collections.abc import Sequence

from rich.progress import BarColumn, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Column
from rich.text import Text

from .console import Bar, err
from .progress import STAGE_NAMES
from .shown import shown


class _Speed(ProgressColumn):
    def render(self, task: Task) -> Text:
        """The average since the start, without what earlier runs have done."""
        seconds, done = task.finished_time or task.elapsed, task.completed - task.fields["begun"]
        return Text(f"{done / seconds:.2f} frames/s" if done > 0 and seconds else "")


class JobBar:
    """Shows how far a job has come; use it in a `with` statement. Its methods may be called from any thread."""

    def __init__(self, name: str, devices: Sequence[str]) -> None:
        self._bar = Bar(
            TextColumn(
                "{task.description}",
                markup=False,
                table_column=Column(no_wrap=True, max_width=max(8, err.width // 4)),
            ),
            TextColumn("{task.fields[stage]:11}"),
            BarColumn(),
            TextColumn("{task.fields[count]}", table_column=Column(no_wrap=True)),
            _Speed(table_column=Column(no_wrap=True)),
            TimeRemainingColumn(table_column=Column(no_wrap=True)),
            console=err,
        )
        self._has_lines = len(devices) > 1
        self._task = self._bar.add_task(shown(name), total=None, stage="", count="", begun=0)
        self._lines: dict[str, object] = {}
        self._done: dict[str, int] = {}
        self._whole = self._frames = self._joined = 0

    def __enter__(self) -> JobBar:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Leave the bar as it is; what is printed from here on comes below it."""
        self._bar.stop()

    def begin(self, frames: int, finished: int) -> None:
        """Show how much there is to do."""
        self._frames, self._whole = frames, finished
        self._bar.update(self._task, total=frames, completed=finished, begun=finished)
        self._show("reading")

    def started(self, device: str, unit: int, units: int) -> None:
        """Show what a device is at."""
        self._done[device] = 0
        if self._has_lines:
            if device not in self._lines:
                self._lines[device] = self._bar.add_task(f"  {device}", total=None, stage="", count="", begun=0)
            self._bar.update(self._lines[device], count=f"unit {unit + 1} of {units}")  # type: ignore[arg-type]

    def advanced(self, device: str, stage: str, done: int) -> None:
        """Show that a frame has passed a stage."""
        self._done[device] = done
        if device in self._lines:
            self._bar.update(self._lines[device], stage=STAGE_NAMES[stage])  # type: ignore[arg-type]
        self._show("" if self._has_lines else STAGE_NAMES[stage])

    def finished(self, device: str, frames: int) -> None:
        """Show that a unit is done."""
        self._done[device] = 0
        self._whole += frames
        self._show("")

    def failed(self, device: str) -> None:
        """Show that what a device was at is lost."""
        self._done[device] = 0
        self._show("")

    def joined(self, frames: int) -> None:
        """Show how many frames are in the file."""
        self._joined = frames
        done = self._whole >= self._frames
        self._show("writing" if done else "")

    def _show(self, stage: str) -> None:
        done = self._whole + sum(self._done.values())
        self._bar.update(self._task, completed=done, stage=stage, count=f"{self._joined}/{self._frames} frames")
