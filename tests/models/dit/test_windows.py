"""Windows against the reference's, and the order of tokens that makes them contiguous."""

from itertools import product

import pytest
import torch

from seedvr2_engine.models.dit.windows import SizeGroup, cut_axis, layout_windows, window_cuts, window_size

from .dit_cases import golden

WINDOWS = sorted(name for name in golden() if name.startswith("windows/"))


@pytest.mark.parametrize("name", WINDOWS)
def test_windows_are_the_reference_ones(name):
    _, method, grid = name.split("/")
    cuts = window_cuts(*map(int, grid.split("x")), shifted=method == "shifted")
    windows = [(*t, *h, *w) for t, h, w in product(*cuts)]
    assert len(set(windows)) == len(windows)
    assert set(windows) == {tuple(row) for row in golden()[name].tolist()}


def test_both_window_methods_were_compared():
    assert {name.split("/")[1] for name in WINDOWS} == {"regular", "shifted"}
    assert len(WINDOWS) >= 40


@pytest.mark.parametrize(
    ("extent", "size", "intervals"),
    [
        (68, 15, [(0, 7), (7, 22), (22, 37), (37, 52), (52, 67), (67, 68)]),
        (120, 27, [(0, 13), (13, 40), (40, 67), (67, 94), (94, 120)]),
        (9, 3, [(0, 1), (1, 4), (4, 7), (7, 9)]),
        (3, 1, [(0, 1), (1, 2), (2, 3)]),
        (5, 5, [(0, 5)]),
    ],
)
def test_shifted_cuts(extent, size, intervals):
    assert list(cut_axis(extent, size, shifted=True)) == intervals


@pytest.mark.parametrize("extent", range(1, 40))
@pytest.mark.parametrize("shifted", [False, True])
def test_cuts_cover_an_axis_without_gaps(extent, shifted):
    for size in range(1, 45):
        cuts = cut_axis(extent, size, shifted=shifted)
        assert [position for start, end in cuts for position in range(start, end)] == list(range(extent))
        assert max(end - start for start, end in cuts) <= size


@pytest.mark.parametrize(("frames", "tokens"), [(1, 1), (4, 1), (5, 2), (29, 8), (30, 8), (33, 8), (200, 8)])
def test_a_window_is_a_quarter_of_thirty_frames_at_most(frames, tokens):
    assert window_size(frames, 45, 80) == (tokens, 15, 27)


def test_window_size_of_a_line():
    assert window_size(1, 1, 100_000) == (1, 1, 6325)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("grid", [(2, 22, 35), (9, 4, 4), (1, 1, 1)])
def test_joint_sequences_hold_a_window_and_its_clips_text(batch, shifted, grid):
    cuts = window_cuts(*grid, shifted=shifted)
    text_tokens = 5
    layout = layout_windows(batch, cuts, text_tokens)
    raster = torch.arange(batch * grid[0] * grid[1] * grid[2]).view(batch, *grid)
    text = -1 - torch.arange(batch * text_tokens)
    joint = torch.cat([raster.flatten()[layout.order], text])[layout.joint_rows]

    found = {tuple(part.tolist()) for part in joint.tensor_split(layout.joint_bounds[1:-1].long())}
    expected = {
        (*raster[clip, t[0] : t[1], h[0] : h[1], w[0] : w[1]].flatten().tolist(), *text.view(batch, -1)[clip].tolist())
        for clip in range(batch)
        for t, h, w in product(*cuts)
    }
    assert found == expected
    assert torch.equal(joint[layout.video_rows], raster.flatten()[layout.order])
    assert torch.equal(joint[layout.text_rows], text.view(batch, 1, -1).expand(layout.text_rows.shape))
    sizes = [group.tokens for group in layout.groups for _ in range(group.windows)]
    assert layout.video_bounds.diff().tolist() == sizes == sorted(sizes)
    assert layout.joint_bounds.diff().tolist() == [size + text_tokens for size in sizes]
    assert layout.longest == max(sizes)


def test_windows_of_one_size_are_one_group():
    layout = layout_windows(2, window_cuts(1, 45, 80, shifted=False), 58)
    assert layout.groups == (SizeGroup(windows=6, tokens=390), SizeGroup(windows=12, tokens=405))
