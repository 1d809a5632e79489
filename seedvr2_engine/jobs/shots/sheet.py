"""Contact sheets: the first, the middle and the last frame of every shot, with its number and time."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from math import ceil

import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont

from ...video import CodedFrame, Frame
from ..shot import Shot

SHOTS_A_PAGE = 48
COLUMNS = 2
"""Shots beside each other, once there are more than COLUMN_SHOTS."""
COLUMN_SHOTS = 8
THUMB_PX = 224
"""Longer edge of a picture."""
GAP_PX = 6
LABEL_PX = 22
"""Height of a shot's line of text."""
FONT_PX = 15
GROUND, INK = (24, 24, 24), (235, 235, 235)
CHECK = 0.5
"""Grey that shows where a picture is transparent."""


@dataclass
class ContactSheet:
    """Takes the frames of all shots in order, and gives pages as they are full, as PNG files in memory."""

    shots: tuple[Shot, ...]
    labels: tuple[str, ...]
    """One line of text for every shot."""
    _page: Image.Image | None = None
    _thumbs: dict[int, Image.Image] = field(default_factory=dict)

    @property
    def pages(self) -> int:
        """How many there will be."""
        return ceil(len(self.shots) / SHOTS_A_PAGE)

    def draw(self, frames: Iterable[Frame | CodedFrame]) -> Iterator[bytes]:
        """Yield the pages; only frames that are shown are turned into R'G'B'.

        A source that ends early leaves the rest of its pictures out.
        """
        places = [place for shot in self.shots for place in _places(shot)]
        wanted, ends = set(places), {shot.stop - 1: number for number, shot in enumerate(self.shots)}
        drawn = 0
        for index, frame in enumerate(frames):
            if index in wanted:
                self._thumbs[index] = _thumb(frame)
            if index in ends:
                self._add(ends[index])
                drawn = ends[index] + 1
                if drawn % SHOTS_A_PAGE == 0:
                    yield self._finished()
        for number in range(drawn, len(self.shots)):
            if self._thumbs or self._page is not None:
                self._add(number)
        if self._page is not None:
            yield self._finished()

    def _add(self, number: int) -> None:
        shot, slot = self.shots[number], number % SHOTS_A_PAGE
        pictures = [(place, self._thumbs[at]) for place, at in enumerate(_places(shot)) if at in self._thumbs]
        if self._page is None:
            if not pictures:
                return
            self._page = self._blank(pictures[0][1].size, len(self.shots) - number)
        width, height = self._cell
        rows = ceil(min(SHOTS_A_PAGE, len(self.shots) - number + slot) / self._columns)
        left, top = GAP_PX + slot // rows * width, GAP_PX + slot % rows * height
        draw = ImageDraw.Draw(self._page)
        font = ImageFont.load_default(FONT_PX)
        draw.text((left, top), self.labels[number], fill=INK, font=font)
        for place, picture in pictures:
            self._page.paste(picture, (left + place * (picture.width + GAP_PX), top + LABEL_PX))
        self._thumbs.clear()

    def _blank(self, size: tuple[int, int], left: int) -> Image.Image:
        shots = min(SHOTS_A_PAGE, left)
        self._columns = COLUMNS if shots > COLUMN_SHOTS else 1
        # Text needs some width, also beside pictures that are narrow.
        longest = max(ImageFont.load_default(FONT_PX).getlength(label) for label in self.labels)
        self._cell = max(3 * (size[0] + GAP_PX), ceil(longest)) + 2 * GAP_PX, size[1] + LABEL_PX + 2 * GAP_PX
        width, height = self._cell
        return Image.new("RGB", (GAP_PX + width * self._columns, GAP_PX + height * ceil(shots / self._columns)), GROUND)

    def _finished(self) -> bytes:
        assert self._page is not None
        data = io.BytesIO()
        self._page.save(data, "PNG")
        self._page = None
        return data.getvalue()


def _places(shot: Shot) -> tuple[int, ...]:
    """The first, the middle and the last frame, each once."""
    return tuple(sorted({shot.start, (shot.start + shot.stop - 1) // 2, shot.stop - 1}))


def _thumb(frame: Frame | CodedFrame) -> Image.Image:
    whole = frame.decoded() if isinstance(frame, CodedFrame) else frame
    rgb = whole.rgb if whole.alpha is None else CHECK + (whole.rgb - CHECK) * whole.alpha
    height, width = rgb.shape[1:]
    factor = THUMB_PX / max(height, width)
    size = (max(1, round(height * factor)), max(1, round(width * factor)))
    small = F.interpolate(rgb[None], size=size, mode="bilinear", antialias=True, align_corners=False)[0]
    return Image.fromarray((small.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy())
