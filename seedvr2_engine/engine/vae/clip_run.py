"""A clip on its way through the session: whole frames, or tiles that are blended."""

from collections.abc import Iterator

import torch
from torch import Tensor

from ...models.vae.tiling import TileGrid
from ...plan.execution_plan import FRAMES_PER_STEP, ExecutionPlan
from .session import Clip, Session


class ClipRun:
    """One clip on its way, whole frames or all its tiles."""

    def __init__(self, session: Session, plans: list[ExecutionPlan], grid: TileGrid | None) -> None:
        """plans: of every tile of the grid, or of the whole frame."""
        self._session = session
        self._clips = [Clip(plan) for plan in plans]
        self._grid = grid

    def step(self, x: Tensor) -> Tensor:
        """The next latent frame (C, 1, h, w) or its pictures (3, T, H, W) -> result (C, T, H, W), the caller's own."""
        if self._grid is None:
            return self._advance(self._clips[0], x).clone()
        blend = _Blend(self._grid)
        for index, clip in enumerate(self._clips):
            source = self._grid.tiles[index].source
            out = self._advance(clip, x[..., source[0], source[1]])
            blend.add(index, out, slice(0, out.shape[1]), out.shape[1])
        return blend.result()

    def whole(self, x: Tensor, out: Tensor) -> None:
        """A whole clip (C, T, H, W) -> its result in `out`; tile by tile, so that no tile need be put aside."""
        if self._grid is None:
            self._through(self._clips[0], x, out)
            return
        blend = _Blend(self._grid)
        for index, clip in enumerate(self._clips):
            source = self._grid.tiles[index].source
            length = 1 if clip.plan.shape.part == "decode" else FRAMES_PER_STEP
            done = 0
            for piece in _time_parts(x[..., source[0], source[1]], length):
                result = self._advance(clip, piece)
                blend.add(index, result, slice(done, done + result.shape[1]), out.shape[1])
                done += result.shape[1]
            self._session.close(clip)
        out.copy_(blend.result())

    def close(self) -> None:
        """Nothing will be asked of the clip any more."""
        for clip in self._clips:
            self._session.close(clip)

    def _through(self, clip: Clip, x: Tensor, out: Tensor) -> None:
        done = 0
        for part in _time_parts(x, 1 if clip.plan.shape.part == "decode" else FRAMES_PER_STEP):
            result = self._advance(clip, part)
            out[:, done : done + result.shape[1]].copy_(result)
            done += result.shape[1]

    def _advance(self, clip: Clip, x: Tensor) -> Tensor:
        """(C, T, H, W) -> (C, T, H, W), overwritten by the next step."""
        if clip.plan.shape.part == "decode":
            return self._session.step(clip, x[:, 0])
        return self._session.step(clip, x)[:, None]


class _Blend:
    """Sums of tiles, FP32: sixteen bits would show the seams that the windows hide."""

    def __init__(self, grid: TileGrid) -> None:
        self._grid = grid
        self._sum: Tensor | None = None
        self._dtype = torch.float32

    def add(self, index: int, out: Tensor, frames: slice, count: int) -> None:
        """Add a tile's frames (C, T, H, W), which are `frames` of the `count` that the result has."""
        tile = self._grid.tiles[index]
        if self._sum is None:
            self._dtype = out.dtype
            self._sum = torch.zeros(out.shape[0], count, *self._grid.output_size, device=out.device)
        self._sum[:, frames, tile.target[0], tile.target[1]] += out.float() * tile.weight.to(out.device)

    def result(self) -> Tensor:
        """The blended frames, in the tiles' dtype."""
        assert self._sum is not None
        total = torch.zeros(self._grid.output_size)
        for tile in self._grid:
            total[tile.target] += tile.weight
        return self._sum.div_(total.to(self._sum.device)).to(self._dtype)


def _time_parts(x: Tensor, length: int) -> Iterator[Tensor]:
    """(C, T, H, W) cut into a first frame and parts of `length`."""
    yield x[:, :1]
    for start in range(1, x.shape[1], length):
        yield x[:, start : start + length]
