"""The transformer's matrix products in 8 bits: FP8 or INT8 operands, scales and bias in the epilogue."""

import triton
import triton.language as tl
from torch import Tensor

from ...quant.quantize import QuantizedTensor
from ..configs import ProductConfig
from ..conv.conv3d import describe
from ..launch import launch


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


@triton.jit(do_not_specialize=["rows"])
def product_kernel(
    x, w, x_scale, w_scale, bias, out, rows, columns,
    DEPTH: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, GROUP: tl.constexpr,
    INTEGER: tl.constexpr, ADDS: tl.constexpr, TMA: tl.constexpr,
):  # fmt: skip
    """One tile of x w^T, its rows and columns scaled, and the bias added."""
    row, column = tile_of(tl.program_id(0), rows, columns, BLOCK_M, BLOCK_N, GROUP)
    acc = tl.zeros((BLOCK_M, BLOCK_N), tl.int32 if INTEGER else tl.float32)
    for k in range(0, DEPTH, BLOCK_K):
        a = load_tile(x, row, k, rows, DEPTH, BLOCK_M, BLOCK_K, TMA)
        b = load_tile(w, column, k, columns, DEPTH, BLOCK_N, BLOCK_K, TMA)
        acc = tl.dot(a, b.T, acc, out_dtype=acc.dtype)
    store_tile(acc, row, column, x_scale, w_scale, bias, out, rows, columns, BLOCK_M, BLOCK_N, ADDS)


def multiply(
    x: QuantizedTensor, weight: QuantizedTensor, bias: Tensor | None, out: Tensor, config: ProductConfig
) -> None:
    """x (rows, depth) times the rows of weight (columns, depth), plus bias; `reference.multiply` is the reference.

    Both in the same 8-bit format, contiguous, the depth a multiple of 16. out (rows, columns): summed in float32, or
    in INT32 for INT8, scaled in float32 and rounded once.
    """
    rows, depth = x.data.shape
    columns = len(weight.data)
    grid = (triton.cdiv(rows, config.block_m) * triton.cdiv(columns, config.block_n),)
    launch(
        product_kernel, grid,
        *operands(x.data, weight.data, config), x.scale, weight.scale, bias, out, rows, columns, DEPTH=depth,
        BLOCK_M=config.block_m, BLOCK_N=config.block_n, BLOCK_K=config.block_k, GROUP=config.group,
        INTEGER=not x.data.is_floating_point(), ADDS=bias is not None, TMA=config.uses_tma,
        num_warps=config.warps, num_stages=config.stages,
    )  # fmt: skip


def operands(x: Tensor, weight: Tensor, config: ProductConfig, packed: int = 1) -> tuple[object, object]:
    """The two matrices as a kernel takes them, descriptors where it loads through them; `packed` numbers in a byte."""
    if not config.uses_tma:
        return x, weight
    depth = config.block_k // packed
    return describe(x, [config.block_m, depth]), describe(weight, [config.block_n, depth])
