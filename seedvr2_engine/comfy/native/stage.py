"""The model inside ComfyUI's VAE object: the members that its own SeedVR2 VAE has, computed by what serves here.

Source of the protocol: ComfyUI's `comfy/ldm/seedvr/vae.py` and `comfy/sd.py`. Latents of ComfyUI's nodes are the
posterior's mean times 0.9152; `encode` gives them unscaled, `format_encoded` scales them, `decode` takes them scaled.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from ...device import is_out_of_memory
from ...engine.served_vae import ServedVAE
from ...errors import DeviceMemoryError, EngineUnsupportedError, InvalidArgumentError
from ...models.vae.config import VAEConfig
from ...models.vae.model import VideoVAE
from ...pipeline.memory import PLAIN_VAE_COPIES
from ...pipeline.to_host import staged
from ...plan.choices import memory_budget_bytes
from ...plan.compile import compile_vae_plan
from ...plan.execution_plan import Part, VAEShape
from ...plan.gpus import device_spec
from ...quant import QuantRecipe
from ...quant.recipe import Precision
from ..progress import NodeProgress
from ..vae_model import ManagedVAE, prepare_for
from .tiles import TileRequest, run_tiled

TILE_CELLS = (32, 96)
"""Latent cells of a tile's edge that ComfyUI chooses for want of memory, least and most; multiples of 8."""
TILE_SHARE = 0.6
"""Share of the free memory that such a tile may take."""
_STAGED_FRAMES = 8


@dataclass(frozen=True)
class StageWeights:
    """Where the weights come from, each time that the model is made."""

    config: VAEConfig
    """Of the model."""
    load: Callable[[torch.dtype], VideoVAE]
    """The plain model on the CPU."""
    tensors: Callable[[], Mapping[str, Tensor]]
    """Every tensor under ComfyUI's name."""
    are_quantised: bool = False
    """Whether the file has them in few bits."""


