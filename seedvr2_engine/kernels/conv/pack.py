"""A convolution's weights as the kernels read them: taps and channels in one row, padded, scaled, quantised.

Everything happens once, at load, in FP64.
"""

import torch
from torch import Tensor

from ...quant import quantize_rows
from ..configs import Format
from .operands import WINOGRAD_TAPS, ConvWeights

_HIGH: dict[Format, torch.dtype] = {"fp16": torch.float16, "bf16": torch.bfloat16}


def fold_time(weight: Tensor) -> Tensor:
    """(Co, Ci, kt, kh, kw) -> (Co, Ci, 1, kh, kw): the same convolution where all temporal taps see one frame."""
    return weight.double().sum(dim=2, keepdim=True)


def pair_taps(weight: Tensor) -> Tensor:
    """(..., Co, Ci, 3, kh, kw) -> (..., Co, Ci, 4, kh, kw): the sums of temporal taps of a paired convolution."""
    matrix = torch.tensor(WINOGRAD_TAPS, dtype=torch.float64, device=weight.device)
    return torch.einsum("pt,...thw->...phw", matrix, weight.double())


def pack_conv(weight: Tensor, bias: Tensor, format: Format, smoothing: Tensor | None = None) -> ConvWeights:
    """Pack one convolution (Co, Ci, kt, kh, kw) with bias (Co,).

    smoothing (Ci,): what the input's channels were divided by before they were quantised.
    """
    return pack_sets(weight[None, None], bias[None, None, None], format, smoothing)


def pack_sets(weight: Tensor, bias: Tensor, format: Format, smoothing: Tensor | None = None) -> ConvWeights:
    """Pack several kernels: weight (sets, phases, Co, Ci, kt, kh, kw), bias (sets, phases, borders, Co)."""
    weight = weight.double()
    if smoothing is not None:
        weight = weight * smoothing.double()[:, None, None, None]
    rows = weight.permute(0, 1, 2, 4, 5, 6, 3).reshape(-1, weight[0, 0, 0].numel())
    packed_bias = bias.flatten(0, 1).float().contiguous()
    if format in _HIGH:
        return ConvWeights(rows.to(_HIGH[format]).contiguous(), None, packed_bias)
    dtype = torch.int8 if format == "int8" else torch.float8_e4m3fn
    data, scale = quantize_rows(rows, dtype)
    return ConvWeights(data.contiguous(), scale, packed_bias)
