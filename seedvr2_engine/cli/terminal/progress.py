"""The bar of an upscaling: the stage, the frames that are done, their speed, and the time left."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.progress import BarColumn, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Column
from rich.text import Text

from .console import Bar, err
from .shown import shown

if TYPE_CHECKING:
    from ...pipeline.clip_stages import Progress

STAGE_NAMES = {"encode": "encoding", "transform": "transformer", "decode": "decoding", "color": "colours"}


class _Frames(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.fields['frames']}/{task.total:.0f} frames")


class _Speed(ProgressColumn):
    def render(self, task: Task) -> Text:
        """The average since the start; frames come in bursts of a chunk, so a momentary speed would be wrong."""
        seconds = task.finished_time or task.elapsed
        return Text(f"{task.completed / seconds:.2f} frames/s" if task.completed and seconds else "")


class UpscaleBar:
    """Shows how far a clip has come; use it in a `with` statement. Its methods may be called from any thread."""

    def __init__(self, name: str, total: int) -> None:
        from ...pipeline.clip_stages import STAGE_SHARES

        # In a narrow terminal the bar gives way, and a long name, but no number.
        self._bar = Bar(
            TextColumn(
                "{task.description}",
                markup=False,
                table_column=Column(no_wrap=True, max_width=max(8, err.width // 4)),
            ),
            TextColumn("{task.fields[stage]:11}"),
            BarColumn(),
            _Frames(table_column=Column(no_wrap=True)),
            _Speed(table_column=Column(no_wrap=True)),
            TimeRemainingColumn(table_column=Column(no_wrap=True)),
            console=err,
        )
        self._total = total
        self._task = self._bar.add_task(shown(name), total=total, stage="reading", frames=0)
        self._shares = STAGE_SHARES
        self._passed = dict.fromkeys(STAGE_SHARES, 0)

    def __enter__(self) -> UpscaleBar:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Leave the bar as it is; what is printed from here on comes below it."""
        self._bar.stop()

    def step(self, progress: Progress) -> None:
        """Show that a stage has come so far."""
        # Frames that chunks share pass the early stages twice; the bar does not go back for that.
        self._passed[progress.stage] = max(self._passed[progress.stage], min(progress.frames, self._total))
        done = sum(self._shares[stage] * frames for stage, frames in self._passed.items())
        self._bar.update(self._task, completed=done, stage=STAGE_NAMES[progress.stage])

    def written(self, frames: int) -> None:
        """Show how many frames are in the file."""
        self._bar.update(self._task, frames=frames)
