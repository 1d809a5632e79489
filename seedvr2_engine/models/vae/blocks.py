"""What encoder and decoder of the SeedVR2 VAE are made of: normalisation, resnets, attention, resampling.

Source of the architecture: ByteDance-Seed/SeedVR, `models/video_vae_v3`. Module names are those of the public
checkpoint. Tensors are (N, C, T, H, W).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .causal import CausalCache, CausalConv3d, causal_conv3x3x3
from .config import VAEConfig
from .convolution import is_large, keeps_channels_last

_CACHED_ROWS = 2048
"""Positions whose squares `FrameGroupNorm` adds up at a time, so that they stay in a core's cache."""


class FrameGroupNorm(nn.GroupNorm):
    """GroupNorm with statistics per sample and per frame."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (N, C, T, H, W)."""
        frames = x.transpose(1, 2)
        if keeps_channels_last(x):
            if is_large(x):
                return self._channels_last(x)
            frames = frames.contiguous()
        result: Tensor = super().forward(frames.flatten(0, 1)).unflatten(0, frames.shape[:2]).transpose(1, 2)
        return result

    def _channels_last(self, x: Tensor) -> Tensor:
        """PyTorch's own for this layout takes the mean's square from the mean of squares, which costs digits."""
        # [N, T, H*W, C]
        frames = x.permute(0, 2, 3, 4, 1).flatten(2, 3)
        out = torch.empty_like(frames)
        for rows, target in zip(frames.flatten(0, 1), out.flatten(0, 1), strict=True):
            self._normalize_rows(rows, target)
        result: Tensor = out.unflatten(2, x.shape[3:]).permute(0, 4, 1, 2, 3)
        return result

    def _normalize_rows(self, rows: Tensor, out: Tensor) -> None:
        """Normalise one frame, (positions, C)."""
        mean = rows.mean(0)
        torch.sub(rows, mean, out=out)
        squares = torch.stack([part.square().sum(0) for part in out.split(_CACHED_ROWS)]).sum(0) / len(rows)
        means = mean.view(self.num_groups, -1)
        shift = means - means.mean(1, keepdim=True)
        variance = (squares.view_as(means) + shift.square()).mean(1, keepdim=True)
        gain = ((variance + self.eps).rsqrt() * self.weight.view_as(means)).flatten()
        torch.addcmul(shift.flatten() * gain + self.bias, out, gain, out=out)


def frame_norm(channels: int, config: VAEConfig) -> FrameGroupNorm:
    """The norm that every resnet and both output layers use."""
    return FrameGroupNorm(config.norm_groups, channels, eps=config.norm_eps)


def activated(x: Tensor) -> Tensor:
    """SiLU of what a norm gave, in its place where no gradient needs it again."""
    return F.silu(x, inplace=not torch.is_grad_enabled())


class Resnet(nn.Module):
    """Two normalised causal convolutions beside a shortcut."""

    def __init__(self, channels_in: int, channels_out: int, config: VAEConfig) -> None:
        super().__init__()
        self.norm1 = frame_norm(channels_in, config)
        self.conv1 = causal_conv3x3x3(channels_in, channels_out)
        self.norm2 = frame_norm(channels_out, config)
        self.conv2 = causal_conv3x3x3(channels_out, channels_out)
        self.conv_shortcut = (
            CausalConv3d(channels_in, channels_out, kernel_size=1) if channels_in != channels_out else None
        )

    def forward(self, x: Tensor, cache: CausalCache | None = None) -> Tensor:
        """(N, channels_in, T, H, W) -> (N, channels_out, T, H, W)."""
        h = self.conv1(activated(self.norm1(x)), cache)
        h = self.conv2(activated(self.norm2(h)), cache)
        shortcut = x if self.conv_shortcut is None else self.conv_shortcut(x)
        result: Tensor = h + shortcut if torch.is_grad_enabled() else h.add_(shortcut)
        return result


