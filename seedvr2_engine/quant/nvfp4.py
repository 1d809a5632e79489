"""NVFP4: E2M1 data, two in a byte, a scale in E4M3 for each 16 values of a row, and one in float32 for the tensor.

The first of two values is in the high half of its byte. value = e2m1 * (tensor scale * block scale). Source: NVIDIA,
"Pretraining Large Language Models with NVFP4" (2025). Files round both sizes up to 16 and have the block scales tiled.
"""

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from .fp8 import E4M3_LIMIT
from .scale_tiles import tile, untile

BLOCK = 16
"""Values that share a scale; both sizes of a stored matrix are multiples of it."""
E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
"""What the codes 0 to 7 stand for; 8 more is the same with a minus."""


class NVFP4Tensor(NamedTuple):
    """A matrix in NVFP4."""

    data: Tensor
    """(rows, columns / 2) uint8."""
    scale: Tensor
    """The block scales, float8_e4m3fn, tiled."""
    tensor_scale: Tensor
    """() float32."""


def quantize(weight: Tensor) -> NVFP4Tensor:
    """A finite matrix (rows, columns) -> NVFP4, padded with zeros to multiples of 16.

    The tensor's scale brings its largest value to 6 * 448, so that the largest block scale is 448. Rounds to the
    nearest, ties to the even code.
    """
    rows, columns = weight.shape
    values = torch.nn.functional.pad(weight.float(), (0, -columns % BLOCK, 0, -rows % BLOCK)).unflatten(1, (-1, BLOCK))
    amax = values.abs().amax(2)
    largest = amax.amax()
    tensor_scale = torch.where(largest > 0, largest / (E2M1[-1] * E4M3_LIMIT), 1.0)
    scale = (amax / E2M1[-1] / tensor_scale).clamp(max=E4M3_LIMIT).to(torch.float8_e4m3fn)
    data = encode(values.flatten(1), tensor_scale * scale.float())
    return NVFP4Tensor(data, tile(scale.view(torch.uint8)).view(scale.dtype), tensor_scale)


def encode(values: Tensor, factors: Tensor) -> Tensor:
    """Values (rows, columns) over the factors of their blocks (rows, columns / 16) -> bytes (rows, columns / 2)."""
    factor = factors[..., None]
    codes = _nearest(torch.where(factor > 0, values.unflatten(1, (-1, BLOCK)) / factor, 0.0)).flatten(1)
    return codes[:, ::2] << 4 | codes[:, 1::2]


def decode(data: Tensor) -> Tensor:
    """Bytes (rows, columns / 2) -> their E2M1 numbers (rows, columns), float32."""
    return _as_e4m3(torch.stack([data >> 4, data & 15], dim=2).flatten(1)).float()


def dequantize(data: Tensor, tiles: Tensor, tensor_scale: Tensor) -> Tensor:
    """Bytes (rows, columns / 2), tiled block scales float8_e4m3fn and the tensor's scale -> float32 (rows, columns)."""
    rows, columns = data.shape[0], 2 * data.shape[1]
    scale = untile(tiles.view(torch.uint8), rows, columns // BLOCK).contiguous().view(torch.float8_e4m3fn).float()
    factor = tensor_scale * scale
    result: Tensor = decode(data).unflatten(1, (-1, BLOCK)).mul_(factor[..., None]).flatten(1)
    return result


def _as_e4m3(codes: Tensor) -> Tensor:
    """The same numbers in a format that has a conversion; without a table, so that nothing is copied to a GPU."""
    size = codes & 7
    # The exponent's bias is 6 more, the mantissa 2 bits longer; a half is normal there, so it has no mantissa.
    bits = torch.where(size == 0, 0, (size << 2) + 0x30 - ((size == 1).to(torch.uint8) << 2))
    return (bits | (codes & 8) << 4).to(torch.uint8).view(torch.float8_e4m3fn)


def _nearest(values: Tensor) -> Tensor:
    """The uint8 codes of what is nearest; beyond 6 that is 6."""
    size, codes = values.abs(), torch.zeros_like(values, dtype=torch.uint8)
    for code, (below, above) in enumerate(pairwise(E2M1)):
        middle = (below + above) / 2
        codes += size > middle if code % 2 == 0 else size >= middle
    return codes | torch.signbit(values).to(torch.uint8) << 3
