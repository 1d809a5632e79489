"""The largest input of every channel of every convolution, seen on a small clip; INT8 smoothing is made of it."""

import math

import torch
from torch import Tensor, nn

from ..models.causal import CausalConv3d
from ..models.vae import VideoVAE

CALIBRATION_PX = 64
"""Edge of the calibration clip: with eight latent cells the mid block still sees a picture."""


def calibration_clip(frames: int = 5, edge_px: int = CALIBRATION_PX) -> Tensor:
    """(1, 3, T, H, W) in [-1, 1]: moving waves of all scales, hard edges and noise; the same in every process."""
    t, h, w = torch.meshgrid(
        torch.arange(frames) / 4, torch.arange(edge_px) / edge_px, torch.arange(edge_px) / edge_px, indexing="ij"
    )
    noise = torch.rand(frames, edge_px, edge_px, generator=torch.Generator().manual_seed(1)) - 0.5
    colors = []
    for color in range(3):
        wave = torch.sin(2 * math.pi * (3 * w + (color + 1) * h + t)) + torch.sin(2 * math.pi * 14 * (w * h + t * 0.1))
        edges = torch.sign(torch.sin(2 * math.pi * (2 * h - w + 0.3 * color + 0.5 * t)))
        colors.append(0.3 * wave + 0.35 * edges + 0.1 * noise)
    return torch.stack(colors)[None].clamp(-1, 1)


@torch.no_grad()
def activation_maxima(vae: VideoVAE) -> dict[str, Tensor]:
    """Layer -> (C,) float32: the largest magnitude of each input channel; an upsampler's is that of its first layer."""
    maxima: dict[str, Tensor] = {}
    handles = []
    for name, module in vae.named_modules():
        if isinstance(module, CausalConv3d) and not name.endswith((".conv_shortcut", ".upsamplers.0.conv")):
            handles.append(module.register_forward_pre_hook(_recorder(name.removesuffix(".upscale_conv"), maxima)))
    try:
        vae.decode(vae.encode(calibration_clip()))
    finally:
        for handle in handles:
            handle.remove()
    return maxima


def _recorder(name: str, maxima: dict[str, Tensor]):  # type: ignore[no-untyped-def]
    def record(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        amax = inputs[0].detach().float().abs().amax((0, 2, 3, 4))
        maxima[name] = torch.maximum(maxima[name], amax) if name in maxima else amax

    return record
