"""Frames made small: what shots are told apart by. Cells and blocks are whole numbers, the same on all machines."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from ...video import CodedFrame, Coding, ColorRange, Frame

CELLS = 64
"""The longer edge has this many cells, or up to twice as many: a cell is a whole number of pixels."""
BLOCK = 8
"""Edge of a block in cells; edges of small frames are repeated up to whole blocks."""
LEVELS = 4
"""Steps of a cell's value for each 8-bit level."""

Plane = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class SmallFrame:
    """One picture as a few thousand cells."""

    planes: Plane
    """float32 (3,h,w): Y', Cb and Cr in whole LEVELS of an 8-bit code, Y' from 0 for black to about 1020, chroma around
    0; h and w are multiples of BLOCK. Transparent parts are black."""
    activity: Plane
    """(h/8,w/8): how far the luma of a block is from its mean, on average, in LEVELS; multiples of 2^-12."""
    means: Plane
    """(3,h/8,w/8): the mean of every block, in LEVELS; multiples of 2^-6."""

    @cached_property
    def spread(self) -> float:
        """How far cells are from the mean of the picture, on average, all planes together, in 8-bit levels."""
        planes = self.planes.astype(np.int64)
        cells = planes[0].size
        # Times the number of cells, so that all numbers are whole and their sums are the same everywhere.
        apart = int(np.abs(planes * cells - planes.sum(axis=(1, 2), keepdims=True)).sum())
        return apart / float(cells * cells * LEVELS)

    @cached_property
    def luma(self) -> float:
        """Mean luma in 8-bit levels, 0 to 255."""
        return float(self.planes[0].mean(dtype=np.float64)) / LEVELS


def made_small(frame: Frame | CodedFrame) -> SmallFrame:
    """Return a frame's cells; it need be neither upright nor cropped for that."""
    planes = _of_codes(frame.codes, frame.coding) if isinstance(frame, CodedFrame) else _of_picture(frame)
    height, width = planes.shape[1:]
    planes = np.pad(planes, ((0, 0), (0, -height % BLOCK), (0, -width % BLOCK)), mode="edge")
    means = blocks_of(planes).mean(axis=(3, 4), dtype=np.float32)
    flat = np.abs(blocks_of(planes[:1])[0] - means[0, :, :, None, None])
    return SmallFrame(planes, flat.mean(axis=(2, 3), dtype=np.float32), means)


def blocks_of(planes: Plane) -> Plane:
    """View (C,h,w) as (C,h/8,w/8,8,8)."""
    count, height, width = planes.shape
    cut = planes.reshape(count, height // BLOCK, BLOCK, width // BLOCK, BLOCK)
    return cut.transpose(0, 1, 3, 2, 4)


def _of_codes(codes: torch.Tensor, coding: Coding) -> Plane:
    layout = coding.layout
    planes = [plane.numpy() for plane in layout.planes(codes, coding.width, coding.height)]
    cell = _cell(coding.width, coding.height)
    step = 1 << (layout.bits - 8)
    if layout.chroma is None:
        channels = [_cells(planes[plane][:, :, place], cell, cell) / step for plane, place in layout.channels]
        if coding.tags.range is ColorRange.LIMITED:
            channels = [(channel - 16) * (255 / 219) for channel in channels]
        values = _from_rgb(channels * 3 if len(channels) == 1 else channels)
    else:
        luma, blue, red = (planes[plane][:, :, place] for plane, place in layout.channels)
        steps = max(1, cell // layout.chroma.step_y), max(1, cell // layout.chroma.step_x)
        first, share = _cells(luma, cell, cell) / step, 1.0
        if coding.tags.range is ColorRange.LIMITED:
            first, share = (first - 16) * (255 / 219), 255 / 224
        chroma = [_fitted((_cells(plane, *steps) / step - 128) * share, first.shape) for plane in (blue, red)]
        values = np.stack([first, *chroma])
    if layout.alpha is not None:
        plane, place = layout.alpha
        values = values * (_cells(planes[plane][:, :, place], cell, cell) / ((1 << layout.bits) - 1))
    return _rounded(values)


def _of_picture(frame: Frame) -> Plane:
    """Cells of R'G'B'."""
    cell = _cell(frame.rgb.shape[2], frame.rgb.shape[1])
    pictures = frame.rgb if frame.alpha is None else torch.cat([frame.rgb, frame.alpha])
    codes = (pictures * 255).round_().clamp_(0, 255).to(torch.uint8).numpy()
    channels = [_cells(channel, cell, cell) for channel in codes]
    values = _from_rgb(channels[:3])
    return _rounded(values if frame.alpha is None else values * (channels[3] / 255))


def _cell(width: int, height: int) -> int:
    """Edge of a cell in pixels; even, where it can be, so that whole chroma samples lie in it."""
    cell = max(1, max(width, height) // CELLS)
    return cell if cell < 4 else cell // 4 * 4


def _cells(plane: NDArray[np.generic], height: int, width: int) -> NDArray[np.float64]:
    """The mean of every cell of (height,width) samples; what is left over at the lower and right edges is left out.

    Every sample counts: of single ones noise and moving patterns would make differences.
    """
    rows, columns = max(1, plane.shape[0] // height), max(1, plane.shape[1] // width)
    height, width = min(height, plane.shape[0]), min(width, plane.shape[1])
    whole = plane[: rows * height, : columns * width]
    # Sums of rows first: whole rows are added, which is most of the work and what processors do well.
    small = whole.dtype == np.uint8 and height <= 256
    lines = whole.reshape(rows, height, -1).sum(axis=1, dtype=np.uint16 if small else np.uint32)
    sums = lines.reshape(rows, columns, width).sum(axis=2, dtype=np.uint64)
    means: NDArray[np.float64] = sums / (height * width)
    return means


def _fitted(plane: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Chroma at the cells of luma, whose number it differs from where a cell is no whole number of its samples."""
    rows = np.arange(shape[0]) * plane.shape[0] // shape[0]
    columns = np.arange(shape[1]) * plane.shape[1] // shape[1]
    return np.asarray(plane[np.ix_(rows, columns)])


def _from_rgb(channels: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Luma and two differences of colours, with weights that need not be any standard's."""
    red, green, blue = channels
    luma = (red * 5 + green * 9 + blue * 2) / 16
    return np.stack([luma, (blue - luma) * 0.5, (red - luma) * 0.5])


def _rounded(values: NDArray[np.float64]) -> Plane:
    return np.rint(values * LEVELS).astype(np.float32)
