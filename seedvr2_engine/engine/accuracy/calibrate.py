"""The largest input of every channel of every convolution, seen on small clips; INT8 smoothing is made of it."""

import math
from collections.abc import Callable, Iterator
from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...models.vae.causal import CausalConv3d
from ...models.vae.model import VideoVAE

CALIBRATION_PX = 64
"""Edge of the calibration clip: with eight latent cells the mid block still sees a picture."""


def calibration_clips(frames: int = 5, edge_px: int = CALIBRATION_PX) -> Iterator[Tensor]:
    """Clips (1, 3, T, H, W) in [-1, 1], the same in every process.

    Waves of all scales with hard edges and noise; smooth, dark and finely grained ones; a bright ramp. Each kind has
    outliers in channels of its own, and a channel whose outliers were not foreseen costs a whole frame its resolution.
    """
    yield _waves(frames, edge_px)
    for seed, cells, contrast, level in ((11, 6, 1.0, 0.0), (12, 3, 1.0, 0.0), (13, 4, 0.2, -0.7), (14, 16, 1.0, 0.0)):
        noise = torch.rand(1, 3, frames, cells, cells, generator=torch.Generator().manual_seed(seed)) * 2 - 1
        yield F.interpolate(noise, size=(frames, edge_px, edge_px), mode="trilinear") * contrast + level
    yield torch.linspace(-0.2, 1, edge_px).expand(1, 3, frames, edge_px, edge_px).contiguous()


def _waves(frames: int, edge_px: int) -> Tensor:
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


def calibrate_on(vae: VideoVAE, device: torch.device) -> dict[str, Tensor]:
    """`activation_maxima`, computed on `device`, in FP32 where the model overflows; the model itself stays as it is."""
    maxima = activation_maxima(vae if vae.device == device else deepcopy(vae).to(device))
    if vae.dtype == torch.float32 or all(torch.isfinite(amax).all() for amax in maxima.values()):
        return maxima
    return activation_maxima(deepcopy(vae).to(device, torch.float32))


def smoothed_layers(vae: VideoVAE) -> Iterator[tuple[str, CausalConv3d]]:
    """The convolutions whose inputs are smoothed for INT8, by the plan's names."""
    for name, module in vae.named_modules():
        if isinstance(module, CausalConv3d) and not name.endswith((".conv_shortcut", ".upsamplers.0.conv")):
            yield name.removesuffix(".upscale_conv"), module


@torch.no_grad()
def activation_maxima(vae: VideoVAE) -> dict[str, Tensor]:
    """Layer -> (C,) float32: the largest magnitude of each input channel; an upsampler's is that of its first layer."""
    maxima: dict[str, Tensor] = {}
    handles = [module.register_forward_pre_hook(_recorder(name, maxima)) for name, module in smoothed_layers(vae)]
    try:
        for clip in calibration_clips():
            vae.decode(vae.encode(clip))
    finally:
        for handle in handles:
            handle.remove()
    return maxima


def _recorder(name: str, maxima: dict[str, Tensor]) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    def record(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        amax = inputs[0].detach().float().abs().amax((0, 2, 3, 4))
        maxima[name] = torch.maximum(maxima[name], amax) if name in maxima else amax

    return record
