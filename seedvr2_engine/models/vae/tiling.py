"""Spatial tiles: where they lie and how they blend; integer arithmetic and FP32 windows, no model."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ...errors import InvalidArgumentError


@dataclass(frozen=True)
class TileSpec:
    """Size and overlap of spatial tiles, as one number for both directions or as (height, width).

    Tiling is an approximation: GroupNorm and attention see one tile instead of the whole frame. It saves memory.
    """

    size_px: int | tuple[int, int]
    """Edge of a tile in picture pixels, at least 8; rounded down to whole latent cells."""
    overlap_px: int | tuple[int, int] = 128
    """Pixels shared by neighbouring tiles: 0, or at least one latent cell (8), and less than the tile."""

    def __post_init__(self) -> None:
        for size, overlap in zip(self.sizes_px, self.overlaps_px, strict=True):
            if size < 8:
                raise InvalidArgumentError(f"tile size: expected at least 8 px, got {size}; try 512 or more.")
            if overlap >= size:
                raise InvalidArgumentError(
                    f"tile overlap: expected less than the tile size {size} px, got {overlap} px; lower the overlap."
                )
            if overlap < 0 or 0 < overlap < 8:
                # The reference accepts 1..7 and leaves grey lines: its ramp starts at zero but no cell is shared.
                raise InvalidArgumentError(
                    f"tile overlap: expected 0 or at least 8 px (one latent cell), got {overlap} px."
                )

    @property
    def sizes_px(self) -> tuple[int, int]:
        """(height, width) of a tile in pixels."""
        return (self.size_px, self.size_px) if isinstance(self.size_px, int) else self.size_px

    @property
    def overlaps_px(self) -> tuple[int, int]:
        """(vertical, horizontal) overlap in pixels."""
        return (self.overlap_px, self.overlap_px) if isinstance(self.overlap_px, int) else self.overlap_px


@dataclass(frozen=True)
class TileRange:
    """One tile along one direction."""

    start: int
    """First latent cell."""
    stop: int
    """One past the last latent cell."""
    fades_in: bool
    """Whether a neighbour lies before it."""
    fades_out: bool
    """Whether a neighbour lies behind it."""


def tile_ranges(extent: int, size: int, overlap: int) -> list[TileRange]:
    """Cover `extent` latent cells with spans of at most `size` that share `overlap` cells.

    Spans start at multiples of `size - overlap`; one that would add nothing new is left out.
    """
    step = max(1, size - overlap)
    spans = []
    for start in range(0, extent, step):
        stop = min(start + size, extent)
        if start > 0 and stop - start <= overlap:
            continue
        spans.append(TileRange(start, stop, fades_in=start > 0, fades_out=stop < extent))
    return spans


def blend_window(span: TileRange, length: int, ramp: int) -> Tensor:
    """The FP32 weights of a tile along one direction: `length` samples, raised-cosine ramps of at most `ramp`."""
    window = torch.ones(length, dtype=torch.float32)
    faded = max(0, min(ramp, length - 1))
    if faded == 0:
        return window
    if ramp == 1:
        rise = torch.zeros(1)
    else:
        rise = 0.5 - 0.5 * torch.cos(math.pi * torch.arange(ramp, dtype=torch.float32) / (ramp - 1))
    if span.fades_in:
        window[:faded] = rise[:faded]
    if span.fades_out:
        window[length - faded :] = 1 - rise[:faded]
    return window


@dataclass(frozen=True)
class Tile:
    """One tile: what to cut from the input, where it goes in the output, and its weight there (H, W), FP32."""

    source: tuple[slice, slice]
    target: tuple[slice, slice]
    weight: Tensor


@dataclass(frozen=True)
class TileGrid:
    """All tiles of one frame for one direction of the VAE, row by row."""

    tiles: tuple[Tile, ...]
    output_size: tuple[int, int]
    """(height, width) of the blended result, in output samples."""

    def __iter__(self) -> Iterator[Tile]:
        return iter(self.tiles)


def decode_grid(height: int, width: int, spec: TileSpec, cell_px: int) -> TileGrid | None:
    """Tiles for a latent frame of (height, width) cells; None when one tile covers it.

    The ramp is the requested overlap in pixels; where that is longer than the shared strip, the division by the
    summed weights repairs it.
    """
    sizes, overlaps = _in_cells(spec, cell_px)
    if height <= sizes[0] and width <= sizes[1]:
        return None
    ramps = tuple(spec.overlaps_px[i] if overlaps[i] else 0 for i in range(2))
    return _grid((height, width), sizes, overlaps, (ramps[0], ramps[1]), source_scale=1, target_scale=cell_px)


def encode_grid(height: int, width: int, spec: TileSpec, cell_px: int) -> TileGrid | None:
    """Tiles for a picture of (height, width) pixels; None when one tile covers it. Ramps are in latent cells."""
    if height <= spec.sizes_px[0] and width <= spec.sizes_px[1]:
        return None
    sizes, overlaps = _in_cells(spec, cell_px)
    cells = (height // cell_px, width // cell_px)
    return _grid(cells, sizes, overlaps, overlaps, source_scale=cell_px, target_scale=1)


def _in_cells(spec: TileSpec, cell_px: int) -> tuple[tuple[int, int], tuple[int, int]]:
    sizes = [max(1, size // cell_px) for size in spec.sizes_px]
    overlaps = [min(spec.overlaps_px[i] // cell_px, sizes[i] - 1) for i in range(2)]
    return (sizes[0], sizes[1]), (overlaps[0], overlaps[1])


def _grid(
    cells: tuple[int, int],
    sizes: tuple[int, int],
    overlaps: tuple[int, int],
    ramps: tuple[int, int],
    *,
    source_scale: int,
    target_scale: int,
) -> TileGrid:
    def along(i: int) -> list[tuple[slice, slice, Tensor]]:
        pieces = []
        for span in tile_ranges(cells[i], sizes[i], overlaps[i]):
            length = (span.stop - span.start) * target_scale
            source = slice(span.start * source_scale, span.stop * source_scale)
            target = slice(span.start * target_scale, span.stop * target_scale)
            pieces.append((source, target, blend_window(span, length, ramps[i])))
        return pieces

    tiles = tuple(
        Tile((row_source, column_source), (row_target, column_target), row_weight[:, None] * column_weight)
        for row_source, row_target, row_weight in along(0)
        for column_source, column_target, column_weight in along(1)
    )
    return TileGrid(tiles, (cells[0] * target_scale, cells[1] * target_scale))
