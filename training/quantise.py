"""Weights rounded as the Q8_0 format rounds them, with gradients passed straight through."""

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
