"""What the command line prints: results on standard output, everything else on standard error."""

from typing import IO, cast

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from .streams import Errors

EXIT_UNTOLD = 1
"""The work is done, but standard output did not take the result."""
EXIT_BAD_INPUT = 2
EXIT_INCOMPLETE = 3
"""The output is whole, but its damaged source gave fewer frames than it promises."""
EXIT_INTERRUPTED = 130

out = Console(highlight=False, soft_wrap=True)
err = Console(file=cast(IO[str], Errors()), stderr=True, highlight=False, soft_wrap=True)
"""Nothing that is printed here fails."""


def wide() -> Console:
    """For tables on standard output: in a pipe or a file, which have no width, they get 200 columns."""
    return out if out.is_terminal else Console(file=out.file, width=200, highlight=False)


def fail(sentence: str, exit_code: int) -> int:
    """Print one sentence and give the exit code back."""
    err.print(f"[bold red]error:[/] {escape(sentence)}")
    return exit_code


def warn(sentence: str) -> None:
    """Print one sentence about something the user gets other than asked."""
    err.print(f"[yellow]warning:[/] {escape(sentence)}")


def note(sentence: str) -> None:
    """Print one sentence that the user will want to know."""
    err.print(sentence, markup=False)


class FrameRate(ProgressColumn):
    """Frames finished a second."""

    def render(self, task: Task) -> Text:
        """The average since the start; frames come in bursts of a slice, so a momentary speed would be wrong."""
        seconds = task.finished_time or task.elapsed
        return Text(f"{task.completed / seconds:.2f} frames/s" if task.completed and seconds else "")


class Bar(Progress):
    """A bar that ends once, and that leaves no empty line in a file where it showed nothing."""

    def stop(self) -> None:
        """Leave the bar as it is; what is printed from here on comes below it."""
        if not self.live.is_started:
            return
        self.live.stop()
        if not self.console.is_interactive and any(task.visible for task in self.tasks):
            self.console.print()


def frame_progress() -> Progress:
    """A bar that counts frames."""
    return Bar(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        FrameRate(),
        TimeRemainingColumn(),
        console=err,
    )


def readable_size(size_bytes: int) -> str:
    """12_345_678 -> "12.3 MB" (decimal units)."""
    size = float(size_bytes)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.2f} GB"
