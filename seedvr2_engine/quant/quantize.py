"""Tensor -> 8-bit tensor and scale."""

from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import InvalidArgumentError

LIMITS = {torch.float8_e4m3fn: 448.0, torch.int8: 127.0}
"""Largest magnitude of each 8-bit format."""


class QuantizedTensor(NamedTuple):
    """value = data * scale."""

    data: Tensor
    """(rows, columns) float8_e4m3fn or int8."""
    scale: Tensor
    """(rows,) float32, positive."""


class BlockScaledTensor(NamedTuple):
    """value = data * scale * the scale of its block; blocks lie along the rows, in their natural order."""

    data: Tensor
    """(rows, columns) float8_e4m3fn, or (rows, columns / 2) uint8: two E2M1 values in a byte, the first one high."""
    scale: Tensor
    """(rows,) float32, positive."""
    blocks: Tensor
    """uint8: (rows, columns / 32) exponents, 2^(code - 127) and 0 for code 0, beside E4M3; (rows, columns / 16) E4M3
    numbers beside E2M1."""


def quantize_rows(weight: Tensor, dtype: torch.dtype) -> QuantizedTensor:
    """Quantise each row of a matrix (rows, columns) with its own scale: its largest magnitude becomes the limit.

    Source floats of any width, best FP64. A row of zeros gets scale 1. Raises InvalidArgumentError for a dtype
    without a limit and for values that are not finite.
    """
    if dtype not in LIMITS:
        raise InvalidArgumentError(f"quantisation: expected float8_e4m3fn or int8, got {dtype}.")
    if not weight.is_meta and not torch.isfinite(weight).all():
        raise InvalidArgumentError(
            "quantisation: expected finite weights, got NaN or infinity; the checkpoint is damaged."
        )
    limit = LIMITS[dtype]
    amax = weight.abs().amax(dim=1)
    # The scale is rounded to FP32 before it divides, so that data * scale is what was approximated.
    scale = torch.where(amax > 0, amax / limit, 1.0).float()
    scaled = (weight / scale[:, None].to(weight.dtype)).clamp(-limit, limit)
    data = scaled.round().to(dtype) if dtype == torch.int8 else scaled.float().to(dtype)
    return QuantizedTensor(data, scale)


def smoothing_factors(activation_amax: Tensor, weight_amax: Tensor, strength: float = 0.5) -> Tensor:
    """Per-channel divisors of an activation that move its outliers into the weights; (C,) float32, positive.

    activation_amax and weight_amax (C,): largest magnitude of each input channel over a calibration clip, and of the
    weights that read it. The activation is divided by the factor, the weights are multiplied by it. The factors are
    then scaled so that the largest smoothed activation is 127: an INT8 frame has exponent 0 as long as it stays within
    what the calibration saw. Source: SmoothQuant (Xiao et al. 2022), equation 4.
    """
    activation = activation_amax.float().clamp(min=1e-5)
    weights = weight_amax.float().clamp(min=1e-5)
    factors = activation.pow(strength) / weights.pow(1 - strength)
    return factors * ((activation / factors).amax() / LIMITS[torch.int8])