class FrameAttention(nn.Module):
    """One attention head as wide as the tensor, over all positions of one frame."""

    def __init__(self, channels: int, config: VAEConfig) -> None:
        super().__init__()
        self.group_norm = frame_norm(channels, config)
        self.to_q = nn.Linear(channels, channels)
        self.to_k = nn.Linear(channels, channels)
        self.to_v = nn.Linear(channels, channels)
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, T, H, W) -> the same shape, the input added."""
        frames = self.group_norm(x).transpose(1, 2)
        # [N*T, H*W, C]
        tokens = frames.flatten(0, 1).flatten(2).transpose(1, 2)
        q, k, v = (project(tokens)[:, None] for project in (self.to_q, self.to_k, self.to_v))
        attended = self.to_out[0](F.scaled_dot_product_attention(q, k, v)[:, 0])
        result: Tensor = x + attended.transpose(1, 2).reshape(frames.shape).transpose(1, 2)
        return result


class MidBlock(nn.Module):
    """Resnet, attention, resnet at the latent resolution."""

    def __init__(self, channels: int, config: VAEConfig) -> None:
        super().__init__()
        self.attentions = nn.ModuleList([FrameAttention(channels, config)])
        self.resnets = nn.ModuleList([Resnet(channels, channels, config) for _ in range(2)])

    def forward(self, x: Tensor, cache: CausalCache | None = None) -> Tensor:
        """(N, C, T, H, W) -> the same shape."""
        x = self.resnets[0](x, cache)
        result: Tensor = self.resnets[1](self.attentions[0](x), cache)
        return result


class Downsample(nn.Module):
    """Halve the size with a strided convolution, and the frame rate too when `time` is set.

    The zero padding is one row at the bottom and one column at the right only, and it comes before the causal
    front padding, so the cached frame of the convolution is already padded.
    """

    def __init__(self, channels: int, *, time: bool) -> None:
        super().__init__()
        kernel, stride = ((3, 3, 3), (2, 2, 2)) if time else ((1, 3, 3), (1, 2, 2))
        self.conv = CausalConv3d(channels, channels, kernel_size=kernel, stride=stride)

    def forward(self, x: Tensor, cache: CausalCache | None = None) -> Tensor:
        """(N, C, T, H, W) -> (N, C, T or (T-1)//2 + 1, H//2, W//2)."""
        result: Tensor = self.conv(F.pad(x, (0, 1, 0, 1)), cache)
        return result


class Upsample(nn.Module):
    """Double the size with a 1x1x1 convolution and a pixel shuffle, and the frame rate too when `time` is set.

    At the start of a clip the second phase of the first frame is dropped, before the 3x3x3 convolution, so that
    a clip of t frames becomes one of 2t - 1.
    """

    def __init__(self, channels: int, *, time: bool) -> None:
        super().__init__()
        self.time_factor = 2 if time else 1
        self.upscale_conv = CausalConv3d(channels, 4 * self.time_factor * channels, kernel_size=1)
        self.conv = causal_conv3x3x3(channels, channels)

    def forward(self, x: Tensor, cache: CausalCache | None = None) -> Tensor:
        """(N, C, t, H, W) -> (N, C, t or 2t - 1 or (in a later slice) 2t, 2H, 2W)."""
        starts_clip = cache is None or self.conv not in cache
        x = self._shuffle(self.upscale_conv(x))
        if starts_clip and self.time_factor == 2:
            x = torch.cat([x[:, :, :1], x[:, :, 2:]], dim=2)
        result: Tensor = self.conv(x, cache)
        return result

    def _shuffle(self, x: Tensor) -> Tensor:
        # Channel ((row phase * 2 + column phase) * time_factor + time phase) * C + c.
        n, phases, t, h, w = x.shape
        r = self.time_factor
        c = phases // (4 * r)
        split = x.view(n, 2, 2, r, c, t, h, w)
        if keeps_channels_last(x):
            shuffled = split.permute(0, 5, 3, 6, 1, 7, 2, 4).reshape(n, t * r, 2 * h, 2 * w, c)
            return shuffled.permute(0, 4, 1, 2, 3)
        return split.permute(0, 4, 5, 3, 6, 1, 7, 2).reshape(n, c, t * r, 2 * h, 2 * w)
