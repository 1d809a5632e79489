"""How the transformer's tokens fall into attention windows, and the order that makes windows contiguous.

Source of the window rule: ByteDance-Seed/SeedVR, `models/dit/window.py` (counts 4 x 3 x 3, sizes as at 720p).
"""

import dataclasses
from dataclasses import dataclass
from itertools import accumulate, pairwise
from math import ceil, prod, sqrt

import torch
from torch import Tensor

Interval = tuple[int, int]
AxisCuts = tuple[Interval, ...]

_NORMAL_TOKENS = 3600  # 80 x 45 tokens: a frame of 1280 x 720 px
_NORMAL_FRAMES = 30


def window_size(frames: int, height: int, width: int) -> tuple[int, int, int]:
    """The unclipped window (frames, height, width) in tokens for a token grid of this size.

    A window is a third of the frame in each direction, as if the frame had 3600 tokens, and a quarter of the clip,
    as if it had at most 30 latent frames.
    """
    scale = sqrt(_NORMAL_TOKENS / (height * width))
    normal_height, normal_width = round(height * scale), round(width * scale)
    # A grid of one row and thousands of columns would round to no row at all.
    return ceil(min(frames, _NORMAL_FRAMES) / 4), max(1, ceil(normal_height / 3)), max(1, ceil(normal_width / 3))


def cut_axis(extent: int, size: int, *, shifted: bool) -> AxisCuts:
    """Cut [0, extent) at multiples of `size`, or half a window earlier; the outer intervals are clipped.

    An axis that one window covers is not shifted. Half of an odd size is rounded towards zero, as in the reference.
    """
    offset = size / 2 if shifted and size < extent else 0
    edges = [0, *(int(i * size - offset) for i in range(1, extent // size + 2)), extent]
    inside = sorted({min(max(edge, 0), extent) for edge in edges})
    return tuple(pairwise(inside))


def window_cuts(frames: int, height: int, width: int, *, shifted: bool) -> tuple[AxisCuts, AxisCuts, AxisCuts]:
    """The intervals of each axis; the windows are all their combinations."""
    extents = frames, height, width
    cuts_t, cuts_h, cuts_w = (
        cut_axis(extent, size, shifted=shifted) for extent, size in zip(extents, window_size(*extents), strict=True)
    )
    return cuts_t, cuts_h, cuts_w


@dataclass(frozen=True)
class SizeGroup:
    """Neighbouring windows of one size."""

    windows: int
    """How many."""
    tokens: int
    """Video tokens in each."""


@dataclass(frozen=True)
class WindowLayout:
    """The tokens of a batch of clips in window order, and how they join the text of their clip.

    Window order: smaller windows first, so that windows of one size are neighbours; inside a window time, height,
    width, the last fastest. A joint sequence is a window's video tokens followed by its clip's text tokens; all
    joint sequences stand one after the other. Index tensors are int64, boundaries int32.
    """

    order: Tensor
    """(batch * T*h*w,): the raster index of each token in window order."""
    groups: tuple[SizeGroup, ...]
    """The windows by size, in window order."""
    text_tokens: int
    """Text tokens of each clip."""
    joint_rows: Tensor
    """(joint tokens,): rows of [video in window order, then text] that make up the joint sequences."""
    video_rows: Tensor
    """(batch * T*h*w,): where each video token is in the joint sequences."""
    text_rows: Tensor
    """(batch, windows of a clip, text tokens): where each text token is in the joint sequences."""
    video_bounds: Tensor
    """(windows + 1,): where each window's video tokens begin, and the end."""
    joint_bounds: Tensor
    """(windows + 1,): where each joint sequence begins, and the end."""

    @property
    def longest(self) -> int:
        """Video tokens of the largest window."""
        return self.groups[-1].tokens

    def to(self, device: torch.device) -> "WindowLayout":
        """The same layout with its tensors on another device."""
        moved = {
            field.name: getattr(self, field.name).to(device)
            for field in dataclasses.fields(self)
            if isinstance(getattr(self, field.name), Tensor)
        }
        return dataclasses.replace(self, **moved)


def layout_windows(batch: int, cuts: tuple[AxisCuts, AxisCuts, AxisCuts], text_tokens: int) -> WindowLayout:
    """Lay out `batch` clips of one shape whose windows are the combinations of `cuts`."""
    clip_cuts = tuple((clip, clip + 1) for clip in range(batch))
    window_of, windows = _window_of_token((clip_cuts, *cuts))
    per_window = torch.bincount(window_of, minlength=windows)
    by_size = torch.argsort(per_window, stable=True)
    rank = torch.argsort(by_size)
    order = torch.argsort(rank[window_of], stable=True)

    sizes = per_window[by_size]
    place = torch.arange(windows)
    video_rows = torch.arange(len(order)) + text_tokens * place.repeat_interleave(sizes)
    text = torch.arange(text_tokens)
    text_rows = (sizes.cumsum(0) + text_tokens * place)[:, None] + text
    clip = by_size // (windows // batch)
    joint_rows = torch.empty(len(order) + windows * text_tokens, dtype=torch.int64)
    joint_rows[video_rows] = torch.arange(len(order))
    joint_rows[text_rows] = len(order) + text_tokens * clip[:, None] + text

    group_sizes, counts = torch.unique_consecutive(sizes, return_counts=True)
    return WindowLayout(
        order=order,
        groups=tuple(SizeGroup(*pair) for pair in zip(counts.tolist(), group_sizes.tolist(), strict=True)),
        text_tokens=text_tokens,
        joint_rows=joint_rows,
        video_rows=video_rows,
        text_rows=text_rows[rank].reshape(batch, -1, *text_rows.shape[1:]),
        video_bounds=_bounds(sizes.tolist()),
        joint_bounds=_bounds((sizes + text_tokens).tolist()),
    )


def _window_of_token(axes: tuple[AxisCuts, ...]) -> tuple[Tensor, int]:
    """The window number of every position in raster order, windows counted in raster order too; and their number."""
    number = torch.zeros((), dtype=torch.int64)
    for cuts in axes:
        lengths = torch.tensor([end - start for start, end in cuts])
        number = number[..., None] * len(cuts) + torch.arange(len(cuts)).repeat_interleave(lengths)
    return number.flatten(), prod(len(cuts) for cuts in axes)


def _bounds(lengths: list[int]) -> Tensor:
    return torch.tensor([0, *accumulate(lengths)], dtype=torch.int32)
