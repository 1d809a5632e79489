"""A clip through the VAE and back: encode, decode, and nothing else."""

from collections import deque
from collections.abc import Iterable, Iterator
from math import isfinite
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from ..color.space import from_rgb, to_rgb
from ..errors import InvalidArgumentError
from ..models.vae.config import VAEConfig
from ..models.vae.tiling import TileSpec
from .chunks import padded_count
from .to_host import on_host


class VideoCodec(Protocol):
    """What encodes and decodes a stream of frames: the plain model, or the engine."""

    @property
    def config(self) -> VAEConfig:
        """The model's hyper-parameters."""

    @property
    def device(self) -> torch.device:
        """Where results are."""

    @property
    def dtype(self) -> torch.dtype:
        """Number format of decoded pictures."""

    def stream_encode(
        self, frames: Iterable[Tensor], *, slice_frames: int = ..., tile: TileSpec | None = ...
    ) -> Iterator[Tensor]:
        """Frames (N, 3, H, W) in [-1, 1] -> latent frames."""

    def stream_decode(
        self, latents: Iterable[Tensor], *, slice_frames: int = ..., tile: TileSpec | None = ...
    ) -> Iterator[Tensor]:
        """Latent frames -> frames (N, 3, H, W)."""


def reconstruct(
    frames: Iterable[Tensor], vae: VideoCodec, *, slice_frames: int = 4, tile: TileSpec | None = None
) -> Iterator[Tensor]:
    """Encode and decode pictures (3, H, W) in [0, 1]; yields as many, of the same size, clamped, in FP32 on the CPU.

    Any size and any number of frames will do: edges are repeated up to multiples of 8 pixels and the last frame
    up to 4n+1 frames, and both are trimmed back. Frames are taken as they are needed and given as they are
    done, so memory does not depend on their number. All frames must have one size (InvalidArgumentError). NaN counts
    as 0 and infinities as 0 and 1.
    """
    sizes: deque[tuple[int, int]] = deque()
    latents = vae.stream_encode(filled_frames(frames, vae.config, sizes), slice_frames=slice_frames, tile=tile)

    def decoded() -> Iterator[Tensor]:
        for frame in vae.stream_decode(latents, slice_frames=slice_frames, tile=tile):
            if not sizes:
                return
            height, width = sizes.popleft()
            yield from_model_range(frame[0, :, :height, :width])

    yield from on_host(decoded())


def filled_frames(
    frames: Iterable[Tensor],
    config: VAEConfig,
    sizes: deque[tuple[int, int]] | None = None,
    *,
    cell: int | None = None,
) -> Iterator[Tensor]:
    """Pictures (3, H, W) in [0, 1] to what an encoder takes: 4n+1 frames (1, 3, 8h, 8w) in [-1, 1].

    sizes: gets (height, width) of every picture before it was filled up. cell: pixels to multiples of which pictures
    are filled up; None is a latent cell.
    """
    sizes = deque(maxlen=1) if sizes is None else sizes
    return _fill_up(_prepared(frames, cell or config.spatial_compression, sizes), config.temporal_compression)


def defined(frame: Tensor) -> Tensor:
    """The frame with NaN as 0 and infinities as the ends of [0, 1]; itself where it has none.

    One such number would spread over everything that a model sees together with it.
    """
    # Asking a GPU would wait for it.
    if frame.device.type == "cpu" and isfinite(frame.sum()):
        return frame
    return frame.nan_to_num(nan=0.0, posinf=1.0, neginf=0.0)


def to_model_range(rgb: Tensor) -> Tensor:
    """[0, 1] -> [-1, 1], in FP32."""
    return from_rgb(rgb.float())


def from_model_range(x: Tensor) -> Tensor:
    """[-1, 1] -> [0, 1], clamped, in FP32; NaN becomes 0."""
    return to_rgb(x.float()).nan_to_num_(0)


def _prepared(frames: Iterable[Tensor], cell: int, sizes: deque[tuple[int, int]]) -> Iterator[Tensor]:
    expected: torch.Size | None = None
    for index, rgb in enumerate(frames):
        expected = expected or rgb.shape
        if rgb.ndim != 3 or rgb.shape[0] != 3 or rgb.shape != expected or 0 in rgb.shape:
            raise InvalidArgumentError(
                f"frame {index}: expected shape (3, H, W), the same for all frames, got {tuple(rgb.shape)}"
                f" after {tuple(expected)}."
            )
        if not rgb.is_floating_point():
            raise InvalidArgumentError(f"frame {index}: expected floating-point values in [0, 1], got {rgb.dtype}.")
        height, width = rgb.shape[1:]
        sizes.append((height, width))
        yield F.pad(to_model_range(defined(rgb))[None], (0, -width % cell, 0, -height % cell), mode="replicate")


def _fill_up(frames: Iterator[Tensor], step: int) -> Iterator[Tensor]:
    count = 0
    for frame in frames:
        count += 1
        yield frame
    if count:
        for _ in range(padded_count(count, step) - count):
            yield frame
