"""INT8 with a scale: value = data * scale, one scale for a matrix or one for each row; rotated or not (`rotation`)."""

import torch
from torch import Tensor

from .quantize import LIMITS, QuantizedTensor, quantize_rows
from .rotation import rotate

INT8_LIMIT = LIMITS[torch.int8]


def quantize(weight: Tensor, *, by_row: bool = True, rotation: int = 0) -> QuantizedTensor:
    """A finite matrix (rows, columns) -> int8 data and float32 scales, (rows,) or (): the largest value becomes 127.

    rotation: the group of columns that is rotated first, or 0. Rounds half to even.
    """
    values = rotate(weight.float(), rotation) if rotation else weight.float()
    if by_row:
        return quantize_rows(values, torch.int8)
    amax = values.abs().amax()
    scale = torch.where(amax > 0, amax / INT8_LIMIT, 1.0)
    return QuantizedTensor((values / scale).clamp(-INT8_LIMIT, INT8_LIMIT).round().to(torch.int8), scale)


def dequantize(data: Tensor, scale: Tensor, rotation: int = 0) -> Tensor:
    """int8 data (rows, columns) and float32 scales, one or one for each row -> float32, rotated back."""
    values = data.float().mul_(scale.reshape(-1, 1))
    return rotate(values, rotation) if rotation else values
