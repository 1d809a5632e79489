"""How much of a picture is new beside another one: what no motion, no turn of light and no noise explains."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from .small import BLOCK, LEVELS, Plane, SmallFrame

COARSE = 4
"""Cells to a cell of the grid on which a motion of everything is looked for."""
REACH = 4
"""Cells that a block may have moved beside the motion of everything, either way."""
FLAT_LEVELS = 1.25
"""Activity in 8-bit levels below which a block counts as flat."""
MOVED_LEVELS = 6.0
"""What the mean of a flat block changes by, in 8-bit levels, if it is new."""
DARK_LEVELS = 64.0
"""Mean luma below which both of these become smaller with it, to a quarter at most: eyes and models see ratios."""
EXPLAINED = 0.62
"""A block is new if what the other picture leaves unexplained is more than this part of its activity."""
LEAST_SHARE = 0.2
"""Of all blocks, how many count at least: little on an empty ground is no picture."""
LIGHT = 0.1
"""Change of the mean luma from which it may be the light that has changed."""
MOSTLY = 0.1
"""Share of unexplained blocks from which a motion of everything is worth looking for."""
FADED = 0.5
"""A fade leaves less than this part of a picture unexplained."""
CLEARLY = 0.7
"""A motion of everything leaves at most this part of what differs without it."""

Mask = NDArray[np.bool_]


def new_share(before: SmallFrame, after: SmallFrame) -> float:
    """Return which share of what is in two pictures is in one of them alone: 0 for the same scene, 1 for another.

    Blocks with some detail are looked for in the other picture, where they are and where a motion of the whole picture
    would have put them, and around both; their own brightness does not count. Blocks without detail are compared by
    their brightness and colour, as they are and with one factor for all of the picture. Both pictures are looked for in
    each other, and the one of which more is found counts: what only appears, or only goes, leaves the rest as it was.
    """
    scale = min(1.0, max(0.25, max(before.luma, after.luma) / DARK_LEVELS)) * LEVELS
    shift: tuple[int, int] | None = None
    share = 1.0
    for source, target, sign in ((before, after, 1), (after, before, -1)):
        detail = target.activity > FLAT_LEVELS * scale
        other = _other(source, target, MOVED_LEVELS * scale)
        counted = detail | (source.activity > FLAT_LEVELS * scale) | other
        least = max(float(counted.sum()), LEAST_SHARE * counted.size)
        lost = detail & ~_found(source, target, detail, (0, 0), 0) if detail.any() else detail
        if lost.sum() > MOSTLY * least:
            if shift is None:
                shift = moved_by(before, after)
            moved = (shift[0] * sign, shift[1] * sign)
            for place in {moved, (0, 0)}:
                if lost.any():
                    lost &= ~_found(source, target, lost, place, REACH)
        # A flat block is new if it has another colour; where detail was, it may just have been uncovered.
        share = min(share, float((lost | (other & ~detail)).sum()) / least)
        if share == 0:
            break
    return share


def _other(source: SmallFrame, target: SmallFrame, most: float) -> Mask:
    """Blocks (h/8,w/8) whose mean has changed, by more than a change of light explains."""
    changed = np.abs(source.means - target.means).sum(axis=0) > most
    factor = _light(source, target)
    if not changed.any() or abs(factor - 1) < LIGHT:
        return np.asarray(changed)
    luma, wanted = source.means[0], target.means[0]
    # More or less light keeps the order of what is bright and what is dark, also where it saturates.
    matched = np.empty_like(luma)
    matched.flat[np.argsort(luma, axis=None, kind="stable")] = np.sort(wanted, axis=None)
    colors = np.abs(source.means[1:] * np.float32(factor) - target.means[1:]).sum(axis=0)
    lit = np.minimum(np.abs(luma * np.float32(factor) - wanted), np.abs(matched - wanted)) + colors
    return np.asarray(changed & (lit > most))


def _light(source: SmallFrame, target: SmallFrame) -> float:
    """How many times brighter `target` is."""
    return (target.luma + 1) / (source.luma + 1)


def _found(source: SmallFrame, target: SmallFrame, wanted: Mask, shift: tuple[int, int], reach: int) -> Mask:
    """Which of the wanted blocks of `target` `source` explains, moved by (down,right) cells and `reach` more or less.

    Where the light has changed, contrast has too. Elsewhere sums are of 64 multiples of 1/64 below 2048, exact in
    float32 in any order.
    """
    luma = source.planes[0]
    margin = max(abs(shift[0]), abs(shift[1])) + reach
    windows = sliding_window_view(np.pad(luma, margin, mode="edge"), (BLOCK, BLOCK))
    rows, columns = np.nonzero(wanted)
    span = np.arange(-reach, reach + 1)
    down = (rows * BLOCK + margin - shift[0])[:, None, None] + span[:, None]
    right = (columns * BLOCK + margin - shift[1])[:, None, None] + span
    found = windows[down, right].reshape(len(rows), -1, BLOCK * BLOCK)
    found -= found.mean(axis=2, keepdims=True, dtype=np.float32)
    if abs(_light(source, target) - 1) >= LIGHT:
        found *= target.activity.mean() / max(source.activity.mean(), np.float32(1 / LEVELS))
    blocks = target.planes[0].reshape(wanted.shape[0], BLOCK, wanted.shape[1], BLOCK)[rows, :, columns]
    found -= (blocks.reshape(len(rows), 1, -1)) - target.means[0][rows, columns][:, None, None]
    left = np.abs(found, out=found).mean(axis=2, dtype=np.float32).min(axis=1, initial=np.inf)
    result = np.zeros(wanted.shape, dtype=np.bool_)
    result[rows, columns] = left <= EXPLAINED * target.activity[rows, columns]
    return result


def moved_by(before: SmallFrame, after: SmallFrame) -> tuple[int, int]:
    """Return by how many cells, (down, right), all of a picture has moved, to the nearest COARSE.

    (0,0) where no motion explains CLEARLY more than none.
    """
    first, second = _coarse(before), _coarse(after)
    height, width = first.shape[1:]
    reach = (height // 2, width * 2 // 3)
    padded = np.pad(first, ((0, 0), (reach[0],) * 2, (reach[1],) * 2))
    # NumPy's stub knows no axes but one.
    windows = sliding_window_view(padded, (height, width), axis=(1, 2))  # type: ignore[call-overload]
    columns = np.arange(2 * reach[1] + 1)
    left, right = np.maximum(0, reach[1] - columns), np.minimum(width, width + reach[1] - columns)
    differences = np.zeros((2 * reach[0] + 1, len(columns)))
    for row in range(2 * reach[0] + 1):
        # Only what both pictures have counts.
        top, bottom = max(0, reach[0] - row), min(height, height + reach[0] - row)
        apart = np.abs(windows[:, row, :, top:bottom] - second[:, None, top:bottom]).sum(axis=(0, 2), dtype=np.float64)
        sums = np.pad(apart.cumsum(axis=1), ((0, 0), (1, 0)))
        differences[row] = (sums[columns, right] - sums[columns, left]) / ((bottom - top) * (right - left))
    row, column = divmod(int(differences.argmin()), len(columns))
    if differences[row, column] > CLEARLY * differences[reach[0], reach[1]]:
        return 0, 0
    return (reach[0] - row) * COARSE, (reach[1] - column) * COARSE


def _coarse(frame: SmallFrame) -> Plane:
    count, height, width = frame.planes.shape
    cut = frame.planes.reshape(count, height // COARSE, COARSE, width // COARSE, COARSE)
    means: Plane = cut.mean(axis=(2, 4), dtype=np.float32)
    return means


def change(before: SmallFrame, after: SmallFrame) -> float:
    """Return the mean difference of two pictures, cell by cell, all planes together, in 8-bit levels."""
    total = float(np.abs(before.planes - after.planes).sum(dtype=np.float64))
    return total / float(before.planes[0].size * LEVELS)


def is_faded(before: SmallFrame, after: SmallFrame) -> bool:
    """Whether two pictures that stand still differ in brightness and contrast alone: steps of a fade."""
    first, second = (
        (frame.planes - frame.means.mean(axis=(1, 2), keepdims=True)).astype(np.float64) for frame in (before, after)
    )
    factor = float((first * second).sum()) / max(1.0, float((first * first).sum()))
    left, all_of_it = float(np.abs(second - factor * first).sum()), float(np.abs(second).sum())
    return factor > 0 and left < FADED * all_of_it
