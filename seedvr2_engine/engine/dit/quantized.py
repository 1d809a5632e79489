"""Linear layers whose weights are in 8 bits, a scale for each output channel; and what of a block is computed so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...models.dit.blocks import Block
from ...quant.quantize import QuantizedTensor

Matrix = Literal["qkv", "out", "mlp_in", "mlp_out"]
"""The four products of a block; the MLP's gate and what it gates are one."""
MATRICES: tuple[Matrix, ...] = get_args(Matrix)
_NAMES: tuple[tuple[str, str, Matrix], ...] = (
    ("attn.proj_qkv.", "", "qkv"),
    ("attn.proj_out.", "", "out"),
    ("mlp.", ".proj_in", "mlp_in"),
    ("mlp.", ".proj_out", "mlp_out"),
)
DATA_TYPES = {"fp8": torch.float8_e4m3fn, "int8": torch.int8}
"""The 8-bit formats by name."""


class QuantizedLinear(nn.Module):
    """A linear layer: weight (out, in) in 8 bits times scale (out,) float32, and perhaps a bias (out,)."""

    def __init__(self, weight: Tensor, scale: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.scale = nn.Parameter(scale, requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)

    @property
    def matrix(self) -> QuantizedTensor:
        """The weight and its scales."""
        return QuantizedTensor(self.weight.data, self.scale.data)

    def forward(self, x: Tensor) -> Tensor:
        """The layer with its own rounded weights, activations as they come: what only the weights' rounding costs."""
        weight = (self.weight.float() * self.scale[:, None]).to(x.dtype)
        return F.linear(x, weight, self.bias)


@dataclass(frozen=True)
class BlockFormat:
    """The number format of each product's operands in one block; None: that of the tokens, 16 bits."""

    qkv: torch.dtype | None = None
    out: torch.dtype | None = None
    mlp_in: torch.dtype | None = None
    mlp_out: torch.dtype | None = None

    @classmethod
    def of(cls, block: Block) -> BlockFormat:
        """Read off a block's layers."""
        found: dict[Matrix, torch.dtype | None] = {}
        for name, module in block.named_modules():
            matrix = matrix_of(name)
            if matrix is not None and isinstance(module, (nn.Linear, QuantizedLinear)):
                found[matrix] = module.weight.dtype if isinstance(module, QuantizedLinear) else None
        return cls(**found)


def matrix_of(name: str) -> Matrix | None:
    """Which product a block's layer or weight belongs to, by its name in the block; None: to none."""
    for beginning, ending, matrix in _NAMES:
        if name.startswith(beginning) and ending in name:
            return matrix
    return None


def replace_linear(block: Block, name: str, weight: Tensor, scale: Tensor) -> None:
    """Put a QuantizedLinear in the place of the linear layer whose weight has this name in the block."""
    path = name.removesuffix(".weight")
    owner, _, attribute = path.rpartition(".")
    layer = block.get_submodule(path)
    setattr(block.get_submodule(owner), attribute, QuantizedLinear(weight, scale, getattr(layer, "bias", None)))
