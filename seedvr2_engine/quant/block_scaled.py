"""MXFP8 and NVFP4 as products take them: scales of blocks in their natural order, and a float32 one for each row.

The format's one float32 scale a tensor is one a row here, which costs nothing where rows are scaled after the product
anyway, and needs no pass over the tensor before its rows are rounded. MXFP8 has none, so its rows have 1.
"""

import torch
from torch import Tensor

from ..errors import InvalidArgumentError
from . import mxfp8, nvfp4
from .fp8 import E4M3_LIMIT
from .quantize import BlockScaledTensor
from .scale_tiles import untile

BLOCKS = {"mxfp8": mxfp8.BLOCK, "nvfp4": nvfp4.BLOCK}
"""Values of a row that share a scale, by format."""


def quantize_blocks(values: Tensor, format: str) -> BlockScaledTensor:
    """A finite matrix (rows, columns), columns a multiple of the format's block -> its nearest numbers.

    Raises InvalidArgumentError for another format, other columns, and values that are not finite.
    """
    if format not in BLOCKS or values.shape[1] % BLOCKS[format]:
        raise InvalidArgumentError(
            f"quantisation: expected mxfp8 with a multiple of 32 columns or nvfp4 with one of 16, got {format} with "
            f"{values.shape[1]}."
        )
    if not values.is_meta and not torch.isfinite(values).all():
        raise InvalidArgumentError(
            "quantisation: expected finite weights, got NaN or infinity; the checkpoint is damaged."
        )
    rows, columns = values.shape
    values = values.float()
    if format == "mxfp8":
        data, tiles = mxfp8.quantize(values)
        codes = untile(tiles, rows, columns // mxfp8.BLOCK).contiguous()
        return BlockScaledTensor(data[:rows].contiguous(), torch.ones(rows, device=values.device), codes)
    amax = values.unflatten(1, (-1, nvfp4.BLOCK)).abs().amax(2)
    largest = amax.amax(1)
    scale = torch.where(largest > 0, largest / (nvfp4.E2M1[-1] * E4M3_LIMIT), 1.0)
    blocks = (amax / nvfp4.E2M1[-1] / scale[:, None]).clamp(max=E4M3_LIMIT).to(torch.float8_e4m3fn)
    return BlockScaledTensor(nvfp4.encode(values, scale[:, None] * blocks.float()), scale, blocks.view(torch.uint8))


def dequantize_blocks(x: BlockScaledTensor) -> Tensor:
    """-> float32 (rows, columns)."""
    if x.data.dtype == torch.uint8:
        values = nvfp4.decode(x.data)
        blocks = x.blocks.view(torch.float8_e4m3fn).float()
    else:
        values = x.data.float()
        blocks = (x.blocks.int() << 23).view(torch.float32)
    factors = (x.scale[:, None] * blocks)[..., None]
    result: Tensor = (values.unflatten(1, (blocks.shape[1], -1)) * factors).flatten(1)
    return result
