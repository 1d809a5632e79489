"""The SeedVR2 diffusion transformer ("NaDiT"), 3B and 7B in one.

Source of the architecture: ByteDance-Seed/SeedVR, `models/dit_v2/nadit.py` (3B) and `models/dit/nadit.py` (7B).
Inside, tokens are rows: video tokens (clips * frames * height / 2 * width / 2, width) in the window order of the layer
that works on them, text tokens (clips * text tokens, width).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from ...errors import InvalidArgumentError
from ..precision import exact_float32
from .attention import AttentionKind, choose_attention
from .blocks import Block, BlockModulation
from .config import DiTConfig
from .geometry import Execution, Geometry, LatentShape, plan_geometry
from .rope import RopeRounding
from .streams import linear_float32, rms_norm


@dataclass(frozen=True)
class Conditioning:
    """Everything about a run that follows from the text and the timestep alone, computed once."""

    text: Tensor
    """The text tokens (text tokens, width), in the weights' dtype."""
    blocks: tuple[BlockModulation, ...]
    """Each block's modulations."""
    head: tuple[Tensor, Tensor] | None
    """Shift and scale before the head, (width,) each, float32; None in the 7b family."""


class PatchIn(nn.Module):
    """Latent positions to tokens, a square patch each."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.patch_size = config.patch_size
        self.proj = nn.Linear(config.in_channels * config.patch_positions, config.width)

    def patches(self, video: Tensor) -> Tensor:
        """(clips, T, H, W, channels) -> (clips * T * H/2 * W/2, 4 * channels): row, column, channel of the patch."""
        size = self.patch_size
        clips, frames, height, width, channels = video.shape
        split = video.reshape(clips, frames, height // size, size, width // size, size, channels)
        return split.transpose(3, 4).flatten(4).flatten(0, 3)


class PatchOut(nn.Module):
    """Tokens to latent positions."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.patch_size = config.patch_size
        self.proj = nn.Linear(config.width, config.out_channels * config.patch_positions)

    def positions(self, patches: Tensor, shape: LatentShape) -> Tensor:
        """(clips * T * H/2 * W/2, 4 * channels) -> (clips, T, H, W, channels): the reverse of `PatchIn.patches`."""
        batch, frames, height, width = shape
        size = self.patch_size
        split = patches.view(batch, frames, height // size, width // size, size, size, -1)  # n t h w dh dw c
        return split.transpose(3, 4).reshape(batch, frames, height, width, -1)


class TimestepEmbedding(nn.Module):
    """A timestep to the vectors that modulate every layer."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.sinusoid_width = config.sinusoid_width
        self.proj_in = nn.Linear(config.sinusoid_width, config.width)
        self.proj_hid = nn.Linear(config.width, config.width)
        self.proj_out = nn.Linear(config.width, 6 * config.width)

    def forward(self, timestep: Tensor) -> Tensor:
        """A float32 scalar, 0 to 1000 -> (width, attention/MLP, shift/scale/gate), float32."""
        x = linear_float32(self.proj_in, sinusoid(timestep, self.sinusoid_width))
        x = linear_float32(self.proj_hid, nn.functional.silu(x))
        return linear_float32(self.proj_out, nn.functional.silu(x)).view(-1, 2, 3)


class HeadModulation(nn.Module):
    """The learned shift and scale before the 3b family's head."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.out_shift = nn.Parameter(torch.zeros(width))
        self.out_scale = nn.Parameter(torch.ones(width))

    def forward(self, timestep: Tensor) -> tuple[Tensor, Tensor]:
        """Shift and scale for the timestep's vectors, (width, 2, 3) float32.

        The timestep has no vectors of the head's own: the released weights were trained with the attention's.
        """
        return timestep[:, 0, 0] + self.out_shift.float(), timestep[:, 0, 1] + self.out_scale.float()


class NaDiT(nn.Module):
    """Predicts the velocity of noisy latents, given the low-quality latents, a text and a timestep.

    `dit(video, text, timestep)` does all of it. Where several clips have one shape, text or timestep, compute the
    `geometry` and the `conditioning` once and call `velocity`.
    """

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.config = config
        self.vid_in = PatchIn(config)
        self.txt_in = nn.Linear(config.text_width, config.width)
        self.emb_in = TimestepEmbedding(config)
        self.blocks = nn.ModuleList([Block(config, layer) for layer in range(config.layers)])
        if config.family == "3b":
            self.vid_out_norm = nn.RMSNorm(config.width)
            self.vid_out_ada = HeadModulation(config.width)
        self.vid_out = PatchOut(config)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.vid_in.proj.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """The number format of weights and activations."""
        return self.vid_in.proj.weight.dtype

    def loaded_blocks(self) -> Iterator[Block]:
        """The blocks in order; each can run until the next one is asked for."""
        for block in self.blocks:
            yield cast(Block, block)

    @property
    def resident_bytes(self) -> int:
        """Bytes on the device beside the parameters and buffers; none unless a subclass keeps its weights there."""
        return 0

    def geometry(
        self,
        shape: tuple[int, ...],
        text_tokens: int,
        *,
        rope_rounding: RopeRounding = "float32",
        attention: AttentionKind | None = None,
    ) -> Geometry:
        """Compute what follows from the latents' shape, (T, H, W) or (clips, T, H, W), and the text's length.

        rope_rounding: other than float32 only to compare with the reference; see `RopeRounding`.
        attention: None is the fastest kind that this installation has.
        """
        if len(shape) not in (3, 4):
            raise InvalidArgumentError(
                f"video: expected (T, H, W) or (clips, T, H, W) before the channels, got {shape}."
            )
        batch, frames, height, width = shape if len(shape) == 4 else (1, *shape)
        kind = choose_attention(self.device, self.dtype) if attention is None else attention
        execution = Execution(self.device, kind, rope_rounding)
        return plan_geometry(self.config, (batch, frames, height, width), text_tokens, execution)

    def conditioning(self, text: Tensor, timestep: float | Tensor) -> Conditioning:
        """Compute what follows from the text embedding (L, text width) and the timestep, 0 to 1000."""
        if text.ndim != 2 or text.shape[1] != self.config.text_width:
            raise InvalidArgumentError(
                f"text: expected an embedding of shape (tokens, {self.config.text_width}), got {tuple(text.shape)}."
            )
        time = torch.as_tensor(timestep, dtype=torch.float32, device=self.device)
        if time.numel() != 1:
            raise InvalidArgumentError(f"timestep: expected one number for all clips, got {time.numel()}.")
        with exact_float32():
            vectors = self.emb_in(time.reshape(()))
            return Conditioning(
                text=self.txt_in(text.to(self.device, self.dtype)),
                blocks=tuple(cast(Block, block).modulation(vectors) for block in self.blocks),
                head=self.vid_out_ada(vectors) if self.config.family == "3b" else None,
            )

    def velocity(self, video: Tensor, geometry: Geometry, conditioning: Conditioning) -> Tensor:
        """Predict the velocity, `noise - clean`, of (T, H, W, 33) or (clips, T, H, W, 33): the same with 16 channels.

        The channels are noisy latent, condition latent and mask. Result in the weights' dtype, on their device.
        """
        clips = video if video.ndim == 5 else video.unsqueeze(0)
        self._check(video, clips, geometry, conditioning)
        with exact_float32():
            patches = self.vid_in.patches(clips.to(self.device, self.dtype))
            tokens = self.vid_in.proj(patches.index_select(0, geometry.layouts[0].order))
            text = conditioning.text.repeat(len(clips), 1)
            for layer, block in enumerate(self.loaded_blocks()):
                permutation = geometry.permutations[layer % 2]
                if layer > 0 and permutation is not None:
                    tokens = tokens.index_select(0, permutation)
                tokens, text = block(tokens, text, conditioning.blocks[layer], geometry)
            patches = self.vid_out.proj(self._before_head(tokens, conditioning))
            out = self.vid_out.positions(patches.index_select(0, geometry.restore), geometry.shape)
        return out if video.ndim == 5 else out.squeeze(0)

    def forward(self, video: Tensor, text: Tensor, timestep: float | Tensor) -> Tensor:
        """Predict the velocity of `video` as in `velocity`, for a text (L, text width) and a timestep, 0 to 1000.

        Several clips in one call have one shape, and share the text and the timestep.
        """
        geometry = self.geometry(tuple(video.shape[:-1]), len(text))
        return self.velocity(video, geometry, self.conditioning(text, timestep))

    def _before_head(self, tokens: Tensor, conditioning: Conditioning) -> Tensor:
        if conditioning.head is None:
            return tokens
        shift, scale = conditioning.head
        normed = rms_norm(tokens, self.config.norm_eps, self.vid_out_norm.weight)
        return (normed * scale + shift).to(tokens.dtype)

    def _check(self, video: Tensor, clips: Tensor, geometry: Geometry, conditioning: Conditioning) -> None:
        if clips.ndim != 5 or tuple(clips.shape) != (*geometry.shape, self.config.in_channels):
            raise InvalidArgumentError(
                f"video: expected {self.config.in_channels} channels last and latents of shape {geometry.shape} "
                f"(clips, frames, height, width), got {tuple(video.shape)}."
            )
        if not video.is_floating_point():
            raise InvalidArgumentError(f"video: expected floating-point numbers, got {video.dtype}; convert it first.")
        if len(conditioning.text) != geometry.text_tokens:
            raise InvalidArgumentError(
                f"text: expected {geometry.text_tokens} text tokens as in the geometry, got {len(conditioning.text)}."
            )


def sinusoid(timestep: Tensor, width: int) -> Tensor:
    """Sines, then cosines (..., width) of timesteps (...) at frequencies from 1 down to 1/10000, float32."""
    half = width // 2
    frequencies = torch.exp(-math.log(10000) / half * torch.arange(half, device=timestep.device).float())
    angles = timestep.float()[..., None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=-1)
