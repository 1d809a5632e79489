"""The SeedVR2 causal video VAE: encoder, decoder, and a clip's way through them whole, in slices or in tiles.

Source of the architecture: ByteDance-Seed/SeedVR, `models/video_vae_v3`. Tensors are (N, C, T, H, W) throughout.
Statistics of GroupNorm and attention are per frame, so the only memory between slices of time is that of the
causal convolutions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import cast, overload

import torch
from torch import Tensor, nn

from ...errors import InvalidArgumentError
from ..precision import exact_float32
from .blocks import Downsample, MidBlock, Resnet, Upsample, activated, frame_norm
from .causal import CausalCache, causal_conv3x3x3, give_four_frames_a_latent
from .config import VAEConfig
from .inputs import batches, check_frames, check_input, check_slices
from .tiling import TileGrid, TileSpec, decode_grid, encode_grid


class DownBlock(nn.Module):
    """One encoder level."""

    def __init__(self, channels_in: int, channels_out: int, config: VAEConfig, downsample: Downsample | None) -> None:
        super().__init__()
        widths = [channels_in] + [channels_out] * config.layers_per_block
        self.resnets = nn.ModuleList([Resnet(a, b, config) for a, b in pairwise(widths)])
        self.downsamplers = nn.ModuleList([downsample] if downsample else [])

    def forward(self, x: Tensor, cache: CausalCache | None = None) -> Tensor:
        """(N, channels_in, T, H, W) -> (N, channels_out, T', H', W')."""
        for layer in (*self.resnets, *self.downsamplers):
            x = layer(x, cache)
        return x


class UpBlock(nn.Module):
    """One decoder level."""

    def __init__(self, channels_in: int, channels_out: int, config: VAEConfig, upsample: Upsample | None) -> None:
        super().__init__()
        widths = [channels_in] + [channels_out] * (config.layers_per_block + 1)
        self.resnets = nn.ModuleList([Resnet(a, b, config) for a, b in pairwise(widths)])
        self.upsamplers = nn.ModuleList([upsample] if upsample else [])

    def forward(self, x: Tensor, cache: CausalCache | None = None) -> Tensor:
        """(N, channels_in, t, H, W) -> (N, channels_out, t', H', W')."""
        for layer in (*self.resnets, *self.upsamplers):
            x = layer(x, cache)
        return x


class Encoder(nn.Module):
    """Pictures to the posterior's moments."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        widths = config.block_out_channels
        self.conv_in = causal_conv3x3x3(config.image_channels, widths[0])
        self.down_blocks = nn.ModuleList()
        for level, (channels_in, channels) in enumerate(zip((widths[0], *widths), widths, strict=False)):
            last = level == len(widths) - 1
            downsample = None if last else Downsample(channels, time=config.encoder_downsamples_time(level))
            self.down_blocks.append(DownBlock(channels_in, channels, config, downsample))
        self.mid_block = MidBlock(widths[-1], config)
        self.conv_norm_out = frame_norm(widths[-1], config)
        self.conv_out = causal_conv3x3x3(widths[-1], 2 * config.latent_channels)
        halves = [level for level in range(len(widths)) if config.encoder_downsamples_time(level)]
        give_four_frames_a_latent(self.conv_in, *self.down_blocks[: halves[0] + 1])

    def forward(self, video: Tensor, cache: CausalCache | None = None) -> Tensor:
        """(N, 3, 4n+1, H, W) in [-1, 1] -> moments (N, 32, n+1, H//8, W//8): mean, then raw log-variance.

        With a cache, slices after the first have 4n frames and give n latent frames.
        """
        x = self.conv_in(video, cache)
        for block in self.down_blocks:
            x = block(x, cache)
        x = self.mid_block(x, cache)
        result: Tensor = self.conv_out(activated(self.conv_norm_out(x)), cache)
        return result


class Decoder(nn.Module):
    """Latents to pictures."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        widths = config.block_out_channels[::-1]
        self.conv_in = causal_conv3x3x3(config.latent_channels, widths[0])
        self.mid_block = MidBlock(widths[0], config)
        self.up_blocks = nn.ModuleList()
        for index, (channels_in, channels) in enumerate(zip((widths[0], *widths), widths, strict=False)):
            last = index == len(widths) - 1
            upsample = None if last else Upsample(channels, time=config.decoder_upsamples_time(index))
            self.up_blocks.append(UpBlock(channels_in, channels, config, upsample))
        self.conv_norm_out = frame_norm(widths[-1], config)
        self.conv_out = causal_conv3x3x3(widths[-1], config.image_channels)
        doubled = [index for index in range(len(widths)) if config.decoder_upsamples_time(index)]
        upsamplers = cast(UpBlock, self.up_blocks[doubled[-1]]).upsamplers
        give_four_frames_a_latent(upsamplers, *self.up_blocks[doubled[-1] + 1 :], self.conv_out)

    def forward(self, latent: Tensor, cache: CausalCache | None = None) -> Tensor:
        """(N, 16, n+1, h, w) -> (N, 3, 4n+1, 8h, 8w), nominally in [-1, 1], not clamped.

        With a cache, slices after the first have n latent frames and give 4n frames.
        """
        x = latent
        for block in self.blocks:
            x = block(x, cache)
        return self.finish(x, cache)

    @property
    def blocks(self) -> tuple[nn.Module, ...]:
        """All that comes before `finish`, in order; each is called with a tensor and the cache."""
        return (self.conv_in, self.mid_block, *self.up_blocks)

    def finish(self, x: Tensor, cache: CausalCache | None = None) -> Tensor:
        """What the last block gives (N, C, T, H, W) -> pictures."""
        result: Tensor = self.conv_out(activated(self.conv_norm_out(x)), cache)
        return result


class VideoVAE(nn.Module):
    """Encoder and decoder with the schedules over time and space.

    `encode` and `decode` give the same numbers whole or sliced (up to rounding); tiles are an approximation.
    Inputs are moved to the weights' device and dtype; results stay there. Nothing is recorded for gradients: train
    through `encoder` and `decoder`.
    """

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.encoder.conv_in.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """The number format of weights and activations."""
        return self.encoder.conv_in.weight.dtype

    @torch.no_grad()
    def encode(self, video: Tensor, *, slice_frames: int | None = None, tile: TileSpec | None = None) -> Tensor:
        """Encode (N, 3, 4n+1, H, W) in [-1, 1] to the posterior mean (N, 16, n+1, H//8, W//8), unscaled.

        slice_frames: picture frames a slice, a multiple of 4 (the first slice has one more); None is the whole clip.
        tile: spatial tiles; None is the whole frame.
        """
        return self.encode_distribution(video, slice_frames=slice_frames, tile=tile)[0]

    @torch.no_grad()
    def encode_distribution(
        self, video: Tensor, *, slice_frames: int | None = None, tile: TileSpec | None = None
    ) -> tuple[Tensor, Tensor]:
        """As `encode`: the posterior's mean, and its log-variance clamped to [-30, 20]."""
        check_input("video", video, self.config.image_channels)
        frames, cell = video.shape[2], self.config.spatial_compression
        check_frames(frames, self.config.temporal_compression)
        if min(video.shape[3:]) < cell:
            raise InvalidArgumentError(f"video: expected at least {cell}x{cell} px, got {_size(video)}; pad it.")
        passage = _Passage(self, self.encoder, tile, sliced=slice_frames is not None)
        slices = time_slices(frames, self._slice_length(slice_frames))
        moments = torch.cat([passage(video[:, :, part]) for part in slices], dim=2)
        mean, logvar = moments.chunk(2, dim=1)
        return mean, logvar.clamp(-30, 20)

    @torch.no_grad()
    def decode(self, latent: Tensor, *, slice_frames: int | None = None, tile: TileSpec | None = None) -> Tensor:
        """Decode (N, 16, n+1, h, w), unscaled, to (N, 3, 4n+1, 8h, 8w), nominally in [-1, 1], not clamped.

        slice_frames: picture frames a slice, a multiple of 4 (the first slice has one more); None is the whole clip.
        tile: spatial tiles; None is the whole frame.
        """
        check_input("latent", latent, self.config.latent_channels)
        passage = _Passage(self, self.decoder, tile, sliced=slice_frames is not None)
        length = self._slice_length(slice_frames)
        slices = time_slices(latent.shape[2], length and length // self.config.temporal_compression)
        return torch.cat([passage(latent[:, :, part]) for part in slices], dim=2)

    @torch.no_grad()
    def stream_encode(
        self, frames: Iterable[Tensor], *, slice_frames: int = 4, tile: TileSpec | None = None
    ) -> Iterator[Tensor]:
        """Encode frames (N, 3, H, W) as they come; yields latent frames (N, 16, H//8, W//8), unscaled.

        Memory does not depend on the number of frames, which must be 4n+1 in the end (ValueError otherwise).
        Arguments as in `encode`.
        """
        length = self._slice_length(slice_frames)
        passage = _Passage(self, self.encoder, tile, sliced=True)
        count = 0
        for batch in batches(frames, first=1 + length, rest=length):
            count += len(batch)
            video = torch.stack(batch, dim=2)
            check_input("frame", video, self.config.image_channels)
            if count % self.config.temporal_compression != 1:
                raise InvalidArgumentError(
                    f"frames: expected 4n+1 (1, 5, 9, ...), got {count}; repeat the last frame to fill up."
                )
            mean, _ = passage(video).chunk(2, dim=1)
            yield from mean.unbind(dim=2)

    @torch.no_grad()
    def stream_decode(
        self, latents: Iterable[Tensor], *, slice_frames: int = 4, tile: TileSpec | None = None
    ) -> Iterator[Tensor]:
        """Decode latent frames (N, 16, h, w), unscaled, as they come; yields frames (N, 3, 8h, 8w).

        n+1 latent frames give 4n+1 frames; memory does not depend on their number. Arguments as in `decode`.
        """
        length = self._slice_length(slice_frames) // self.config.temporal_compression
        passage = _Passage(self, self.decoder, tile, sliced=True)
        for batch in batches(latents, first=1 + length, rest=length):
            latent = torch.stack(batch, dim=2)
            check_input("latent", latent, self.config.latent_channels)
            yield from passage(latent).unbind(dim=2)

    @overload
    def _slice_length(self, slice_frames: int) -> int: ...

    @overload
    def _slice_length(self, slice_frames: None) -> None: ...

    @overload
    def _slice_length(self, slice_frames: int | None) -> int | None: ...

    def _slice_length(self, slice_frames: int | None) -> int | None:
        check_slices(slice_frames, self.config.temporal_compression)
        return slice_frames


class _Passage:
    """One clip's way through the encoder or the decoder: a causal cache for every tile."""

    def __init__(self, vae: VideoVAE, network: Encoder | Decoder, tile: TileSpec | None, *, sliced: bool) -> None:
        self._vae = vae
        self._network = network
        self._tile = tile
        self._sliced = sliced
        self._caches: list[CausalCache] = []

    def __call__(self, x: Tensor) -> Tensor:
        """The next slice of the clip, all tiles blended."""
        x = x.to(self._vae.device, self._vae.dtype)
        with exact_float32():
            grid = self._grid(x)
            if grid is None:
                result: Tensor = self._network(x, self._cache(0))
                return result
            return self._blend(x, grid)

    def _grid(self, x: Tensor) -> TileGrid | None:
        if self._tile is None:
            return None
        make_grid = encode_grid if isinstance(self._network, Encoder) else decode_grid
        return make_grid(x.shape[3], x.shape[4], self._tile, self._vae.config.spatial_compression)

    def _cache(self, index: int) -> CausalCache | None:
        if not self._sliced:
            return None
        while len(self._caches) <= index:
            self._caches.append(CausalCache())
        return self._caches[index]

    def _blend(self, x: Tensor, grid: TileGrid) -> Tensor:
        # Sums and weights in FP32: sixteen bits would show the seams that the windows hide.
        total_weight = torch.zeros(grid.output_size, device=x.device)
        blended: Tensor | None = None
        for index, tile in enumerate(grid):
            out = self._network(x[..., tile.source[0], tile.source[1]], self._cache(index))
            weight = tile.weight.to(x.device)
            if blended is None:
                blended = torch.zeros(*out.shape[:3], *grid.output_size, device=x.device)
            blended[..., tile.target[0], tile.target[1]] += out.float() * weight
            total_weight[tile.target] += weight
        assert blended is not None
        return (blended / total_weight).to(x.dtype)


def time_slices(frames: int, length: int | None) -> list[slice]:
    """Cut `frames` into a first slice of 1 + `length` and further ones of `length`; None is one slice."""
    if length is None:
        return [slice(0, frames)]
    starts = [0, *range(1 + length, frames, length)]
    return [slice(a, min(b, frames)) for a, b in zip(starts, [*starts[1:], frames], strict=True)]


def _size(video: Tensor) -> str:
    return f"{video.shape[-1]}x{video.shape[-2]} px"
