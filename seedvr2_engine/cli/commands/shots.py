"""`seedvr2 shots`: where the shots of a clip begin, in a table, as JSON and as contact sheets."""

from __future__ import annotations

from collections.abc import Iterator
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from ...errors import OutputError
from ...jobs.cut import Cut
from ..arguments import parse_rate
from ..terminal.console import err, frame_progress, out, wide
from ..terminal.shown import shown
from ..upscaling.told import Told

if TYPE_CHECKING:
    from ...jobs.shot import Shot
    from ...video import CodedFrame, Frame, FrameSource, SourceInfo


def shots(
    source: Annotated[str, typer.Argument(metavar="IN", help="A clip, a folder or pattern of pictures.")],
    json: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|-", help="Write them as JSON, which `upscale --shots` takes; -: to standard output."
        ),
    ] = None,
    picture: Annotated[
        Path | None, typer.Option(help="Write a contact sheet, .png; -2.png, -3.png and so on for long clips.")
    ] = None,
    listed: Annotated[
        str, typer.Option("--shots", metavar="auto|FILE", help="Show the shots of a list instead of finding them.")
    ] = "auto",
    start: Annotated[int, typer.Option(help="Frames to skip at the start.")] = 0,
    frames: Annotated[int | None, typer.Option(help="Frames to take; all if not given.")] = None,
    keep_damaged: Annotated[
        bool, typer.Option("--keep-damaged", help="Take what can be read of a damaged or truncated clip.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing files.")] = False,
    rate: Annotated[str | None, typer.Option(help="Frames per second of a picture sequence; 24 if not given.")] = None,
    deinterlace: Annotated[str, typer.Option(help="auto, off, bwdif or bwdif-fields.")] = "auto",
    detelecine: Annotated[str, typer.Option(help="Undo 3:2 pulldown: auto, off or on.")] = "auto",
) -> None:
    """Find where shots begin: cuts and fades, told from flashes, dissolves and motion."""
    from ...jobs.shots.choice import parse_choice, shots_of
    from ...jobs.shots.listed import facts
    from ...output.unfinished import check_target, write_whole

    cut = Cut(
        start=start,
        frames=frames,
        damaged="keep" if keep_damaged else "refuse",
        rate=None if rate is None else parse_rate(rate),
        deinterlace=deinterlace,  # type: ignore[arg-type]
        detelecine=detelecine,  # type: ignore[arg-type]
    )
    choice = parse_choice(listed)
    if picture is not None:
        if picture.suffix.lower() != ".png":
            raise OutputError(f"{picture}: expected a name that ends in .png, which contact sheets are; rename it.")
        check_target(picture, overwrite=overwrite)
    if json not in (None, "-"):
        check_target(Path(json), overwrite=overwrite)
    with cut.open(source) as clip:
        info = clip.info
        for sentence in info.remarks:
            err.print(sentence, markup=False)
        told = Told(clip)
        told.tell()
        with frame_progress() as bar:
            task = bar.add_task("shots", total=len(clip), visible=choice == "auto")
            found = shots_of(clip, choice, lambda count: bar.update(task, completed=count))
        told.tell()
    text = dumps(facts(found, info), indent=2)
    if json == "-":
        typer.echo(text)
    else:
        _print_table(found, info)
    if json not in (None, "-"):
        write_whole(Path(json), f"{text}\n".encode(), overwrite=overwrite)
        err.print(f"{shown(json)}: {_counted(len(found), 'shot')}", markup=False)
    if picture is not None:
        with cut.open(source) as clip:
            _draw(picture, clip, found, overwrite=overwrite)


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'s' if count != 1 else ''}"


def _time(frame: int, info: SourceInfo) -> str:
    """When a frame of the whole source is shown, where that follows from its number: 0:01:02.500."""
    if not info.average_rate or info.variable_rate:
        return ""
    total_ms = round(frame / info.average_rate * 1000)
    minutes, ms = divmod(total_ms, 60_000)
    return f"{minutes // 60}:{minutes % 60:02}:{ms // 1000:02}.{ms % 1000:03}"


def _print_table(found: tuple[Shot, ...], info: SourceInfo) -> None:
    table = Table("shot", "first frame", "time", "frames", "begins with", box=None, padding=(0, 2, 0, 0))
    for column in table.columns[:4]:
        column.justify = "right"
    for number, shot in enumerate(found, 1):
        first = info.first_frame + shot.start
        table.add_row(str(number), str(first), _time(first, info), str(len(shot)), _BEGINS[shot.border])
    wide().print(table)
    out.print(f"{_counted(len(found), 'shot')}, {_counted(info.selected_frames, 'frame')}", markup=False)


_BEGINS = {"start": "the clip", "cut": "a cut", "fade": "a fade", "given": "the list"}


def _draw(target: Path, clip: FrameSource, found: tuple[Shot, ...], *, overwrite: bool) -> None:
    from ...jobs.shots.sheet import ContactSheet
    from ...output.unfinished import check_target, write_whole

    info = clip.info
    labels = []
    for number, shot in enumerate(found, 1):
        first = info.first_frame + shot.start
        time = _time(first, info)
        labels.append(f"{number}   frame {first}{'   ' + time if time else ''}   {_counted(len(shot), 'frame')}")
    sheet = ContactSheet(found, tuple(labels))
    names = [target, *(target.with_name(f"{target.stem}-{page}{target.suffix}") for page in range(2, sheet.pages + 1))]
    for name in names:
        check_target(name, overwrite=overwrite)
    with frame_progress() as bar:
        task = bar.add_task("contact sheet", total=len(clip))

        def counted() -> Iterator[Frame | CodedFrame]:
            for frame in clip.coded():
                bar.advance(task)
                yield frame

        # Without those that a damaged clip leaves nothing for.
        for name, data in zip(names, sheet.draw(counted()), strict=False):
            write_whole(name, data, overwrite=overwrite)
    several = f" to {shown(names[-1].name)}" if len(names) > 1 else ""
    err.print(f"{shown(str(target))}{several}: {_counted(len(found), 'shot')}", markup=False)
