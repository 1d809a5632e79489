"""Clips measured frame by frame for a page, in memory that does not depend on their length but for the numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from ..pipeline.resize import resample
from ..quality.compare import ClipMeasures, ClipMeter, FrameMeasures
from ..video.writing.pictures.preview import jpeg_of
from .data import Curve, Mark, Series, Summary, Thumbnail

if TYPE_CHECKING:
    from torch import Tensor

    from ..pipeline.chunks import ChunkPlan

_SEGMENTS, _MOST_WORST = 24, 6
"""The worst frame of each segment of a clip is kept, and the worst of those are shown: neighbours are as bad."""
_THUMB_PX, _GAP_PX = 144, 2
_CUT_SHARE, _LEAST_CUT_PX, _CELL_PX = 3, 48, 16
"""Of a bad frame the part is shown, a third of its shorter edge, where cells of 16 pixels differ most."""
Distance = Callable[["Tensor", "Tensor"], float]


@dataclass
class _Worst:
    psnr_db: float
    frame: int
    jpeg: bytes


@dataclass
class Measured:
    """What was measured of two clips."""

    badges: tuple[str, str] = ("A", "B")
    has_reference: bool = False
    frames: list[tuple[FrameMeasures, FrameMeasures]] = field(default_factory=list)
    whole: tuple[ClipMeasures, ...] = ()
    worst: list[_Worst] = field(default_factory=list)

    @property
    def judged(self) -> int:
        """Which side's distance decides what is bad: B's to the reference, or else A's to B."""
        return 1 if self.has_reference else 0

    @property
    def farthest(self) -> int:
        """The frame at which A is farthest from what it is measured against."""
        return min(range(len(self.frames)), key=lambda index: self.frames[index][0].psnr_db or 0.0)


def measure(
    clips: Sequence[Iterable[Tensor]],
    size: tuple[int, int],
    total: int,
    plan: ChunkPlan | None = None,
    distance: Distance | None = None,
    step: Callable[[int], object] = lambda index: None,
) -> Measured:
    """Measure A, B and perhaps R, each frames (3,H,W) in [0,1]; `step` gets the number of every frame when it is done.

    size: (height, width) that all are brought to by bicubic interpolation before they are compared. total: how many
    frames there are at most.
    """
    meters = ClipMeter(distance), ClipMeter(distance)
    measured = Measured(has_reference=len(clips) == 3)
    best: dict[int, _Worst] = {}
    for index, pictures in enumerate(zip(*clips, strict=False)):
        a, b, *rest = (resample(picture[None], size)[0].clamp(0, 1) for picture in pictures)
        meters[0].add(a, rest[0] if rest else b)
        meters[1].add(b, rest[0] if rest else None)
        measured.frames.append((meters[0].latest, meters[1].latest))
        psnr_db = measured.frames[-1][measured.judged].psnr_db
        segment = index * _SEGMENTS // max(total, 1)
        # Equal frames, infinitely close, are never bad; a NaN is not either.
        if psnr_db is not None and psnr_db < (best[segment].psnr_db if segment in best else math.inf):
            judged, goal = (b, rest[0]) if rest else (a, b)
            best[segment] = _Worst(psnr_db, index, _thumbnail(a, b, judged, goal))
        step(index)
    measured.whole = tuple(meter.measures(plan) for meter in meters)
    measured.worst = _apart(sorted(best.values(), key=lambda worst: worst.psnr_db), len(measured.frames))
    return measured


