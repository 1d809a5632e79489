"""A convolution's weights as the kernels read them: taps and channels in one row, padded, scaled, quantised.

Everything happens once, at load, in FP64.
"""

import torch
from torch import Tensor

from ...quant import quantize_rows
from ...quant.recipe import EIGHT_BIT
from ..configs import Format
from ..layout import DTYPES
from .operands import WINOGRAD_TAPS, ConvWeights


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
    dtype = DTYPES[format]
    if format not in EIGHT_BIT:
        return ConvWeights(rows.to(dtype).contiguous(), None, packed_bias)
    data, scale = quantize_rows(rows, dtype)
    return ConvWeights(data.contiguous(), scale, packed_bias)
