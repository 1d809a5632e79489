"""The transformer's products in MXFP8 and NVFP4: scales of blocks in the matrix unit, of rows in the epilogue."""

import triton
import triton.language as tl
from torch import Tensor

from ...quant.quantize import BlockScaledTensor
from ..configs import ProductConfig
from ..launch import launch
from .product import load_tile, operands, store_tile, tile_of


@triton.jit
def load_scales(scales, row, k, rows, DEPTH: tl.constexpr, ROWS: tl.constexpr, COUNT: tl.constexpr, FP4: tl.constexpr):
    """[ROWS, COUNT] block scales of rows with DEPTH of them, as the matrix unit takes them; zero outside."""
    r = row + tl.arange(0, ROWS)
    c = k + tl.arange(0, COUNT)
    at = r.to(tl.int64)[:, None] * DEPTH + c[None, :]
    found = tl.load(scales + at, mask=(r < rows)[:, None] & (c < DEPTH)[None, :], other=0)
    if FP4:
        found = found.to(tl.float8e4nv, bitcast=True)
    return found


@triton.jit(do_not_specialize=["rows"])
def product_blocks_kernel(
    x, w, x_blocks, w_blocks, x_scale, w_scale, bias, out, rows, columns,
    DEPTH: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, GROUP: tl.constexpr,
    FP4: tl.constexpr, ADDS: tl.constexpr, TMA: tl.constexpr,
):  # fmt: skip
    """One tile of x w^T, as `product.product_kernel` has it; two E2M1 values share a byte, the same two in x and w."""
    PACKED: tl.constexpr = 2 if FP4 else 1
    BLOCK: tl.constexpr = 16 if FP4 else 32
    row, column = tile_of(tl.program_id(0), rows, columns, BLOCK_M, BLOCK_N, GROUP)
    acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for k in range(0, DEPTH, BLOCK_K):
        at = k // PACKED
        a = load_tile(x, row, at, rows, DEPTH // PACKED, BLOCK_M, BLOCK_K // PACKED, TMA)
        b = load_tile(w, column, at, columns, DEPTH // PACKED, BLOCK_N, BLOCK_K // PACKED, TMA)
        by_a = load_scales(x_blocks, row, k // BLOCK, rows, DEPTH // BLOCK, BLOCK_M, BLOCK_K // BLOCK, FP4)
        by_b = load_scales(w_blocks, column, k // BLOCK, columns, DEPTH // BLOCK, BLOCK_N, BLOCK_K // BLOCK, FP4)
        if FP4:
            acc = tl.dot_scaled(a, by_a, "e2m1", b.T, by_b, "e2m1", acc)
        else:
            acc = tl.dot_scaled(a, by_a, "e4m3", b.T, by_b, "e4m3", acc)
    store_tile(acc, row, column, x_scale, w_scale, bias, out, rows, columns, BLOCK_M, BLOCK_N, ADDS)


def multiply(
    x: BlockScaledTensor, weight: BlockScaledTensor, bias: Tensor | None, out: Tensor, config: ProductConfig
) -> None:
    """x (rows, depth) times the rows of weight (columns, depth), plus bias; `reference.multiply` is the reference.

    Both in the same format, contiguous, the depth a multiple of its block. Summed and scaled in float32, rounded once.
    """
    is_fp4 = not x.data.is_floating_point()
    packed = 2 if is_fp4 else 1
    rows, depth = x.data.shape
    columns = len(weight.data)
    grid = (triton.cdiv(rows, config.block_m) * triton.cdiv(columns, config.block_n),)
    launch(
        product_blocks_kernel, grid,
        *operands(x.data, weight.data, config, packed), x.blocks, weight.blocks, x.scale, weight.scale, bias, out, rows,
        columns, DEPTH=depth * packed,
        BLOCK_M=config.block_m, BLOCK_N=config.block_n, BLOCK_K=config.block_k, GROUP=config.group, FP4=is_fp4,
        ADDS=bias is not None, TMA=config.uses_tma, num_warps=config.warps, num_stages=config.stages,
    )  # fmt: skip