def _apart(worst: list[_Worst], frames: int) -> list[_Worst]:
    """The first few that are not next to each other."""
    least = max(3, frames // _SEGMENTS)
    chosen: list[_Worst] = []
    for one in worst:
        if len(chosen) < _MOST_WORST and all(abs(one.frame - other.frame) >= least for other in chosen):
            chosen.append(one)
    return chosen


def _thumbnail(a: Tensor, b: Tensor, judged: Tensor, goal: Tensor) -> bytes:
    """A and B beside each other where `judged` is farthest from `goal`."""
    height, width = b.shape[1:]
    cut = min(max(_LEAST_CUT_PX, min(height, width) // _CUT_SHARE), height, width)
    error = (judged - goal).square().mean(dim=0, keepdim=True)[None]
    cells = torch.nn.functional.avg_pool2d(error, min(_CELL_PX, height, width))[0, 0]
    row, column = divmod(int(cells.argmax()), cells.shape[1])
    top, left = (
        min(max(round((at + 0.5) * edge / count - cut / 2), 0), edge - cut)
        for at, edge, count in ((row, height, cells.shape[0]), (column, width, cells.shape[1]))
    )
    both = [picture[:, top : top + cut, left : left + cut] for picture in (a, b)]
    left_half, right_half = (_squared(part) for part in both)
    return jpeg_of(torch.cat([left_half, torch.ones_like(left_half[:, :, :_GAP_PX]), right_half], dim=2))


def _squared(part: Tensor) -> Tensor:
    """A cut-out as large as thumbnails are; its pixels stay pixels where it is smaller."""
    if part.shape[-1] < _THUMB_PX:
        return torch.nn.functional.interpolate(part[None], size=(_THUMB_PX, _THUMB_PX), mode="nearest")[0]
    return resample(part[None], (_THUMB_PX, _THUMB_PX))[0]


def curves_of(measured: Measured) -> tuple[Curve, ...]:
    """The curves that have at least two points."""
    against = "the reference" if measured.has_reference else "B"
    kinds = (
        ("PSNR", "dB", "higher", "psnr_db", f"How close each frame is to {against}, pixel by pixel."),
        ("SSIM", "", "higher", "ssim", f"How alike each frame and {against} are in structure; 1 is equal."),
        ("Perceptual distance", "", "lower", "perceptual", f"How different each frame and {against} look; 0 is equal."),
        ("Flicker", "/255", "neither", "flicker", "How unevenly three frames follow each other, in 8-bit steps."),
        ("Change", "/255", "neither", "change", "How much each frame differs from the one before, in 8-bit steps."),
    )
    curves = []
    for label, unit, better, name, about in kinds:
        series = []
        for side, badge in enumerate(measured.badges):
            values = [getattr(frame[side], name) for frame in measured.frames]
            if any(value is not None for value in values):
                series.append(Series(badge, values))
        if series and len(measured.frames) > 1:
            curves.append(Curve(label, unit, better, about, tuple(series)))  # type: ignore[arg-type]
    return tuple(curves)


def thumbnails_of(measured: Measured) -> tuple[Thumbnail, ...]:
    """The worst frames, the worst first; none of a single picture."""
    if len(measured.frames) < 2:
        return ()
    return tuple(Thumbnail(worst.frame, f"{worst.psnr_db:.2f} dB", worst.jpeg) for worst in measured.worst)


def summary_of(measured: Measured) -> Summary:
    """The whole clips in numbers."""
    rows: list[tuple[str, tuple[str, ...]]] = []

    def row(label: str, form: str, values: Iterable[float | None]) -> None:
        texts = tuple("" if value is None else _text(value, form) for value in values)
        if any(texts):
            rows.append((label, texts))

    whole = measured.whole
    qualities = [clip.quality for clip in whole]
    several = len(measured.frames) > 1
    row("PSNR, dB", ".2f", (None if quality is None else quality.psnr_db for quality in qualities))
    row("SSIM", ".4f", (None if quality is None else quality.mean_ssim for quality in qualities))
    row("Perceptual distance", ".4f", (clip.perceptual for clip in whole))
    if several:
        row("Worst frame, dB", ".2f", (None if quality is None else quality.min_psnr_db for quality in qualities))
        row("Change, /255", ".3f", (clip.change for clip in whole))
        row("Flicker, /255", ".3f", (clip.flicker for clip in whole))
        row("Worst border jump", ".3f", (clip.worst_border_jump for clip in whole))
    return Summary(measured.badges, tuple(rows))


def _text(value: float, form: str) -> str:
    return "equal" if math.isinf(value) else format(value, form)


def border_marks(measured: Measured, starts: Sequence[int]) -> tuple[Mark, ...]:
    """Where chunks begin, with the jump of each side there, where both were measured.

    starts: first frames of the chunks but for the first.
    """
    marks = []
    jumps = [clip.border_jumps for clip in measured.whole]
    for index, start in enumerate(starts):
        known = [
            f"{badge} {_text(side[index], '.2f')}"
            for badge, side in zip(measured.badges, jumps, strict=True)
            if len(side) == len(starts)
        ]
        marks.append(Mark("border", start, f"jump {', '.join(known)}" if known else ""))
    return tuple(marks)
