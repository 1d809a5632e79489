"""Linear layers whose weights are in 8 or 4 bits, a scale for each output channel; and what is computed so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...models.dit.blocks import Block
from ...quant.block_scaled import BLOCKS, dequantize_blocks, quantize_blocks
from ...quant.quantize import BlockScaledTensor, QuantizedTensor, quantize_rows

Quantized: TypeAlias = QuantizedTensor | BlockScaledTensor
Matrix = Literal["qkv", "out", "mlp_in", "mlp_out"]
"""The four products of a block; the MLP's gate and what it gates are one."""
MATRICES: tuple[Matrix, ...] = get_args(Matrix)
_NAMES: tuple[tuple[str, str, Matrix], ...] = (
    ("attn.proj_qkv.", "", "qkv"),
    ("attn.proj_out.", "", "out"),
    ("mlp.", ".proj_in", "mlp_in"),
    ("mlp.", ".proj_out", "mlp_out"),
)
DATA_TYPES = {"fp8": torch.float8_e4m3fn, "int8": torch.int8, "mxfp8": torch.float8_e4m3fn, "nvfp4": torch.uint8}
"""What the numbers of each format lie in; two of NVFP4 share a byte."""


def format_of(x: Quantized) -> str:
    """The name of a matrix's numbers."""
    in_blocks = isinstance(x, BlockScaledTensor)
    return next(name for name, number in DATA_TYPES.items() if number == x.data.dtype and (name in BLOCKS) == in_blocks)


def quantize(values: Tensor, format: str) -> Quantized:
    """A finite matrix (rows, columns) in a format of the products; raises InvalidArgumentError for others."""
    return quantize_blocks(values, format) if format in BLOCKS else quantize_rows(values, DATA_TYPES[format])


def dequantize(x: Quantized) -> Tensor:
    """-> float32 (rows, columns)."""
    return dequantize_blocks(x) if isinstance(x, BlockScaledTensor) else x.data.float() * x.scale[:, None]


class QuantizedLinear(nn.Module):
    """A linear layer: weight (out, in) in 8 or 4 bits times scale (out,) float32, and perhaps a bias (out,).

    blocks: the scales of the weight's blocks, as a BlockScaledTensor has them.
    """

    def __init__(self, weight: Tensor, scale: Tensor, bias: Tensor | None, blocks: Tensor | None = None) -> None:
        super().__init__()
        self.blocks = None if blocks is None else nn.Parameter(blocks, requires_grad=False)
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.scale = nn.Parameter(scale, requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)

    @property
    def matrix(self) -> Quantized:
        """The weight and its scales."""
        if self.blocks is None:
            return QuantizedTensor(self.weight.data, self.scale.data)
        return BlockScaledTensor(self.weight.data, self.scale.data, self.blocks.data)

    @property
    def format(self) -> str:
        """The name of its numbers."""
        return format_of(self.matrix)

    def forward(self, x: Tensor) -> Tensor:
        """The layer with its own rounded weights, activations as they come: what only the weights' rounding costs."""
        return F.linear(x, dequantize(self.matrix).to(x.dtype), self.bias)


@dataclass(frozen=True)
class BlockFormat:
    """The number format of each product's operands in one block, by name; None: that of the tokens, 16 bits."""

    qkv: str | None = None
    out: str | None = None
    mlp_in: str | None = None
    mlp_out: str | None = None

    @classmethod
    def all_in(cls, format: str) -> BlockFormat:
        """Every product in one format."""
        return cls(format, format, format, format)

    @classmethod
    def of(cls, block: Block) -> BlockFormat:
        """Read off a block's layers."""
        found: dict[Matrix, str | None] = {}
        for name, module in block.named_modules():
            matrix = matrix_of(name)
            if matrix is not None and isinstance(module, (nn.Linear, QuantizedLinear)):
                found[matrix] = module.format if isinstance(module, QuantizedLinear) else None
        return cls(**found)


def matrix_of(name: str) -> Matrix | None:
    """Which product a block's layer or weight belongs to, by its name in the block; None: to none."""
    for beginning, ending, matrix in _NAMES:
        if name.startswith(beginning) and ending in name:
            return matrix
    return None


def replace_linear(block: Block, name: str, weight: Tensor, scale: Tensor, blocks: Tensor | None = None) -> None:
    """Put a QuantizedLinear in the place of the linear layer whose weight has this name in the block."""
    path = name.removesuffix(".weight")
    owner, _, attribute = path.rpartition(".")
    layer = block.get_submodule(path)
    replaced = QuantizedLinear(weight, scale, getattr(layer, "bias", None), blocks)
    setattr(block.get_submodule(owner), attribute, replaced)
