"""Tiles cover every sample, their weights blend smoothly, and one tile is no tile."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from seedvr2_engine.errors import InvalidArgumentError
from seedvr2_engine.models.vae.tiling import TileSpec, blend_window, decode_grid, encode_grid, tile_ranges


@given(extent=st.integers(1, 200), size=st.integers(1, 60), overlap=st.integers(0, 59))
def test_spans_cover_everything(extent, size, overlap):
    overlap = min(overlap, size - 1)
    spans = tile_ranges(extent, size, overlap)
    covered = {cell for span in spans for cell in range(span.start, span.stop)}
    assert covered == set(range(extent))
    assert all(span.stop - span.start <= size for span in spans)
    assert not spans[0].fades_in
    assert not spans[-1].fades_out


@given(
    height=st.integers(1, 12),
    width=st.integers(1, 12),
    size=st.integers(8, 100),
    overlap=st.integers(8, 99) | st.just(0),
)
def test_weights_are_positive_everywhere(height, width, size, overlap):
    spec = TileSpec(size, min(overlap, size - 1) if size > 8 else 0)
    for make, scale in ((decode_grid, 1), (encode_grid, 8)):
        grid = make(height * scale, width * scale, spec, 8)
        if grid is None:
            continue
        total = torch.zeros(grid.output_size)
        for tile in grid:
            assert tile.weight.dtype == torch.float32
            total[tile.target] += tile.weight
        assert total.min() > 0


def test_weights_sum_to_one_where_ramps_match_the_overlap():
    grid = decode_grid(20, 40, TileSpec(size_px=96, overlap_px=32), 8)
    total = torch.zeros(grid.output_size)
    for tile in grid:
        total[tile.target] += tile.weight
    torch.testing.assert_close(total, torch.ones_like(total))


def test_one_tile_that_covers_the_frame_is_no_tile():
    assert decode_grid(8, 8, TileSpec(64, 16), 8) is None
    assert encode_grid(64, 64, TileSpec(64, 16), 8) is None
    assert decode_grid(8, 9, TileSpec(64, 16), 8) is not None


def test_a_tile_that_adds_nothing_new_is_left_out():
    assert [(span.start, span.stop) for span in tile_ranges(10, 4, 2)] == [(0, 4), (2, 6), (4, 8), (6, 10)]


@pytest.mark.parametrize(("overlap", "fits"), [(0, True), (1, False), (7, False), (8, True), (-8, False), (64, False)])
def test_an_overlap_has_a_whole_cell_or_nothing(overlap, fits):
    if fits:
        assert TileSpec(64, overlap).overlaps_px == (overlap, overlap)
        return
    with pytest.raises(InvalidArgumentError, match=r"tile overlap: expected"):
        TileSpec(64, overlap)


def test_window_of_a_short_tile_keeps_a_sample():
    spans = tile_ranges(9, 4, 2)
    window = blend_window(spans[-1], 3, 12)
    assert window[-1] == 1
    assert (window >= 0).all()


@pytest.mark.parametrize("size", [(40, 56), (45, 61)])
def test_tiled_encode_has_the_size_of_the_untiled_one(tiny_vae, size):
    video = torch.rand(1, 3, 1, *size) * 2 - 1
    whole = tiny_vae.encode(video)
    tiled = tiny_vae.encode(video, tile=TileSpec(24, 8))
    assert tiled.shape == whole.shape
    assert not (tiled == 0).any()
