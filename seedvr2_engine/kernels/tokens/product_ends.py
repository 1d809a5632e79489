"""The transformer's products in 8 bits with what follows them: the gated sum, or a gate's SiLU times what it gates.

Programs may stay for many tiles: the next tile's operands are then on their way while one is finished.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ...quant.quantize import QuantizedTensor
from ..configs import ProductConfig
from ..conv.conv3d import describe
from ..conv.epilogue import halves
from ..launch import launch
from .operands import GatedSum, StreamVectors
from .product import load_tile, tile_of

INTERPRETED_PROGRAMS = 3
"""Programs that stay, where there is no GPU to count the multiprocessors of."""


@triton.jit
def load_weight(
    w, column, k, columns, DEPTH: tl.constexpr, ROWS: tl.constexpr, BLOCK_K: tl.constexpr, TWO: tl.constexpr,
    TMA: tl.constexpr,
):  # fmt: skip
    """[ROWS, BLOCK_K] of a weight; of one in TWO parts the rows from `column` on of the first, then of the second."""
    if TWO:
        if TMA:
            tile = w.load([0, column, k]).reshape(ROWS, BLOCK_K)
        else:
            i = tl.arange(0, ROWS)
            r = column + i % (ROWS // 2)
            c = k + tl.arange(0, BLOCK_K)
            at = (r + i // (ROWS // 2) * columns).to(tl.int64)[:, None] * DEPTH + c[None, :]
            tile = tl.load(w + at, mask=(r < columns)[:, None] & (c < DEPTH)[None, :], other=0.0)
    else:
        tile = load_tile(w, column, k, columns, DEPTH, ROWS, BLOCK_K, TMA)
    return tile


@triton.jit
def scaled(acc, by_row, scales, c, columns):
    """Sums in float32, their rows and columns scaled."""
    return acc.to(tl.float32) * by_row[:, None] * tl.load(scales + c, mask=c < columns, other=0.0)[None, :]


@triton.jit
def store_part(out, value, row, column, rows, columns, TMA: tl.constexpr):
    """What is inside of a part of a tile, rounded."""
    if TMA:
        out.store([row, column], value.to(out.dtype))
    else:
        r = row + tl.arange(0, value.shape[0])
        c = column + tl.arange(0, value.shape[1])
        at = r.to(tl.int64)[:, None] * columns + c[None, :]
        tl.store(out + at, value.to(out.dtype.element_ty), mask=(r < rows)[:, None] & (c < columns)[None, :])


@triton.jit
def end_gated(
    gate, up, row, column, x_scale, w_scale, out, rows, columns, PARTS: tl.constexpr, TMA: tl.constexpr
):  # fmt: skip
    """silu(gate) * up of a tile, in PARTS, rounded once."""
    if PARTS > 1:
        N: tl.constexpr = gate.shape[1]
        left, right = halves(gate)
        first, second = halves(up)
        end_gated(left, first, row, column, x_scale, w_scale, out, rows, columns, PARTS // 2, TMA)
        end_gated(right, second, row, column + N // 2, x_scale, w_scale, out, rows, columns, PARTS // 2, TMA)
    else:
        r = row + tl.arange(0, gate.shape[0])
        c = column + tl.arange(0, gate.shape[1])
        by_row = tl.load(x_scale + r, mask=r < rows, other=0.0)
        value = scaled(gate, by_row, w_scale, c, columns)
        value *= tl.sigmoid(value) * scaled(up, by_row, w_scale + columns, c, columns)
        store_part(out, value, row, column, rows, columns, TMA)


@triton.jit
def end_sum(
    acc, row, column, x_scale, w_scale, bias, tokens, gate_video, gate_text, out, rows, columns, video_rows,
    ADDS: tl.constexpr, SUMS: tl.constexpr, PARTS: tl.constexpr, TMA: tl.constexpr,
):  # fmt: skip
    """tokens + gate * a tile with its bias, or the tile alone, in PARTS, rounded once."""
    if PARTS > 1:
        N: tl.constexpr = acc.shape[1]
        left, right = halves(acc)
        end_sum(
            left, row, column, x_scale, w_scale, bias, tokens, gate_video, gate_text, out, rows, columns, video_rows,
            ADDS, SUMS, PARTS // 2, TMA,
        )  # fmt: skip
        end_sum(
            right, row, column + N // 2, x_scale, w_scale, bias, tokens, gate_video, gate_text, out, rows, columns,
            video_rows, ADDS, SUMS, PARTS // 2, TMA,
        )  # fmt: skip
    else:
        r = row + tl.arange(0, acc.shape[0])
        c = column + tl.arange(0, acc.shape[1])
        in_row, in_column = r < rows, c < columns
        value = scaled(acc, tl.load(x_scale + r, mask=in_row, other=0.0), w_scale, c, columns)
        if ADDS:
            value += tl.load(bias + c, mask=in_column, other=0.0).to(tl.float32)[None, :]
        if SUMS:
            of_video = tl.load(gate_video + c, mask=in_column, other=0.0)[None, :]
            of_text = tl.load(gate_text + c, mask=in_column, other=0.0)[None, :]
            value *= tl.where((r < video_rows)[:, None], of_video, of_text)
            at = r.to(tl.int64)[:, None] * columns + c[None, :]
            value += tl.load(tokens + at, mask=in_row[:, None] & in_column[None, :], other=0.0).to(tl.float32)
        store_part(out, value, row, column, rows, columns, TMA)


@triton.jit
def whole_product(
    tile, x, w, x_scale, w_scale, bias, tokens, gate_video, gate_text, out, rows, columns, video_rows,
    DEPTH: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, GROUP: tl.constexpr,
    INTEGER: tl.constexpr, ADDS: tl.constexpr, SUMS: tl.constexpr, GATES: tl.constexpr, PARTS: tl.constexpr,
    TMA: tl.constexpr,
):  # fmt: skip
    """One tile, from its operands to what is stored."""
    WIDE: tl.constexpr = BLOCK_N // 2 if GATES else BLOCK_N
    row, column = tile_of(tile, rows, columns, BLOCK_M, WIDE, GROUP)
    acc = tl.zeros((BLOCK_M, BLOCK_N), tl.int32 if INTEGER else tl.float32)
    for k in range(0, DEPTH, BLOCK_K):
        a = load_tile(x, row, k, rows, DEPTH, BLOCK_M, BLOCK_K, TMA)
        b = load_weight(w, column, k, columns, DEPTH, BLOCK_N, BLOCK_K, GATES, TMA)
        acc = tl.dot(a, b.T, acc, out_dtype=acc.dtype)
    if GATES:
        gate, up = halves(acc)
        end_gated(gate, up, row, column, x_scale, w_scale, out, rows, columns, PARTS, TMA)
    else:
        end_sum(
            acc, row, column, x_scale, w_scale, bias, tokens, gate_video, gate_text, out, rows, columns, video_rows,
            ADDS, SUMS, PARTS, TMA,
        )  # fmt: skip


@triton.jit(do_not_specialize=["rows", "video_rows"])
def product_ends_kernel(
    x, w, x_scale, w_scale, bias, tokens, gate_video, gate_text, out, rows, columns, video_rows,
    DEPTH: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, GROUP: tl.constexpr,
    INTEGER: tl.constexpr, ADDS: tl.constexpr, SUMS: tl.constexpr, GATES: tl.constexpr, PARTS: tl.constexpr,
    STAYS: tl.constexpr, TMA: tl.constexpr,
):  # fmt: skip
    """Tiles of x w^T and what follows; `columns` are those of `out`."""
    if STAYS:
        tiles = tl.cdiv(rows, BLOCK_M) * tl.cdiv(columns, BLOCK_N // 2 if GATES else BLOCK_N)
        for tile in tl.range(tl.program_id(0), tiles, tl.num_programs(0), flatten=True):
            whole_product(
                tile, x, w, x_scale, w_scale, bias, tokens, gate_video, gate_text, out, rows, columns, video_rows,
                DEPTH, BLOCK_M, BLOCK_N, BLOCK_K, GROUP, INTEGER, ADDS, SUMS, GATES, PARTS, TMA,
            )  # fmt: skip
    else:
        whole_product(
            tl.program_id(0), x, w, x_scale, w_scale, bias, tokens, gate_video, gate_text, out, rows, columns,
            video_rows, DEPTH, BLOCK_M, BLOCK_N, BLOCK_K, GROUP, INTEGER, ADDS, SUMS, GATES, PARTS, TMA,
        )  # fmt: skip


def multiply(
    x: QuantizedTensor, weight: QuantizedTensor, bias: Tensor | None, out: Tensor, config: ProductConfig
) -> None:
    """x (rows, depth) times the rows of weight (columns, depth), plus bias; `reference.multiply` is the reference.

    Both in the same 8-bit format, contiguous, the depth a multiple of 16. out (rows, columns): summed in float32, or
    in INT32 for INT8, scaled in float32 and rounded once.
    """
    _launch(x, weight, bias, None, out, config)


def add_product(
    x: QuantizedTensor, weight: QuantizedTensor, bias: Tensor | None, end: GatedSum, out: Tensor, config: ProductConfig
) -> None:
    """out = tokens + gate * (x times the rows of weight, plus bias). Reference: `reference.add_product`.

    x (rows, depth) and weight (columns, depth) as for `multiply`; out (rows, columns) may be the tokens
    themselves. Summed, scaled and added in float32, rounded once.
    """
    _launch(x, weight, bias, end, out, config)


def multiply_gated(x: QuantizedTensor, weight: QuantizedTensor, out: Tensor, config: ProductConfig) -> None:
    """out (rows, columns) = silu(x gate^T) * (x up^T), rounded once. Reference: `reference.multiply_gated`.

    weight (2 * columns, depth): the rows of the gate, then those of what it gates.
    """
    _launch(x, weight, None, None, out, config, gates=True)


def _launch(
    x: QuantizedTensor, weight: QuantizedTensor, bias: Tensor | None, end: GatedSum | None, out: Tensor,
    config: ProductConfig, *, gates: bool = False,
) -> None:  # fmt: skip
    rows, depth = x.data.shape
    columns = out.shape[1]
    wide = config.block_n // (2 if gates else 1)
    tiles = triton.cdiv(rows, config.block_m) * triton.cdiv(columns, wide)
    operands: tuple[object, ...] = x.data, weight.data
    result: object = out
    if config.uses_tma:
        matrix, block = weight.data, [config.block_n, config.block_k]
        if gates:
            matrix, block = matrix.view(2, columns, depth), [2, wide, config.block_k]
        operands = describe(x.data, [config.block_m, config.block_k]), describe(matrix, block)
        result = describe(out, [config.block_m, wide // config.parts])
    gate = end.gate if end is not None else StreamVectors(None, None)  # type: ignore[arg-type]
    launch(
        product_ends_kernel, (min(tiles, _programs(x.data)) if config.stays else tiles,),
        *operands, x.scale, weight.scale, bias, None if end is None else end.tokens, *gate, result, rows, columns,
        rows if end is None else end.video_rows, DEPTH=depth, BLOCK_M=config.block_m, BLOCK_N=config.block_n,
        BLOCK_K=config.block_k, GROUP=config.group, INTEGER=not x.data.is_floating_point(), ADDS=bias is not None,
        SUMS=end is not None, GATES=gates, PARTS=config.parts, STAYS=config.stays, TMA=config.uses_tma,
        num_warps=config.warps, num_stages=config.stages,
    )  # fmt: skip


def _programs(like: Tensor) -> int:
    """Programs that stay: one for each multiprocessor."""
    if not like.is_cuda:
        return INTERPRETED_PROGRAMS
    return torch.cuda.get_device_properties(like.device).multi_processor_count
