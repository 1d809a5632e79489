"""A whole resnet made of kernels, frame by frame through ring buffers, is the model's resnet on the whole clip."""

from types import ModuleType
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from seedvr2_engine.kernels import groupnorm, layout, reference
from seedvr2_engine.kernels.configs import ConvConfig, ConvProblem, Format
from seedvr2_engine.kernels.conv import conv3d
from seedvr2_engine.kernels.conv.operands import (
    Additions,
    ConvOutput,
    FrameTarget,
    FrameWindow,
    NormOperands,
    NormSpec,
    tile_counts,
)
from seedvr2_engine.kernels.conv.pack import pack_conv
from seedvr2_engine.models.vae.blocks import Resnet
from seedvr2_engine.models.vae.causal import CausalConv3d
from seedvr2_engine.models.vae.config import VAEConfig

HEIGHT, WIDTH, RING = 3, 7, 3
CONFIG = ConvConfig(4, 8, 32, 32, warps=4, stages=2, uses_tma=True)


class Half(NamedTuple):
    """Norm and convolution of a resnet, and the ring buffer between them."""

    module: tuple[ModuleType, ModuleType]
    norm: torch.nn.GroupNorm
    conv: CausalConv3d
    ring: FrameTarget

    def step(self, t: int, x: Tensor, partials: Tensor, additions: Additions, format: Format) -> ConvOutput:
        """Frame t (1, H, W, Ci) and its statistics -> the convolved frame and its statistics."""
        convolution, norm = self.module
        channels_out = self.conv.out_channels
        counts = tile_counts((HEIGHT, WIDTH), (CONFIG.tile_h, CONFIG.tile_w), 1)
        chunks = layout.chunk_counts(counts)
        combined = torch.empty(1, chunks.numel(), 4, x.shape[-1])
        affine = torch.empty(1, 4, x.shape[-1])
        spec = NormSpec(limit=127.0, exponent_floor=-20) if format == "int8" else NormSpec()
        operands = NormOperands(self.norm.weight.detach(), self.norm.bias.detach())
        target = self.ring._replace(slots=torch.tensor([t % RING], dtype=torch.int32))
        norm.combine(partials, counts, combined)
        norm.finish_statistics(combined, chunks, operands, spec, affine)
        norm.normalize(x, affine, operands, spec, target)
        seen = [max(t - past, 0) % RING for past in (2, 1, 0)]
        window = FrameWindow(target.frames, target.exponents, torch.tensor([[*seen, 0]], dtype=torch.int32))
        shortcut = 0 if additions.shortcut is None else additions.shortcut.shape[-1]
        problem = ConvProblem(
            x.shape[-1], channels_out, (3, 3, 3), 1, HEIGHT, WIDTH, format,
            shortcut_channels=shortcut, has_residual=additions.residual is not None, has_range=format == "int8",
        )  # fmt: skip
        y = torch.full((1, HEIGHT, WIDTH, channels_out), float("nan"), dtype=torch.float16)
        out = ConvOutput(y, torch.full((1, counts.numel(), problem.statistic_rows, channels_out), float("nan")))
        weights = pack_conv(self.conv.weight.detach(), self.conv.bias.detach(), format)
        convolution.conv3d(window, weights, additions, out, problem, CONFIG)
        return out


def ring(channels: int, format: Format) -> FrameTarget:
    dtype = conv3d.DTYPES[format]
    exponents = torch.full((RING,), 99, dtype=torch.int32) if dtype.itemsize == 1 else None
    return FrameTarget(torch.zeros(RING, HEIGHT, WIDTH, channels, dtype=dtype), exponents, torch.empty(0))


def run(module: tuple[ModuleType, ModuleType], resnet: Resnet, x: Tensor, format: Format) -> Tensor:
    """x (C, T, H, W) -> (Co, T, H, W), one frame at a time."""
    first = Half(module, resnet.norm1, resnet.conv1, ring(resnet.conv1.in_channels, format))
    second = Half(module, resnet.norm2, resnet.conv2, ring(resnet.conv2.in_channels, format))
    frames = []
    for t, frame in enumerate(x.permute(1, 2, 3, 0).half()[:, None].contiguous()):
        problem = ConvProblem(frame.shape[-1], frame.shape[-1], (3, 3, 3), 1, HEIGHT, WIDTH, "fp16")
        hidden = first.step(t, frame, reference.partial_statistics(frame, problem, CONFIG), Additions(), format)
        if resnet.conv_shortcut is None:
            additions = Additions(frame)
        else:
            additions = Additions(None, frame, resnet.conv_shortcut.weight.detach()[:, :, 0, 0, 0].half().contiguous())
        assert hidden.partials is not None
        frames.append(second.step(t, hidden.y, hidden.partials, additions, format).y)
    return torch.cat(frames).permute(3, 0, 1, 2).float()


REFERENCES, KERNELS = (reference, reference), (conv3d, groupnorm)


@pytest.mark.parametrize(
    ("module", "channels_out", "format", "limit"),
    [
        (REFERENCES, 32, "fp16", 2e-3),
        (REFERENCES, 64, "fp16", 2e-3),
        (REFERENCES, 64, "fp8", 6e-2),
        (REFERENCES, 32, "int8", 5e-2),
        (KERNELS, 64, "fp8", 6e-2),
        (KERNELS, 32, "int8", 5e-2),
    ],
)
def test_a_resnet_equals_the_model(
    module: tuple[ModuleType, ModuleType], channels_out: int, format: Format, limit: float
) -> None:
    """With 64 channels out of 32 there is a shortcut, else a residual."""
    torch.manual_seed(8)
    resnet = Resnet(32, channels_out, VAEConfig())
    if resnet.conv_shortcut is not None:
        torch.nn.init.zeros_(resnet.conv_shortcut.bias)
    for norm in (resnet.norm1, resnet.norm2):
        torch.nn.init.normal_(norm.weight, mean=1.0, std=0.3)
        torch.nn.init.normal_(norm.bias, std=0.3)
    x = torch.randn(32, 4, HEIGHT, WIDTH).half().float()
    with torch.no_grad():
        expected = resnet(x[None])[0]
        branch = expected - (x if resnet.conv_shortcut is None else resnet.conv_shortcut(x[None])[0])
    error = (run(module, resnet, x, format) - expected).norm() / branch.norm()
    assert error < limit, f"relative error {error:.4f}"
