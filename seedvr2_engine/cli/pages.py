"""Compare pages on the command line: the options, what is said before the work, and the bar."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .terminal.console import frame_progress, note, per_second, readable_size, warn

if TYPE_CHECKING:
    from ..page.data import Table
    from ..page.making import PageRequest
    from ..page.measuring import Measured
    from ..video import FrameSource
    from .upscaling.files import Job, Request, Result

PAGE_HELP = "Write a page that shows both beside each other in a browser: one HTML file that needs no network."
PAGE_MEDIA_HELP = "embed: clips go into the page; beside: into a folder of its name, for long clips."
Page = Annotated[Path | None, typer.Option(help=PAGE_HELP)]
PageMedia = Annotated[str, typer.Option(help=PAGE_MEDIA_HELP)]


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


def write_upscale_page(job: Job, request: Request, result: Result, page: PageRequest) -> None:
    """The page of an upscaling that is finished: what went in as A, what came out, as it is in the file, as B."""
    from ..pipeline.chunks import ChunkPlan
    from ..video import open_source

    made = replace(
        page,
        plan=ChunkPlan(result.chunk_frames, result.overlap) if result.frames > 1 else None,
        prepended=request.options.prepend_frames,
        tables=(_settings(request), _run(request, result)),
    )
    with request.cut.open(job.source) as source, open_source(result.output, deinterlace="off") as output:
        write_page([source, output], [job.source, str(result.output)], made)


def _settings(request: Request) -> Table:
    """What was asked for, where it is not what it is anyway; and what every upscaling has."""
    from ..page.data import Table

    always = ("color", "seed", "noise")
    rows = []
    for one in fields(request.options):
        value = getattr(request.options, one.name)
        if one.name in always or value != one.default:
            rows.append((one.name.replace("_", " ").capitalize(), str(value)))
    return Table("Settings", tuple(rows))


def _run(request: Request, result: Result) -> Table:
    from ..page.data import Table
    from ..version import __version__

    files = request.setup.files
    rows = [
        ("Transformer", files.dit.name),
        ("VAE", files.vae.name),
        ("Text", "the transformer's own" if files.text == files.dit else files.text.name),
        ("Formats", request.setup.describe()),
        ("Time", f"{result.seconds:.1f} s ({per_second(result.frames, result.seconds)})"),
    ]
    if result.frames > result.chunk_frames:
        rows.append(("Chunks", f"{result.chunk_frames} frames that share {result.overlap}"))
    return Table("Models and time", (*rows, ("Version", f"SeedVR2 Engine {__version__}")))
