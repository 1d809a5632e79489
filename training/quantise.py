"""Weights rounded as Q8_0 rounds them, activations as FP8 does, with gradients passed straight through."""

from typing import Any

import torch
from torch import Tensor

BLOCK = 32
HIGH_PRECISION = ("encoder.conv_in.weight", "decoder.conv_out.weight")
"""Written in 16 bits by the export, like all vectors."""


def q8_rounded(name: str, weight: Tensor) -> Tensor:
    """The weight after a round trip through Q8_0: blocks of 32 in row-major order, one FP16 scale a block.

    The gradient is that of the identity (straight-through). Vectors and HIGH_PRECISION come back unchanged.
    """
    if weight.ndim == 1 or name in HIGH_PRECISION:
        return weight
    return weight + (q8_blocks(weight.detach()) - weight.detach())


def q8_blocks(values: Tensor) -> Tensor:
    """Values after a round trip through Q8_0, the blocks in row-major order; the last axis holds whole blocks."""
    blocks = values.reshape(-1, BLOCK)
    exact = blocks.abs().amax(dim=1, keepdim=True) / 127
    scale = exact.half().float()
    codes = torch.round(blocks / exact.clamp_min(1e-12))
    return (codes * scale).view_as(values)


FP8_LARGEST = 448.0
"""Of E4M3."""


class _Rounded(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        scale = x.abs().amax((2, 3, 4), keepdim=True).float().clamp_min(1e-12) / FP8_LARGEST
        return ((x / scale).to(torch.float8_e4m3fn).float() * scale).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return g


def fp8_rounded(x: Tensor) -> Tensor:
    """Activations (N, T, H, W, C) after a round trip through E4M3, one scale a frame; straight-through gradient."""
    y: Tensor = _Rounded.apply(x)
    return y