class EngineStage:
    """Takes the place of `first_stage_model` in a VAE object."""

    comfy_has_chunked_io = True
    # The engine makes do with less memory than it would like, by itself.
    comfy_decode_estimate_is_reliable = False

    def __init__(self, vae: ManagedVAE, weights: StageWeights, *, prefers_whole: bool) -> None:
        """prefers_whole: tiles are a matter of memory, not of the node that asks for them."""
        self.vae = vae
        self.weights = weights
        self._prefers_whole = prefers_whole
        config = vae.config
        self.scale = config.scaling_factor
        self.spatial_downsample_factor = config.spatial_compression
        self.temporal_downsample_factor = config.temporal_compression

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.vae.device

    def state_dict(self) -> Mapping[str, Tensor]:
        """The weights, which ComfyUI saves."""
        return self.weights.tensors()

    def encode(self, x: Tensor, device: torch.device | None = None) -> Tensor:
        """Pictures (B, 3, T, H, W) or (B, 3, H, W) in [-1, 1], any float, where they are -> the unscaled mean, FP32 on
        the CPU: (B, 16, n+1, H//8, W//8), or without the axis of time if that is 1. Frames beyond 4n+1 change nothing.

        device: as ComfyUI calls it; the model's own is used.
        """
        clips = x[:, :, None] if x.ndim == 4 else x
        progress = NodeProgress(len(clips) * clips.shape[2])
        return self._encode(clips, progress).squeeze(2)

    def comfy_format_encoded(self, samples: Tensor) -> Tensor:
        """Unscaled latents, 4-D or 5-D, to those of ComfyUI's nodes: (B, 16, n+1, h, w), scaled."""
        samples = samples[:, :, None] if samples.ndim == 4 else samples
        return samples.contiguous() * self.scale

    def decode(self, z: Tensor, output_buffer: Tensor | None = None, **_: Any) -> Tensor:
        """Scaled latents (B, 16, n+1, h, w) or (B, 16(n+1), h, w) -> pictures (B, 3, 4n+1, 8h, 8w), nominally in
        [-1, 1], written into the buffer, of any dtype and device, or in the dtype and on the device of `z`.
        """
        latents = self._five_axes(z)
        size = self.decode_output_shape(latents.shape)
        out = torch.empty(size, dtype=z.dtype, device=z.device) if output_buffer is None else output_buffer
        progress = NodeProgress(len(latents) * size[2])
        for latent, target in zip(latents, out, strict=True):
            self._decode(latent[None], target[None], progress)
        return out

    def decode_output_shape(self, shape: torch.Size | tuple[int, ...]) -> tuple[int, ...]:
        """The shape of `decode`'s result for latents of this one."""
        clips, _, steps, rows, columns = self._latent_shape(shape)
        cell = self.spatial_downsample_factor
        return (clips, 3, self.temporal_downsample_factor * (steps - 1) + 1, cell * rows, cell * columns)

    def encode_tiled(
        self, x: Tensor, tile_x: int | None = None, tile_y: int | None = None, overlap: int | None = None, **_: Any
    ) -> Tensor:
        """As `encode`, always with the axis of time, in tiles of so many pixels (512, that share 64, if None).

        ComfyUI's temporal tiles are ignored, as its own model ignores them: time is exact without.
        """
        cell = self.spatial_downsample_factor
        request = TileRequest(tile_y or 512, tile_x or 512, 64 if overlap is None else overlap, cell)
        if self._prefers_whole:
            return self._encode(x, NodeProgress(len(x) * x.shape[2]))
        frames = self._usable(x.shape[2])
        progress = NodeProgress(len(x) * x.shape[2] * len(list(request.spans(*x.shape[-2:]))))
        size = (1, 16, (frames - 1) // self.temporal_downsample_factor + 1, x.shape[-2] // cell, x.shape[-1] // cell)
        return torch.cat(
            [run_tiled(clip[None], request, (1, cell), size, lambda tile: self._encode(tile, progress)) for clip in x]
        )

    def decode_tiled(self, z: Tensor, tile_x: int = 32, tile_y: int = 32, overlap: int = 8, **_: Any) -> Tensor:
        """As `decode`, in tiles of so many latent cells; in the dtype of `z`, on the CPU."""
        latents = self._five_axes(z)
        size = self.decode_output_shape(latents.shape)
        if self._prefers_whole:
            return self.decode(latents, torch.empty(size, dtype=z.dtype))
        request = TileRequest(tile_y, tile_x, overlap, 1)
        progress = NodeProgress(len(latents) * size[2] * len(list(request.spans(*latents.shape[-2:]))))

        def run(tile: Tensor) -> Tensor:
            out = torch.empty(self.decode_output_shape(tile.shape))
            self._decode(tile, out, progress)
            return out

        cell = self.spatial_downsample_factor
        clips = [run_tiled(latent[None], request, (cell, 1), (1, *size[1:]), run) for latent in latents]
        return torch.cat(clips).to(z.dtype)

    def preferred_decode_tile(self, free_memory: float, dtype: torch.dtype) -> int:
        """Latent cells of a tile's edge that free memory, in bytes, suffices for."""
        least, most = TILE_CELLS
        for edge in range(most, least, -8):
            if self.comfy_memory_used_decode((1, 16, 2, edge, edge), dtype) <= TILE_SHARE * free_memory:
                return edge
        return least

    def comfy_memory_used_encode(self, shape: torch.Size | tuple[int, ...], dtype: torch.dtype) -> int:
        """Bytes on the device, beside the weights, to encode pictures (B, 3, T, H, W); of any number and length."""
        return self._working_bytes("encode", (shape[-2], shape[-1]), dtype)

    def comfy_memory_used_decode(self, shape: torch.Size | tuple[int, ...], dtype: torch.dtype) -> int:
        """The same to decode latents, 4-D or 5-D."""
        cell = self.spatial_downsample_factor
        return self._working_bytes("decode", (cell * shape[-2], cell * shape[-1]), dtype)

    def _encode(self, clips: Tensor, progress: NodeProgress) -> Tensor:
        frames = self._usable(clips.shape[2])
        with _as_comfyui_expects():
            served = prepare_for(self.vae, "encode", (clips.shape[-2], clips.shape[-1]))
            latents = []
            for clip in clips:
                pictures = self._pictures(clip[:, :frames], progress)
                latents.append(torch.stack([latent.float().cpu() for latent in served.stream_encode(pictures)], dim=2))
        return torch.cat(latents)

    def _pictures(self, clip: Tensor, progress: NodeProgress) -> Iterator[Tensor]:
        for frame in clip.unbind(1):
            yield frame[None].to(self.device)
            progress.advance()

    def _decode(self, latent: Tensor, out: Tensor, progress: NodeProgress) -> None:
        """One clip (1, 16, n+1, h, w), scaled, into (1, 3, 4n+1, 8h, 8w)."""
        size = (out.shape[-2], out.shape[-1])
        with _as_comfyui_expects():
            pictures = self._stream(prepare_for(self.vae, "decode", size), latent)
            for index, picture in enumerate(pictures if out.is_cuda else staged(pictures, _STAGED_FRAMES)):
                out[0, :, index] = picture
                progress.advance()

    def _stream(self, served: ServedVAE, latent: Tensor) -> Iterator[Tensor]:
        steps = (step.to(self.device).float() / self.scale for step in latent.unbind(2))
        return (picture[0] for picture in served.stream_decode(steps))

    def _usable(self, frames: int) -> int:
        # The model is causal: what comes after the last whole latent frame is not looked at.
        return frames - (frames - 1) % self.temporal_downsample_factor

    def _latent_shape(self, shape: torch.Size | tuple[int, ...]) -> tuple[int, int, int, int, int]:
        channels = self.vae.config.latent_channels
        if len(shape) == 4 and shape[1] % channels == 0:
            return shape[0], channels, shape[1] // channels, shape[2], shape[3]
        if len(shape) == 5 and shape[1] == channels:
            return shape[0], shape[1], shape[2], shape[3], shape[4]
        raise InvalidArgumentError(
            f"samples: expected latents (clips, {channels}, n+1, h, w) of SeedVR2, got {tuple(shape)}; connect "
            "those of a VAE Encode with this VAE."
        )

    def _five_axes(self, z: Tensor) -> Tensor:
        return z.reshape(self._latent_shape(z.shape))

    def _working_bytes(self, part: Part, size: tuple[int, int], dtype: torch.dtype) -> int:
        built = self.vae.resident.built
        if self.device.type == "cuda" and (built is None or built.is_engine):
            recipe = QuantRecipe("fp16") if built is None or built.engine is None else built.engine.recipe
            return _planned_bytes(self.vae.config, self.device, recipe.precision, part, size)
        channels = max(self.vae.config.block_out_channels[:2])
        slice_frames = self.temporal_downsample_factor + 1
        return int(PLAIN_VAE_COPIES * dtype.itemsize * channels * slice_frames * size[0] * size[1])


@lru_cache(maxsize=64)
def _planned_bytes(
    config: VAEConfig, device: torch.device, precision: Precision, part: Part, size: tuple[int, int]
) -> int:
    """What the engine takes beside its weights, given the whole GPU. No model is kept in the cache's keys."""
    spec = device_spec(device)
    budget = memory_budget_bytes(spec, None)
    plan = compile_vae_plan(config, QuantRecipe(precision), spec, VAEShape(part, *size, None), budget)
    return max(1, plan.memory.peak - plan.memory.weights)


@contextmanager
def _as_comfyui_expects() -> Iterator[None]:
    """For want of memory ComfyUI looks for PyTorch's exception, and tries again with tiles."""
    try:
        yield
    except Exception as error:
        if isinstance(error, torch.OutOfMemoryError) or not (
            is_out_of_memory(error) or isinstance(error, (DeviceMemoryError, EngineUnsupportedError))
        ):
            raise
        raise torch.OutOfMemoryError(str(error)) from error
