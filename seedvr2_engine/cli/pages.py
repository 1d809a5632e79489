"""Compare pages on the command line: the options, what is said before the work, and the bar."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .terminal.console import frame_progress, note, readable_size, warn

if TYPE_CHECKING:
    from ..page.making import PageRequest
    from ..page.measuring import Measured
    from ..video import FrameSource

Page = Annotated[
    Path | None, typer.Option(help="Write a page that shows both in a browser: one HTML file without network.")
]
PageMedia = Annotated[
    str, typer.Option(help="embed: clips go into the page; beside: into a folder of its name, for long clips.")
]


def write_page(clips: list[FrameSource], names: list[str], request: PageRequest) -> Measured:
    """Measure opened clips and write their page, with a bar; a page that will be large is said to be so first."""
    from ..page.making import make_page, size_warning

    if sentence := size_warning(clips, request):
        warn(sentence)
    with frame_progress() as bar:
        task = bar.add_task("measuring", total=min(map(len, clips)))
        measured = make_page(clips, names, request, lambda _: bar.advance(task))
    note(f"{request.target}: {readable_size(request.target.stat().st_size)}, opens in any browser")
    return measured
