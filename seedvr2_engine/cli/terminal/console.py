"""What the command line prints: results on standard output, everything else on standard error."""

from collections.abc import Iterable
from typing import IO, Any, cast

from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.segment import Segment
from rich.text import Text

from .shown import shown
from .streams import Errors

EXIT_UNTOLD = 1
"""The work is done, but standard output did not take the result."""
EXIT_UNEXPECTED = 1
"""A fault of this program."""
EXIT_BAD_INPUT = 2
EXIT_INCOMPLETE = 3
"""The output is whole, but its damaged source gave fewer frames than it promises."""
EXIT_INTERRUPTED = 130


class SafeConsole(Console):
    """A console that shows text as it is: no markup, no emoji codes, and nothing that a terminal would obey.

    File names and what is in files are anybody's. Rich's own cursor movements pass as they are.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(highlight=False, markup=False, emoji=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """As the base class does it, made safe before anything is measured."""
        return super().render_str(shown(text, keep="\n"), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Segments as the base class makes them, their text made safe; line breaks are the layout's."""
        for segment in super().render(renderable, options):
            text = segment.text
            safe = segment.control is not None or (text.isascii() and text.isprintable()) or text == "\n"
            yield segment if safe else Segment(shown(text, keep="\n"), segment.style)


out = SafeConsole(soft_wrap=True)
err = SafeConsole(file=cast(IO[str], Errors()), stderr=True, soft_wrap=True)
"""Nothing that is printed here fails."""


def wide() -> Console:
    """For tables on standard output: in a pipe or a file, which have no width, they get 200 columns."""
    return out if out.is_terminal else SafeConsole(file=out.file, width=200)


def fail(sentence: str, exit_code: int) -> int:
    """Print one sentence and give the exit code back."""
    err.print(Text.assemble(("error:", "bold red"), f" {shown(sentence)}"))
    return exit_code


def warn(sentence: str) -> None:
    """Print one sentence about something the user gets other than asked."""
    err.print(Text.assemble(("warning:", "yellow"), f" {shown(sentence)}"))


def per_second(count: int, seconds: float) -> str:
    """A rate for people; clocks that stood still give none."""
    return f"{count / seconds:.2f} a second" if seconds > 0 else "too short to measure"


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
        TextColumn("{task.description}", markup=False),
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
