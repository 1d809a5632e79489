"""What the transformer's matrix products share: a tile's place, its operands, and its end."""

import triton
import triton.language as tl
from torch import Tensor

from ..configs import ProductConfig
from ..conv.conv3d import describe


@triton.jit
def load_tile(x, row, k, rows, DEPTH: tl.constexpr, ROWS: tl.constexpr, BLOCK_K: tl.constexpr, TMA: tl.constexpr):
    """[ROWS, BLOCK_K] of a matrix with DEPTH columns; what is outside reads as zero."""
    if TMA:
        tile = x.load([row, k])
    else:
        r = row + tl.arange(0, ROWS)
        c = k + tl.arange(0, BLOCK_K)
        at = r.to(tl.int64)[:, None] * DEPTH + c[None, :]
        tile = tl.load(x + at, mask=(r < rows)[:, None] & (c < DEPTH)[None, :], other=0.0)
    return tile


@triton.jit
def tile_of(program, rows, columns, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, GROUP: tl.constexpr):
    """First row and column of a program's tile.

    Programs go through GROUP tiles of rows before the next tile of columns, so that both operands stay in the L2.
    """
    tiles_m = tl.cdiv(rows, BLOCK_M)
    tiles_n = tl.cdiv(columns, BLOCK_N)
    first = program // (GROUP * tiles_n) * GROUP
    height = tl.minimum(tiles_m - first, GROUP)
    inside = program % (GROUP * tiles_n)
    return (first + inside % height) * BLOCK_M, (inside // height) * BLOCK_N


@triton.jit
def store_tile(
    acc, row, column, x_scale, w_scale, bias, out, rows, columns,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, ADDS: tl.constexpr,
):  # fmt: skip
    """The end of a tile: rows and columns scaled, the bias added, rounded once."""
    r = row + tl.arange(0, BLOCK_M)
    c = column + tl.arange(0, BLOCK_N)
    by_row = tl.load(x_scale + r, mask=r < rows, other=0.0)
    by_column = tl.load(w_scale + c, mask=c < columns, other=0.0)
    value = acc.to(tl.float32) * by_row[:, None] * by_column[None, :]
    if ADDS:
        value += tl.load(bias + c, mask=c < columns, other=0.0).to(tl.float32)[None, :]
    at = r.to(tl.int64)[:, None] * columns + c[None, :]
    tl.store(out + at, value.to(out.dtype.element_ty), mask=(r < rows)[:, None] & (c < columns)[None, :])


def operands(x: Tensor, weight: Tensor, config: ProductConfig, packed: int = 1) -> tuple[object, object]:
    """The two matrices as a kernel takes them, descriptors where it loads through them; `packed` numbers in a byte."""
    if not config.uses_tma:
        return x, weight
    depth = config.block_k // packed
    return describe(x, [config.block_m, depth]), describe(weight, [config.block_n, depth])
