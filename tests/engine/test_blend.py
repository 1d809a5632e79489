"""Tiles of the engine are summed in FP32 and divided by their weights."""

import torch

from seedvr2_engine.engine.vae.clip_run import _Blend
from seedvr2_engine.models.vae.tiling import TileSpec, decode_grid


def test_a_flat_picture_stays_flat_where_weights_do_not_add_up_to_one() -> None:
    # The ramps are 36 pixels long and the shared strips 32.
    grid = decode_grid(20, 24, TileSpec(96, 36), 8)
    assert grid is not None
    weights = torch.zeros(grid.output_size)
    for tile in grid:
        weights[tile.target] += tile.weight
    assert (weights - 1).abs().max() > 0.01
    blend = _Blend(grid)
    for index, tile in enumerate(grid):
        for frame in range(2):
            out = torch.full((3, 1, *tile.weight.shape), 0.7 + frame, dtype=torch.float16)
            blend.add(index, out, slice(frame, frame + 1), 2)
    result = blend.result()
    assert result.dtype == torch.float16
    assert result.shape == (3, 2, 160, 192)
    assert torch.equal(result, torch.tensor([0.7, 1.7], dtype=torch.float16)[None, :, None, None].expand_as(result))
