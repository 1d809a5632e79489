"""The order in which matrix units want block scales: tiles of 128 rows by 4 columns, one after the other.

Inside a tile the four columns of row i, i + 32, i + 64 and i + 96 stand together. Source: cuBLAS, "1D Block
Scaling Factors Layout".
"""

import torch
from torch import Tensor

TILE_ROWS, TILE_COLUMNS = 128, 4


def tiled_shape(rows: int, columns: int) -> tuple[int, int]:
    """The shape of the tiles of (rows, columns) scales: both rounded up to whole tiles."""
    return -(-rows // TILE_ROWS) * TILE_ROWS, -(-columns // TILE_COLUMNS) * TILE_COLUMNS


def tile(scales: Tensor) -> Tensor:
    """Scales (rows, columns) in their natural order -> the same, tiled, in `tiled_shape`; zeros fill the last tiles."""
    rows, columns = tiled_shape(*scales.shape)
    padded = torch.zeros(rows, columns, dtype=scales.dtype, device=scales.device)
    padded[: scales.shape[0], : scales.shape[1]] = scales
    natural = padded.view(rows // TILE_ROWS, 4, 32, columns // TILE_COLUMNS, TILE_COLUMNS)
    return natural.permute(0, 3, 2, 1, 4).reshape(rows, columns)


def untile(tiles: Tensor, rows: int, columns: int) -> Tensor:
    """The inverse of `tile`: tiles in `tiled_shape(rows, columns)` -> scales (rows, columns)."""
    down, across = tiles.shape[0] // TILE_ROWS, tiles.shape[1] // TILE_COLUMNS
    natural = tiles.reshape(down, across, 32, 4, TILE_COLUMNS).permute(0, 3, 2, 1, 4)
    return natural.reshape(tiles.shape)[:rows, :columns]
