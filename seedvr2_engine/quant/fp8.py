"""FP8 with a scale: value = data * scale, one scale for a tensor or one for each row.

Data E4M3 (largest 448, no infinity) or E5M2. Source: FP8 Formats for Deep Learning (Micikevicius et al. 2022).
"""

import torch
from torch import Tensor

from .quantize import LIMITS, QuantizedTensor

E4M3_LIMIT = LIMITS[torch.float8_e4m3fn]


def quantize(weight: Tensor) -> QuantizedTensor:
    """A finite tensor of any shape -> E4M3 data and one float32 scale (): the largest value becomes 448."""
    amax = weight.abs().amax().float()
    scale = torch.where(amax > 0, amax / E4M3_LIMIT, 1.0)
    scaled = (weight.float() / scale).clamp(-E4M3_LIMIT, E4M3_LIMIT)
    return QuantizedTensor(scaled.to(torch.float8_e4m3fn), scale)


def dequantize(data: Tensor, scale: Tensor | None) -> Tensor:
    """FP8 data (rows, ...) -> float32; scale: float32, one value or one for each row, or none at all."""
    values = data.float()
    return values if scale is None else values.mul_(scale.reshape(-1, *[1] * (data.ndim - 1)) if data.ndim else scale)
