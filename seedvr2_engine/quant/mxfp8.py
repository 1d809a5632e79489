"""MXFP8: E4M3 data, and for each 32 values of a row a power of two, 2^(code - 127); code 0 stands for zero.

Source: OCP Microscaling Formats (MX) v1.0. Files round both sizes of a matrix up to 32 and have the scales tiled.
"""

import torch
from torch import Tensor

from .fp8 import E4M3_LIMIT
from .quantize import QuantizedTensor
from .scale_tiles import tile, untile

BLOCK = 32
"""Values that share a scale; both sizes of a stored matrix are multiples of it."""


def quantize(weight: Tensor) -> QuantizedTensor:
    """A finite matrix (rows, columns) -> E4M3 data, padded with zeros to multiples of 32, and uint8 codes, tiled.

    The exponent is the least with which the block's largest value stays within 448.
    """
    blocks = _padded(weight.float(), BLOCK, BLOCK).unflatten(1, (-1, BLOCK))
    amax = blocks.abs().amax(2)
    mantissa, exponent = torch.frexp(amax / E4M3_LIMIT)
    # frexp gives a mantissa in [0.5, 1), so 2^exponent is large enough, and twice too large for a power of two itself.
    exponent = torch.where(mantissa == 0.5, exponent - 1, exponent)
    codes = torch.where(amax > 0, (exponent + 127).clamp(1, 254), 0)
    scale = torch.ldexp(torch.ones_like(amax), torch.where(codes > 0, codes - 127, 0))
    data = (blocks / scale[..., None]).clamp(-E4M3_LIMIT, E4M3_LIMIT).to(torch.float8_e4m3fn)
    return QuantizedTensor(data.flatten(1), tile(codes.to(torch.uint8)))


def dequantize(data: Tensor, tiles: Tensor) -> Tensor:
    """E4M3 data (rows, columns), columns a multiple of 32, and its tiled uint8 codes -> float32.

    Code 255 stands for no number (NaN), as the format has it.
    """
    rows, columns = data.shape
    codes = untile(tiles, rows, columns // BLOCK)
    # A float32's exponent bits are such a code: no rounding, and code 0 gives zero.
    scale = (codes.int() << 23).view(torch.float32)
    scale = torch.where(codes == 255, torch.nan, scale)
    result: Tensor = data.float().unflatten(1, (-1, BLOCK)).mul_(scale[..., None]).flatten(1)
    return result


def _padded(values: Tensor, row_multiple: int, column_multiple: int) -> Tensor:
    rows, columns = values.shape
    return torch.nn.functional.pad(values, (0, -columns % column_multiple, 0, -rows % row_multiple))
