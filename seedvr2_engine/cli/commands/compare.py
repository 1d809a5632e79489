"""`seedvr2 compare`: two clips side by side, in numbers, in a picture and on a page."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict, dataclass
from json import dumps
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from ...errors import InvalidArgumentError
from ..pages import Page, PageMedia, write_page
from ..terminal.console import err, out, warn

if TYPE_CHECKING:
    from torch import Tensor

    from ...quality.compare import ClipMeasures
    from ...video import FrameSource


@dataclass
class _Worst:
    """The pictures at the frame that is farthest from its reference."""

    frame: int = 0
    pictures: tuple[Tensor, ...] = ()


def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="A clip, a picture, a folder or pattern of pictures.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Another one of the same size; of any size with --page.")],
    reference: Annotated[
        str | None, typer.Option(help="What both are measured against; without it, A against B.")
    ] = None,
    chunk_frames: Annotated[int | None, typer.Option(help="Chunks of the upscaling, for jumps at borders.")] = None,
    overlap: Annotated[int | None, typer.Option(help="Frames that its chunks shared.")] = None,
    perceptual: Annotated[
        str, typer.Option(help="none, lpips or dists; needs the library, which may download its weights.")
    ] = "none",
    device: Annotated[str, typer.Option(help="Where perceptual distances are computed.")] = "auto",
    start: Annotated[int, typer.Option(help="Frames to skip at the start.")] = 0,
    frames: Annotated[int | None, typer.Option(help="Frames to take; all if not given.")] = None,
    picture: Annotated[
        Path | None, typer.Option(help="Write the worst frame side by side, with differences below.")
    ] = None,
    page: Page = None,
    page_media: PageMedia = "embed",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing picture or page.")] = False,
    deinterlace: Annotated[
        str, typer.Option(help="Frames are compared as stored unless this is auto, bwdif or bwdif-fields.")
    ] = "off",
    detelecine: Annotated[str, typer.Option(help="Undo 3:2 pulldown first: off, auto or on.")] = "off",
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Measure two clips: PSNR, SSIM, a perceptual distance, flicker, and jumps at chunk borders."""
    from ...device import resolve_device
    from ...page.making import PageRequest
    from ...pipeline.options import UpscaleOptions
    from ...quality.compare import ClipMeter, perceptual_distance
    from ...video import open_source

    if overlap is not None and chunk_frames is None:
        raise InvalidArgumentError("overlap: expected --chunk-frames beside it, got none; add it, or leave both out.")
    if page is not None and picture is not None:
        raise InvalidArgumentError(f"page: expected it or a picture, got {page} and {picture}; ask for one at a time.")
    plan = None
    if chunk_frames is not None:
        plan = UpscaleOptions(chunk_frames=chunk_frames, overlap=overlap).chunks(chunk_frames)
    distance = perceptual_distance(perceptual, resolve_device(device))
    request = None
    if page is not None:
        request = PageRequest(page, page_media, overwrite, plan, distance=distance)  # type: ignore[arg-type]
        request.check()
    with ExitStack() as stack:
        names = [a, b] if reference is None else [a, b, reference]
        clips = [
            stack.enter_context(
                open_source(
                    name,
                    start=start,
                    frames=frames,
                    deinterlace=deinterlace,  # type: ignore[arg-type]
                    detelecine=detelecine,  # type: ignore[arg-type]
                )
            )
            for name in names
        ]
        for clip in clips:
            for sentence in clip.info.remarks:
                err.print(sentence, markup=False)
        _check_sizes(clips, may_differ=request is not None)
        if request is not None:
            measured = write_page(clips, names, request)
            worst, whole = _Worst(measured.farthest), measured.whole
        else:
            meters = ClipMeter(distance), ClipMeter(distance)
            worst = _measure(clips, meters)
            whole = tuple(meter.measures(plan) for meter in meters)
    for clip in clips:
        for sentence in clip.warnings:
            warn(sentence)
    results = list(zip((a, b), whole, strict=True))
    if picture is not None:
        _write_picture(picture, worst, overwrite=overwrite)
    if json:
        facts = {"reference": reference, "worst_frame": start + worst.frame}
        clips_facts = [{"clip": name, **_facts(measures)} for name, measures in results]
        typer.echo(dumps({**facts, "clips": clips_facts}, indent=2))
    else:
        _print_table(results, reference, start + worst.frame)


