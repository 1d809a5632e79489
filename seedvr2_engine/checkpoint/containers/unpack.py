"""The values of weights that are kept as their file stores them, on whatever device they are."""

from collections.abc import Callable

import torch
from torch import Tensor

from ...errors import InvalidArgumentError
from ...models.vae.config import Shape
from ...quant import fp8, ggml, int8, mxfp8, nvfp4
from ...quant.scale_tiles import TILE_ROWS
from ..base import PackedTensor

_STEP_VALUES = 1 << 23
"""Values that are unpacked at a time, so that the float32 temporaries stay within some 200 MB."""
_FP8 = {"F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2}

UNPACKED_TYPES = frozenset((*ggml.FORMATS, *_FP8, "INT8", "MXFP8", "NVFP4"))
"""The types that `unpack` knows."""


def unpack(packed: PackedTensor, shape: Shape, dtype: torch.dtype) -> Tensor:
    """The values of a packed weight, in `dtype`: computed in float32, some rows at a time, and rounded once.

    shape: the weight's own, or the padded one; what was added is cut off. `pre_scale` is multiplied in, `input_scale`
    is not. Raises InvalidArgumentError for a type that is not known and for fewer bytes than the shape needs.
    """
    if packed.type in ggml.FORMATS:
        return ggml.unpack(packed.data, packed.type, dtype).view(shape)
    if packed.type not in UNPACKED_TYPES:
        raise InvalidArgumentError(
            f"packed weight: expected one of {', '.join(sorted(UNPACKED_TYPES))}, got {packed.type!r}."
        )
    if packed.type in _FP8 and packed.scale is None:
        return packed.data.view(_FP8[packed.type]).reshape(shape).to(dtype)
    out = torch.empty(shape, dtype=dtype, device=packed.data.device)
    if out.numel() == 0:
        return out
    rows = packed.shape[0] if packed.shape else shape[0] if shape else 1
    target = out.view(shape[0] if shape else 1, -1)
    matrix = _rows_of(packed, rows)
    step = max(_STEP_VALUES // target.shape[1] // TILE_ROWS, 1) * TILE_ROWS
    for begin in range(0, len(target), step):
        values = matrix(begin, min(begin + step, rows))
        if packed.pre_scale is not None:
            values[:, : len(packed.pre_scale)] *= packed.pre_scale
        room = target[begin : begin + step]
        room.copy_(values[: room.shape[0], : room.shape[1]])
    return out


def _rows_of(packed: PackedTensor, rows: int) -> Callable[[int, int], Tensor]:
    """What gives the values from one row to another as float32; the first is a multiple of the tiles' rows."""
    scale = packed.scale
    assert scale is not None
    data = packed.data.view(rows, -1)
    if packed.type == "MXFP8":
        codes = data.view(torch.float8_e4m3fn)
        return lambda begin, end: mxfp8.dequantize(codes[begin:end], _tiles_of(scale, begin, end))
    if packed.type == "NVFP4":
        tensor_scale = packed.tensor_scale
        assert tensor_scale is not None
        return lambda begin, end: nvfp4.dequantize(data[begin:end], _tiles_of(scale, begin, end), tensor_scale)
    factors = scale.expand(rows) if scale.numel() == 1 else scale
    if packed.type == "INT8":
        numbers = data.view(torch.int8)
        return lambda begin, end: int8.dequantize(numbers[begin:end], factors[begin:end], packed.rotation)
    values = data.view(_FP8[packed.type])
    return lambda begin, end: fp8.dequantize(values[begin:end], factors[begin:end])


def _tiles_of(tiles: Tensor, begin: int, end: int) -> Tensor:
    return tiles[begin : -(-end // TILE_ROWS) * TILE_ROWS]
