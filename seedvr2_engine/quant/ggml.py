"""The block formats of GGML as tensor arithmetic, so that a GPU can unpack weights where they are used.

Values are computed in float32 and rounded once. Source of the layouts: `ggml-common.h` and `ggml-quants.c` of ggml.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import InvalidArgumentError

_STEP_VALUES = 1 << 23
"""Values that are unpacked at a time, so that the float32 temporaries stay within some 200 MB."""


class BlockFormat(NamedTuple):
    """One way of storing numbers in blocks."""

    values: int
    """Numbers in a block."""
    nbytes: int
    """Bytes of a block."""
    unpack: Callable[[Tensor], Tensor]
    """(blocks, nbytes) uint8 -> (blocks, values) float32."""


def unpack(packed: Tensor, kind: str, dtype: torch.dtype) -> Tensor:
    """Unpack whole blocks, a flat uint8 tensor, to their values (n,) in `dtype` on the same device.

    kind: GGML's name of the format, one of `FORMATS`. Raises InvalidArgumentError for others and for broken blocks.
    """
    layout = FORMATS.get(kind)
    if layout is None:
        raise InvalidArgumentError(f"block format: expected one of {', '.join(FORMATS)}, got {kind!r}.")
    if packed.dtype != torch.uint8 or packed.numel() % layout.nbytes:
        raise InvalidArgumentError(
            f"{kind} blocks: expected uint8 in blocks of {layout.nbytes}, got {packed.numel()} of {packed.dtype}."
        )
    blocks = packed.view(-1, layout.nbytes)
    out = torch.empty(len(blocks), layout.values, dtype=dtype, device=packed.device)
    step = _STEP_VALUES // layout.values
    for begin in range(0, len(blocks), step):
        out[begin : begin + step] = layout.unpack(blocks[begin : begin + step])
    return out.view(-1)


def _halves(blocks: Tensor, begin: int) -> Tensor:
    """The float16 at byte `begin` of each block: (blocks, 1) float32."""
    return blocks[:, begin : begin + 2].contiguous().view(torch.float16).float()


def _nibbles(qs: Tensor) -> Tensor:
    """(blocks, n) bytes -> (blocks, 2, n): low halves, then high halves."""
    return torch.stack([qs & 0xF, qs >> 4], dim=1)


def _bits(words: Tensor, shifts: range, mask: int, dim: int) -> Tensor:
    """The bits at each of the shifts, along a new axis `dim`."""
    return torch.stack([(words >> shift) & mask for shift in shifts], dim=dim)


def _q8_0(b: Tensor) -> Tensor:
    return _halves(b, 0) * b[:, 2:].contiguous().view(torch.int8).float()


def _q4_0(b: Tensor) -> Tensor:
    return _halves(b, 0) * (_nibbles(b[:, 2:]).flatten(1).float() - 8)


def _q4_1(b: Tensor) -> Tensor:
    return _halves(b, 0) * _nibbles(b[:, 4:]).flatten(1).float() + _halves(b, 2)


def _fifth_bits(b: Tensor, begin: int) -> Tensor:
    """The high bits (blocks, 32) of a Q5_0 or Q5_1 block, worth 16 each."""
    return _bits(b[:, begin : begin + 4], range(8), 1, dim=2).flatten(1) << 4


def _q5_0(b: Tensor) -> Tensor:
    q = _nibbles(b[:, 6:]).flatten(1) | _fifth_bits(b, 2)
    return _halves(b, 0) * (q.float() - 16)


def _q5_1(b: Tensor) -> Tensor:
    q = _nibbles(b[:, 8:]).flatten(1) | _fifth_bits(b, 4)
    return _halves(b, 0) * q.float() + _halves(b, 2)


def _q2_k(b: Tensor) -> Tensor:
    scales, qs = b[:, :16], b[:, 16:80]
    q = _bits(qs.view(-1, 2, 32), range(0, 8, 2), 3, dim=2).reshape(-1, 16, 16).float()
    scale = _halves(b, 80) * (scales & 0xF).float()
    least = _halves(b, 82) * (scales >> 4).float()
    return (scale[..., None] * q - least[..., None]).flatten(1)


def _q3_k(b: Tensor) -> Tensor:
    high, qs, packed = b[:, :32], b[:, 32:96], b[:, 96:108]
    low = _bits(qs.view(-1, 2, 32), range(0, 8, 2), 3, dim=2).reshape(-1, 256).to(torch.int8)
    missing = (_bits(high, range(8), 1, dim=1).flatten(1) ^ 1).to(torch.int8) << 2
    upper = _bits(packed[:, 8:], range(0, 8, 2), 3, dim=1).flatten(1) << 4
    scales = (_nibbles(packed[:, :8]).flatten(1) | upper).to(torch.int8) - 32
    scale = _halves(b, 108) * scales.float()
    return (scale[..., None] * (low - missing).view(-1, 16, 16).float()).flatten(1)


def _scales_and_mins(packed: Tensor) -> tuple[Tensor, Tensor]:
    """Eight 6-bit scales and eight 6-bit minima (blocks, 8) from the 12 bytes of a Q4_K or Q5_K block."""
    first, second, third = packed.split(4, dim=1)
    scales = torch.cat([first & 63, (third & 0xF) | (first >> 6 << 4)], dim=1)
    mins = torch.cat([second & 63, (third >> 4) | (second >> 6 << 4)], dim=1)
    return scales.float(), mins.float()


def _with_mins(b: Tensor, q: Tensor) -> Tensor:
    """What the 5-bit or 4-bit numbers q (blocks, 8, 32) of a Q5_K or Q4_K block stand for."""
    scales, mins = _scales_and_mins(b[:, 4:16])
    scale, least = _halves(b, 0) * scales, _halves(b, 2) * mins
    return (scale[..., None] * q.float() - least[..., None]).flatten(1)


def _k_nibbles(qs: Tensor) -> Tensor:
    """(blocks, 128) bytes -> (blocks, 8, 32)."""
    groups = qs.reshape(-1, 4, 32)
    return torch.stack([groups & 0xF, groups >> 4], dim=2).flatten(1, 2)


def _q4_k(b: Tensor) -> Tensor:
    return _with_mins(b, _k_nibbles(b[:, 16:]))


def _q5_k(b: Tensor) -> Tensor:
    return _with_mins(b, _k_nibbles(b[:, 48:]) | (_bits(b[:, 16:48], range(8), 1, dim=1) << 4))


def _q6_k(b: Tensor) -> Tensor:
    low = torch.stack([b[:, :128].reshape(-1, 2, 64) & 0xF, b[:, :128].reshape(-1, 2, 64) >> 4], dim=2)
    high = _bits(b[:, 128:192].reshape(-1, 2, 32), range(0, 8, 2), 3, dim=2)
    q = (low.reshape(-1, 16, 16) | (high.reshape(-1, 16, 16) << 4)).to(torch.int8) - 32
    scale = _halves(b, 208) * b[:, 192:208].contiguous().view(torch.int8).float()
    return (scale[..., None] * q.float()).flatten(1)


FORMATS = {
    "Q8_0": BlockFormat(32, 34, _q8_0),
    "Q5_1": BlockFormat(32, 24, _q5_1),
    "Q5_0": BlockFormat(32, 22, _q5_0),
    "Q4_1": BlockFormat(32, 20, _q4_1),
    "Q4_0": BlockFormat(32, 18, _q4_0),
    "Q6_K": BlockFormat(256, 210, _q6_k),
    "Q5_K": BlockFormat(256, 176, _q5_k),
    "Q4_K": BlockFormat(256, 144, _q4_k),
    "Q3_K": BlockFormat(256, 110, _q3_k),
    "Q2_K": BlockFormat(256, 84, _q2_k),
}
"""What `unpack` knows, by GGML's names."""
