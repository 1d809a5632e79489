"""A page from files: opened clips are measured, what browsers cannot show gets a proxy, and all goes into one file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from shutil import copyfileobj, rmtree
from typing import TYPE_CHECKING, Literal
from urllib.parse import quote

from ..errors import InvalidArgumentError, OutputError
from ..output.signals import held_signals
from ..output.unfinished import PartialFile, check_target, new_folder, system_errors
from ..pipeline.chunks import chunk_spans
from ..video.color_tags import ColorTags
from .data import Mark, Media, PageData, Side, Table, largest
from .document import document
from .measuring import Distance, Measured, border_marks, curves_of, measure, summary_of, thumbnails_of
from .media import DEFAULT_RATE, MediaMaker

if TYPE_CHECKING:
    from torch import Tensor

    from ..pipeline.chunks import ChunkPlan
    from ..video import FrameSource, SourceInfo

MediaChoice = Literal["embed", "beside"]
"""embed: everything in the page's own file. beside: clips and pictures in a folder of the page's name beside it."""
_BADGES = ("A", "B", "R")
_MUCH_BYTES = 200_000_000
"""What a page can embed and still open at once, and be sent to somebody."""
_BITS_PER_PIXEL = 1.0
"""Of a proxy of filmed clips, about; only for a warning."""


@dataclass(frozen=True)
class PageRequest:
    """What a page is to be."""

    target: Path
    media: MediaChoice = "embed"
    overwrite: bool = False
    plan: ChunkPlan | None = None
    """How the upscaling cut the clip; for the jumps at its borders."""
    prepended: int = 0
    """Frames before the first one that the chunks were cut with, and that are not in the clips."""
    distance: Distance | None = None
    tables: tuple[Table, ...] = ()
    marks: tuple[Mark, ...] = ()
    """Shots and units, where they are known."""
    remarks: tuple[str, ...] = ()

    def check(self) -> None:
        """Raise InvalidArgumentError or OutputError where the page could not be written, before any work."""
        if self.media not in ("embed", "beside"):
            raise InvalidArgumentError(f"page media: expected embed or beside, got {self.media!r}.")
        if self.target.suffix.lower() not in (".html", ".htm"):
            raise InvalidArgumentError(f"{self.target}: expected a name that ends in .html; choose such a name.")
        check_target(self.target, overwrite=self.overwrite)
        if self.media == "beside" and (self.folder.is_symlink() or self.folder.exists()) and not self.overwrite:
            raise OutputError(
                f"{self.folder}: it exists already, and the page's media go there; choose another name, or ask to "
                "overwrite it (--overwrite)."
            )

    @property
    def folder(self) -> Path:
        """Where media beside the page lie."""
        return self.target.with_name(f"{self.target.stem}-media")


def size_warning(clips: Iterable[FrameSource], request: PageRequest) -> str | None:
    """A sentence for pages that will be too large to open at once; None for others, or with media beside them."""
    about = 0
    for clip in clips:
        info = clip.info
        is_whole = info.kind == "video" and info.path.is_file() and not info.is_trimmed_at_end
        stored = info.path.stat().st_size if is_whole else 0
        about += max(stored, round(len(clip) * info.width * info.height * _BITS_PER_PIXEL / 8))
    if request.media == "beside" or about < _MUCH_BYTES:
        return None
    return (
        f"{request.target}: about {about / 1e6:.0f} MB of clips go into this page, which makes it slow to open; "
        "--page-media beside puts them into a folder, --start and --frames take a part."
    )


def make_page(
    clips: list[FrameSource], names: list[str], request: PageRequest, step: Callable[[int], object] = lambda _: None
) -> Measured:
    """Measure opened clips, A, B and perhaps a reference, and write the page; step gets the number of every frame.

    Clips of different sizes are compared in the larger one's. Raises OutputError where it cannot be written; then
    nothing is left behind.
    """
    request.check()
    frames = min(map(len, clips))
    size = largest([(clip.info.width, clip.info.height) for clip in clips[:2]])
    with ExitStack() as stack:
        folder = stack.enter_context(_made_folder(request.target))
        makers = [
            stack.enter_context(MediaMaker(clip, badge, folder, is_shorter=len(clip) > frames))
            for clip, badge in zip(clips, _BADGES, strict=False)
        ]
        streams = [_passed(clip, maker) for clip, maker in zip(clips, makers, strict=True)]
        measured = measure(streams, (size[1], size[0]), frames, request.plan, request.distance, step)
        media = [maker.finish() for maker in makers]
        data = _data(clips, names, media, measured, request)
        _write(data, request)
    return measured


def _passed(clip: FrameSource, maker: MediaMaker) -> Iterator[Tensor]:
    for frame in clip:
        maker.add(frame.rgb)
        yield frame.rgb


def _data(
    clips: list[FrameSource], names: list[str], media: list[Media], measured: Measured, request: PageRequest
) -> PageData:
    infos = [clip.info for clip in clips]
    sides = tuple(
        Side(badge, name, (info.width, info.height), one, _facts(info))
        for badge, name, info, one in zip(_BADGES, names, infos, media, strict=False)
    )
    count = len(measured.frames)
    borders: tuple[Mark, ...] = ()
    if request.plan is not None:
        spans = list(chunk_spans(count + request.prepended, request.plan))[1:]
        starts = [span.start - request.prepended for span in spans if span.start > request.prepended]
        borders = border_marks(measured, starts)
    sizes = {(info.width, info.height) for info in infos}
    remarks = list(request.remarks)
    if len(sizes) > 1:
        width, height = largest([side.size_px for side in sides[:2]])
        remarks.append(f"Sizes differ: numbers are of all at {width}x{height}, the others enlarged bicubically.")
    counts = {len(clip) for clip in clips}
    if len(counts) > 1:
        remarks.append(f"Lengths differ: the first {count} frames are compared.")
    remarks += [
        f"{side.badge} is {side.media.note}; numbers are of the file itself." for side in sides if side.media.note
    ]
    return PageData(
        sides=sides,
        frames=count,
        first_frame=infos[0].first_frame,
        rate=(infos[1].average_rate or DEFAULT_RATE) if count > 1 else None,
        against="A and B against the reference R" if len(sides) == 3 else "A against B",
        curves=curves_of(measured),
        marks=(*borders, *request.marks),
        worst=thumbnails_of(measured),
        summary=summary_of(measured),
        tables=request.tables,
        remarks=tuple(remarks),
    )


def _facts(info: SourceInfo) -> tuple[tuple[str, str], ...]:
    rows = [("Size", f"{info.width} × {info.height}"), ("Codec", f"{info.codec}, {info.pix_fmt}")]
    if info.average_rate is not None and info.frame_count > 1:
        uneven = ", uneven" if info.variable_rate else ""
        rows.append(("Rate", f"{float(info.average_rate):.6g} a second{uneven}"))
        last = info.first_frame + info.selected_frames - 1
        is_part = info.is_trimmed_at_start or info.is_trimmed_at_end
        rows.append(("Frames", f"{info.first_frame} to {last} of " * is_part + f"{info.frame_count}"))
    rows.append(("Colours", "not said in the file" if info.color == ColorTags() else info.color.describe()))
    return (*rows, ("File", str(info.path)))


@contextmanager
def _made_folder(target: Path) -> Iterator[Path]:
    """A folder beside the target for what is made on the way, gone in the end."""
    with system_errors(target):
        folder = new_folder(target)
    try:
        yield folder
    finally:
        rmtree(folder, ignore_errors=True)


def _write(data: PageData, request: PageRequest) -> None:
    target, sources = request.target, ""
    with (
        held_signals(),
        PartialFile(target, overwrite=request.overwrite) as file,
        _media_folder(request) as folder,
        system_errors(target),
    ):
        if folder is not None:
            data = replace(data, sides=tuple(_beside(side, folder, request) for side in data.sides))
            sources = "'self' file:"
        for piece in document(data, media_sources=sources):
            file.write(piece)


@contextmanager
def _media_folder(request: PageRequest) -> Iterator[Path | None]:
    """The folder of media beside the page, if that is wanted; one that is new here goes again after an error."""
    if request.media == "embed":
        yield None
        return
    folder = request.folder
    is_new = not folder.exists()
    with system_errors(folder):
        folder.mkdir(exist_ok=request.overwrite)
    try:
        yield folder
    except BaseException:
        if is_new:
            rmtree(folder, ignore_errors=True)
        raise


def _beside(side: Side, folder: Path, request: PageRequest) -> Side:
    """The side with its media copied into the folder."""
    assert isinstance(side.media.place, Path)
    name = f"{side.badge.lower()}{side.media.place.suffix.lower()}"
    with PartialFile(folder / name, overwrite=request.overwrite) as copy, side.media.place.open("rb") as original:
        copyfileobj(original, copy)
    return replace(side, media=replace(side.media, place=f"{quote(folder.name)}/{name}"))
