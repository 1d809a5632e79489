"""What a compare page shows, as plain values; `document.py` writes it, the scripts in `assets/` read it.

Whoever has measured data and places for the media, an app say, makes a page of these without any file of ours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

Rows = tuple[tuple[str, str], ...]
"""Names and what they are, in the order in which they are read."""


@dataclass(frozen=True)
class Media:
    """Pictures that a browser can show."""

    kind: Literal["video", "image"]
    mime: str
    """Such as `video/mp4`."""
    size_px: tuple[int, int]
    """Width and height of the part that is shown: a proxy of odd edges holds a row or column more."""
    place: Path | str
    """A file that goes into the page, or the address at which the page finds it."""
    rate: Fraction = Fraction(24)
    """Frames a second of a video: frame n is shown from n / rate on."""
    note: str = ""
    """What the browser shows instead of the file's own pixels, and why; empty where it shows those."""

    @property
    def is_embedded(self) -> bool:
        """Whether it goes into the page."""
        return isinstance(self.place, Path)


@dataclass(frozen=True)
class Side:
    """One of the clips that are compared."""

    badge: str
    """A, B, or R for the reference."""
    name: str
    """What it is called, in full."""
    size_px: tuple[int, int]
    """Width and height of its own pictures."""
    media: Media
    facts: Rows = ()
    """Codec, bits, colours, length."""


@dataclass(frozen=True)
class Series:
    """A number for every frame of one side."""

    badge: str
    values: Sequence[float | None]
    """None where there is none; infinity is the PSNR of equal pictures."""


@dataclass(frozen=True)
class Curve:
    """One measure over time."""

    label: str
    unit: str
    better: Literal["higher", "lower", "neither"]
    about: str
    """One sentence for people who do not know the measure."""
    series: tuple[Series, ...]


@dataclass(frozen=True)
class Mark:
    """A frame of which something is known."""

    kind: Literal["border", "shot", "unit"]
    """border: where a chunk of the upscaling begins; shot: where a scene does; unit: where a part of the work does."""
    frame: int
    text: str = ""


@dataclass(frozen=True)
class Thumbnail:
    """A small picture of a frame that is worth a look."""

    frame: int
    text: str
    """Why."""
    jpeg: bytes


@dataclass(frozen=True)
class Table:
    """Facts under a heading."""

    title: str
    rows: Rows


@dataclass(frozen=True)
class Summary:
    """Numbers of whole clips: a row for each measure, a column for each side."""

    badges: tuple[str, ...]
    rows: tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True)
class PageData:
    """Everything on a page."""

    sides: tuple[Side, ...]
    """A, B and perhaps R."""
    frames: int
    first_frame: int = 0
    """The number that the first frame has in its file."""
    rate: Fraction | None = None
    """Frames a second at which it plays; None for a picture."""
    against: str = ""
    """What the numbers are measured against."""
    curves: tuple[Curve, ...] = ()
    marks: tuple[Mark, ...] = ()
    worst: tuple[Thumbnail, ...] = ()
    summary: Summary | None = None
    tables: tuple[Table, ...] = ()
    remarks: tuple[str, ...] = field(default=())
    """Sentences to be read before anything is judged."""

    @property
    def size_px(self) -> tuple[int, int]:
        """Width and height of the picture in which sides are compared: that of the largest."""
        return largest([side.size_px for side in self.sides if side.badge != "R"])

    @property
    def title(self) -> str:
        """The page's name in tabs and bookmarks."""
        return " and ".join(Path(side.name).name or side.name for side in self.sides[:2])


def largest(sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """The size (width, height) of most pixels; of equal ones the last."""
    return max(reversed(sizes), key=lambda size: size[0] * size[1])


def number(value: float | None) -> float | str | None:
    """A number as JSON holds it, to five digits: infinity is a word, NaN is nothing."""
    if value is None or math.isnan(value):
        return None
    if math.isinf(value):
        return "inf"
    return float(f"{value:.5g}")


def plain(data: PageData) -> dict[str, Any]:
    """What the page's scripts get, but for the pictures: JSON's own types alone."""
    return {
        "title": data.title,
        "frames": data.frames,
        "firstFrame": data.first_frame,
        "rate": None if data.rate is None else float(data.rate),
        "size": data.size_px,
        "against": data.against,
        "sides": [
            {
                "badge": side.badge,
                "name": side.name,
                "size": side.size_px,
                "facts": side.facts,
                "kind": side.media.kind,
                "mime": side.media.mime,
                "shown": side.media.size_px,
                "url": None if side.media.is_embedded else str(side.media.place),
                "rate": float(side.media.rate),
                "note": side.media.note,
            }
            for side in data.sides
        ],
        "curves": [
            {
                "label": curve.label,
                "unit": curve.unit,
                "better": curve.better,
                "about": curve.about,
                "series": [
                    {"badge": series.badge, "values": [number(value) for value in series.values]}
                    for series in curve.series
                ],
            }
            for curve in data.curves
        ],
        "marks": [{"kind": mark.kind, "frame": mark.frame, "text": mark.text} for mark in data.marks],
        "worst": [{"frame": shot.frame, "text": shot.text} for shot in data.worst],
        "summary": None if data.summary is None else {"badges": data.summary.badges, "rows": data.summary.rows},
        "tables": [{"title": table.title, "rows": table.rows} for table in data.tables],
        "remarks": data.remarks,
    }