def _check_sizes(clips: list[FrameSource], *, may_differ: bool) -> None:
    first = clips[0].info
    for other in (clip.info for clip in clips[1:]):
        if not may_differ and (other.width, other.height) != (first.width, first.height):
            raise InvalidArgumentError(
                f"{other.path}: expected {first.width}x{first.height} like {first.path}, found "
                f"{other.width}x{other.height}; bring both to one size first."
            )
    counts = [len(clip) for clip in clips]
    if len(set(counts)) > 1:
        warn(f"The clips have {', '.join(map(str, counts))} frames; the first {min(counts)} are compared.")


def _measure(clips: list[FrameSource], meters: tuple[Any, Any]) -> _Worst:
    """Pass all clips through the meters; A alone has a reference in B where there is none for both."""
    worst = _Worst()
    for index, frames in enumerate(zip(*clips, strict=False)):
        pictures = tuple(frame.rgb for frame in frames)
        first, second = pictures[:2]
        is_worst = meters[0].add(first, pictures[-1])
        meters[1].add(second, pictures[2] if len(pictures) == 3 else None)
        if is_worst or index == 0:  # Of identical clips no frame is the worst.
            worst = _Worst(index, pictures)
    return worst


def _facts(measures: ClipMeasures) -> dict[str, object]:
    facts = asdict(measures)
    quality = facts.pop("quality") or {}
    facts |= {key: value for key, value in quality.items() if key != "frames"}
    facts["worst_border_jump"] = measures.worst_border_jump
    # JSON has no infinity, which is the PSNR of identical pictures.
    return {key: None if isinstance(value, float) and not isfinite(value) else value for key, value in facts.items()}


def _print_table(results: list[tuple[str, ClipMeasures]], reference: str | None, worst: int) -> None:
    rows = []
    for name, measures in results:
        quality = measures.quality
        numbers = (
            (quality and quality.psnr_db, "{:.2f}"),
            (quality and quality.min_psnr_db, "{:.2f}"),
            (quality and quality.mean_ssim, "{:.4f}"),
            (measures.perceptual, "{:.4f}"),
            (measures.change, "{:.3f}"),
            (measures.flicker, "{:.3f}"),
            (measures.worst_border_jump, "{:.3f}"),
        )
        cells = ["" if number is None else form.format(number) for number, form in numbers]
        rows.append((Path(name).name, str(measures.frames), *cells))
    table = Table(box=None, padding=(0, 2, 0, 0))
    titles = ("clip", "frames", "PSNR dB", "worst dB", "SSIM", "distance", "change", "flicker", "border jump")
    columns = [(title, column) for title, column in zip(titles, zip(*rows, strict=True), strict=True) if any(column)]
    for title, _ in columns:
        table.add_column(title, justify="left" if title == "clip" else "right", overflow="fold")
    for row in zip(*(column for _, column in columns), strict=True):
        table.add_row(*row)
    out.print(table, markup=False)
    against = "A against B" if reference is None else f"against {reference}"
    out.print(f"{against}; A is farthest at frame {worst}", markup=False)
    out.print(
        "change: mean difference of a frame to the next; flicker: how unevenly three follow each other; in 8-bit steps",
        markup=False,
    )


def _write_picture(target: Path, worst: _Worst, *, overwrite: bool) -> None:
    """All pictures in a row, and below the eightfold differences of the first ones to the last."""
    import torch

    from ...video import SinkOptions, open_sink

    *others, last = worst.pictures
    differences = [((other - last) * 8 + 0.5).clamp(0, 1) for other in others]
    rows = [torch.cat(row, dim=2) for row in (worst.pictures, [*differences, torch.full_like(last, 0.5)])]
    sheet = torch.cat(rows, dim=1)
    options = SinkOptions(overwrite=overwrite)
    with open_sink(target, width=sheet.shape[2], height=sheet.shape[1], options=options) as sink:
        sink.write(sheet)
