"""Spatial tiles as ComfyUI's own SeedVR2 VAE cuts and blends them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ...models.vae.tiling import TileRange, blend_window, tile_ranges


@dataclass(frozen=True)
class TileRequest:
    """Tiles as the node asks for them, in the units of what is cut: latent cells, or pixels."""

    height: int
    """Rows of a tile."""
    width: int
    """Columns of a tile."""
    overlap: int
    """What neighbours share, both ways."""
    cell: int
    """The same in whole latent cells: 1 for latents, 8 for pixels. An overlap leaves one cell of a tile at least."""

    def spans(self, rows: int, columns: int) -> Iterator[tuple[TileRange, TileRange]]:
        """(rows, columns) of every tile of a frame, row by row."""
        for row in tile_ranges(rows, self.height, self._shared(self.height)):
            for column in tile_ranges(columns, self.width, self._shared(self.width)):
                yield row, column

    def covers(self, rows: int, columns: int) -> bool:
        """Whether one tile is the whole frame."""
        return rows <= self.height and columns <= self.width

    def window(self, rows: tuple[TileRange, int], columns: tuple[TileRange, int], scale: tuple[int, int]) -> Tensor:
        """The FP32 weights of a tile, from its spans and its result's sizes.

        scale: results for so many units of input, as a fraction. No ramp is longer than half a tile's result; at the
        border that is where ComfyUI's blending differs from `models.vae.tiling`.
        """

        def along(span: TileRange, length: int, edge: int) -> Tensor:
            ramp = min(self._shared(edge) * scale[0] // scale[1], length // 2)
            return blend_window(span, length, ramp)

        return along(*rows, self.height)[:, None] * along(*columns, self.width)

    def _shared(self, edge: int) -> int:
        return max(0, min(self.overlap, edge - self.cell))


def run_tiled(
    x: Tensor, request: TileRequest, scale: tuple[int, int], size: tuple[int, ...], run: Callable[[Tensor], Tensor]
) -> Tensor:
    """What `run` makes of every tile of x (1, C, T, rows, columns), blended to `size` (1, ...), FP32 on the CPU.

    scale: results for so many units of input, as a fraction.
    """
    if request.covers(*x.shape[-2:]):
        return run(x)
    blended = torch.zeros(size)
    total = torch.zeros(size[-2:])
    numerator, denominator = scale
    for rows, columns in request.spans(*x.shape[-2:]):
        out = run(x[..., rows.start : rows.stop, columns.start : columns.stop])
        height, width = out.shape[-2:]
        top, left = rows.start * numerator // denominator, columns.start * numerator // denominator
        weight = request.window((rows, height), (columns, width), scale)
        blended[..., top : top + height, left : left + width] += out * weight
        total[top : top + height, left : left + width] += weight
    return blended.div_(total.clamp_(min=1e-6))
