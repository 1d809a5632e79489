"""What the kernels' tensors look like, for those who make them: dtypes, sizes, and the few-channel ends' weights.

Imports no Triton, so a plan can be made where there is none.
"""

import math

import torch
from torch import Tensor

from .configs import Format, OutputFormat
from .conv.operands import AttentionOperands

DTYPES: dict[Format | OutputFormat, torch.dtype] = {
    "fp8": torch.float8_e4m3fn,
    "mxfp8": torch.float8_e4m3fn,
    "int8": torch.int8,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    "fp32": torch.float32,
}
"""What each number format is as a tensor; plans take its size from here, and the engine its tensors."""
PICTURE_FORMAT: OutputFormat = "fp16"
"""Of pictures on their way in and out: [-1, 1] in steps of 2^-11 at most."""
CHUNKS = 128
"""Most partial results of a frame that are left for the second, single-program step of the statistics."""
LARGEST_NORM = 2036.0
"""Euclidean norm of a query or key in INT8 before it is rounded, at most: scores stay within 2^22."""
ALIGNMENT = 512
"""Bytes between the starts of two operands that share a buffer."""
WIDTH = 32
"""Channels of an unfolded picture: 27, padded."""


def element_bytes(format: Format | OutputFormat) -> int:
    """Bytes of a number."""
    return DTYPES[format].itemsize


def tiles_per_chunk(tiles: int) -> int:
    """Tiles that one program of the statistics' first step merges."""
    return -(-tiles // CHUNKS)


def chunk_counts(counts: Tensor) -> Tensor:
    """Pixels of each chunk of tiles, (chunks,) int32, from the pixels of each tile (`operands.tile_counts`)."""
    per_chunk = tiles_per_chunk(counts.numel())
    return torch.stack([chunk.sum() for chunk in counts.split(per_chunk)]).to(torch.int32)


def attention_operands(memory: Tensor, length: int, dim: int, format: Format) -> AttentionOperands:
    """The operands of one frame's attention as parts of a buffer of `attention_bytes`, uint8."""
    parts, offset = [], 0
    for shape, dtype in _attention_parts(length, dim, format):
        size = math.prod(shape) * dtype.itemsize
        parts.append(memory[offset : offset + size].view(dtype).view(shape))
        offset += -(-size // ALIGNMENT) * ALIGNMENT
    return AttentionOperands(*parts)


def attention_bytes(length: int, dim: int) -> int:
    """Size of the buffer that holds the operands of one frame's attention, whatever their 8-bit format."""
    sizes = (math.prod(shape) * dtype.itemsize for shape, dtype in _attention_parts(length, dim, "int8"))
    return sum(-(-size // ALIGNMENT) * ALIGNMENT for size in sizes)


def _attention_parts(length: int, dim: int, format: Format) -> list[tuple[tuple[int, ...], torch.dtype]]:
    tokens = (1, length, dim), DTYPES[format]
    scales = (1, length), torch.float32
    # A row of the transposed values starts where a descriptor wants it.
    values = (1, dim, -(-length // 16) * 16), torch.float8_e4m3fn
    partials = (1, min(CHUNKS, -(-length // 32)), 4, dim), torch.float32
    return [tokens, tokens, values, scales, scales, ((1, 3, dim), torch.float32), partials]


def value_order(places: int) -> Tensor:
    """(places,) int64: the token at each place of the values where attention overlaps; places: a multiple of 16.

    Of every 16 tokens those come together whose probabilities a thread holds after a product on `wgmma`.
    """
    return torch.arange(places).view(-1, 2, 4, 2).transpose(1, 2).flatten()


def unfolded_weight(weight: Tensor) -> Tensor:
    """The first convolution's weight (Co, C, kt, 3, 3) for an unfolded picture: (Co, 32, kt, 1, 1)."""
    rows = weight.permute(0, 3, 4, 1, 2).flatten(1, 3)
    return torch.nn.functional.pad(rows, (0, 0, 0, WIDTH - rows.shape[1]))[..., None, None]


def folded_weight(weight: Tensor) -> Tensor:
    """The last convolution's weight (C, Ci, kt, 3, 3) with its spatial taps as outputs: (32, Ci, kt, 1, 1)."""
    rows = weight.permute(3, 4, 0, 1, 2).flatten(0, 2)
    return torch.nn.functional.pad(rows, (0, 0, 0, 0, 0, WIDTH - rows.shape[0]))[..., None, None]
