"""Causal convolution as an implicit matrix product: FP8, MXFP8, INT8, FP16 and BF16 from one source.

A program computes a tile of `BLOCK_H x BLOCK_W` output pixels by `BLOCK_N` output channels of one frame: the product
(`product`), then its end (`epilogue`).
"""

import math
from typing import Any

import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

from ...errors import InvalidArgumentError
from ..configs import ConvConfig, ConvProblem
from ..dispatch import shortcut_block_k
from ..launch import launch
from ..layout import DTYPES
from .constants import constants
from .epilogue import finish
from .operands import Additions, ConvOutput, ConvWeights, FrameWindow
from .product import accumulate, accumulate_mixed, load_matrix, load_window


@triton.jit(do_not_specialize=["H", "W", "GRID_H", "GRID_W"])
def conv3d_kernel(
    x, w, y, partials, table, exponents, scale, bias, residual, shortcut, shortcut_weight, H, W, GRID_H, GRID_W,
    CONV: tl.constexpr, CUT: tl.constexpr,
):  # fmt: skip
    """One tile: product, scale and shortcut; then bias, residual, store and statistics, in `CUT.SPLITS` parts."""
    KT: tl.constexpr = CONV.KT
    PHASES: tl.constexpr = CONV.PHASES
    PIXELS: tl.constexpr = CUT.BLOCK_H * CUT.BLOCK_W
    CHANNEL_BLOCKS: tl.constexpr = CONV.CO // CUT.BLOCK_N
    STEPS: tl.constexpr = CONV.KH * CONV.KW * CONV.CI // CUT.BLOCK_K
    # Programs that read the same pixels stand next to each other: channels, then phases, then space, then time.
    pid = tl.program_id(0)
    block_n = pid % CHANNEL_BLOCKS
    pid = pid // CHANNEL_BLOCKS
    phase = pid % PHASES
    pid = pid // PHASES
    tiles_w = tl.cdiv(GRID_W, CUT.BLOCK_W)
    tiles_h = tl.cdiv(GRID_H, CUT.BLOCK_H)
    grid_h = pid // tiles_w % tiles_h * CUT.BLOCK_H
    grid_w = pid % tiles_w * CUT.BLOCK_W
    t = pid // tiles_w // tiles_h
    row = grid_h - (0 if CONV.STRIDE == 2 else (1 if PHASES == 4 else CONV.KH // 2))
    column = grid_w - (0 if CONV.STRIDE == 2 else (1 if PHASES == 4 else CONV.KW // 2))
    if PHASES == 4:
        row += phase // 2
        column += phase % 2
    kernel_set = tl.load(table + t * (KT + 1) + KT) * PHASES + phase
    weight_row = kernel_set * CONV.CO + block_n * CUT.BLOCK_N

    tile = (t, phase, grid_h, grid_w)
    frame0 = tl.load(table + t * (KT + 1))
    frame1 = tl.load(table + t * (KT + 1) + (1 if KT > 1 else 0))
    frame2 = tl.load(table + t * (KT + 1) + KT - 1)
    frames = (frame0, frame1, frame2)
    e0, e1, e2 = 0, 0, 0
    if CONV.HAS_EXPONENTS:
        e0, e1, e2 = tl.load(exponents + frame0), tl.load(exponents + frame1), tl.load(exponents + frame2)
    ROWS: tl.constexpr = CUT.BLOCK_N if CUT.TRANSPOSED else PIXELS
    COLUMNS: tl.constexpr = PIXELS if CUT.TRANSPOSED else CUT.BLOCK_N
    acc = tl.zeros((ROWS, COLUMNS), dtype=tl.int32 if CONV.INTEGER else tl.float32)
    last = e0
    if CONV.SCALED or KT == 1 or not CONV.HAS_EXPONENTS:
        acc = accumulate(acc, 0, KT * STEPS, x, w, frames, (e0, e1, e2), row, column, weight_row, H, W, CONV, CUT)
    else:
        # Nearly always the frames share one exponent, and the product is one uninterrupted loop.
        if (e0 == e1) & (e1 == e2):
            acc = accumulate(acc, 0, KT * STEPS, x, w, frames, (e0, e1, e2), row, column, weight_row, H, W, CONV, CUT)
        else:
            acc, last = accumulate_mixed(acc, x, w, frames, (e0, e1, e2), row, column, weight_row, H, W, CONV, CUT)

    conclude(
        acc, last, tile, kernel_set, block_n * CUT.BLOCK_N, y, partials, scale, bias, residual, shortcut,
        shortcut_weight, GRID_H, GRID_W, CONV, CUT,
    )  # fmt: skip


@triton.jit
def conclude(
    acc, exponent, tile, kernel_set, channel, y, partials, scale, bias, residual, shortcut, shortcut_weight,
    GRID_H, GRID_W, CONV: tl.constexpr, CUT: tl.constexpr,
):  # fmt: skip
    """Scale, shortcut, and the end of a tile whose product is `acc`, in units of 2^exponent."""
    t, _, grid_h, grid_w = tile
    value = acc.to(tl.float32)
    if CONV.HAS_EXPONENTS:
        factor = tl.load(scale + kernel_set * CONV.CO + channel + tl.arange(0, CUT.BLOCK_N))
        if not CONV.SCALED:
            factor = factor * tl.exp2(tl.cast(exponent, tl.float32))
        value = value * tl.expand_dims(factor, 1 if CUT.TRANSPOSED else 0)
    if CONV.CS > 0:
        for c in range(0, CONV.CS, CUT.BLOCK_KS):
            a = load_window(
                shortcut, t, grid_h, grid_w, 0, 0, c, GRID_H, GRID_W,
                CONV.CS, 1, CUT.BLOCK_H, CUT.BLOCK_W, CUT.BLOCK_KS, CUT.TMA,
            )  # fmt: skip
            b = load_matrix(shortcut_weight, channel, c, CONV.CS, CUT.BLOCK_N, CUT.BLOCK_KS, CUT.TMA)
            if CUT.TRANSPOSED:
                value = tl.dot(b, a.T, value)
            else:
                value = tl.dot(a, b.T, value)
    finish(
        value, tile, kernel_set, channel, y, partials, bias, residual, GRID_H, GRID_W, CUT.SPLITS, CONV, CUT,
    )  # fmt: skip


def conv3d(
    window: FrameWindow,
    weights: ConvWeights,
    additions: Additions,
    out: ConvOutput,
    problem: ConvProblem,
    config: ConvConfig,
) -> None:
    """Convolve the window into `out`. Reference: `reference.conv3d`.

    y = window * weights (zero-padded in space) * weight scale + bias + shortcut * shortcut weight + residual.
    Nothing is allocated and nothing waits for the GPU. Raises InvalidArgumentError where a tensor does not fit the
    problem.
    """
    check_operands(window, weights, additions, out, problem)
    grid_h, grid_w = problem.grid_px
    tiles = triton.cdiv(grid_h, config.tile_h) * triton.cdiv(grid_w, config.tile_w)
    programs = tiles * problem.phases * (problem.channels_out // config.block_n)
    launch(
        conv3d_kernel, (problem.frames * programs,),
        *operand_loads(window, weights, config, problem.stride),
        out.y, out.partials, window.table, window.exponents, weights.scale, weights.bias,
        residual_load(additions, config, problem),
        *shortcut_loads(additions, config, problem),
        problem.height_px, problem.width_px, grid_h, grid_w,
        **constants(problem, config), num_warps=config.warps, num_stages=config.stages,
    )  # fmt: skip


def check_operands(
    window: FrameWindow, weights: ConvWeights, additions: Additions, out: ConvOutput, problem: ConvProblem
) -> None:
    """Raise InvalidArgumentError where a tensor is missing, is too many, or has not the problem's shape or dtype."""
    dtype, output_dtype = DTYPES[problem.format], DTYPES[problem.output]
    output = (problem.frames, *problem.output_px, problem.channels_out)
    frames = (window.frames.shape[0], problem.height_px, problem.width_px, problem.channels_in)
    rows = weights.data.shape[0]
    shortcut = problem.shortcut_channels
    kt, kh, kw = problem.kernel
    _expect("window.frames", window.frames, (4, *frames[1:]) if problem.paired else frames, dtype)
    if not problem.paired:
        _expect("window.table", window.table, (problem.frames, kt + 1), torch.int32)
    _expect("weights.data", weights.data, (rows, kt * kh * kw * problem.channels_in), dtype)
    _expect("out.y", out.y, output, output_dtype)
    scaled = problem.is_quantized
    _expect("window.exponents", window.exponents, frames[:1] if scaled else None, torch.int32)
    _expect("weights.scale", weights.scale, (rows,) if scaled else None, torch.float32)
    _expect("additions.residual", additions.residual, output if problem.has_residual else None, output_dtype)
    _expect("additions.shortcut", additions.shortcut, (*output[:3], shortcut) if shortcut else None, output_dtype)
    matrix = (problem.channels_out, shortcut) if shortcut else None
    _expect("additions.shortcut_weight", additions.shortcut_weight, matrix, output_dtype)
    rows = 0 if out.partials is None else out.partials.shape[2]
    if rows != problem.statistic_rows:
        raise InvalidArgumentError(
            f"out.partials: expected {problem.statistic_rows} statistics of each tile, got room for {rows}."
        )
    for name, shape in (("input", frames), ("output", output)):
        elements = math.prod(shape[1:])
        if elements >= 2**31:
            raise InvalidArgumentError(
                f"convolution: expected fewer than 2^31 elements in an {name} frame, got {elements}; use spatial tiles."
            )


def _expect(name: str, tensor: torch.Tensor | None, shape: tuple[int, ...] | None, dtype: torch.dtype) -> None:
    wanted = "nothing" if shape is None else f"contiguous {shape} {dtype}"
    if tensor is None:
        if shape is not None:
            raise InvalidArgumentError(f"{name}: expected {wanted}, got nothing.")
        return
    if shape is None or tuple(tensor.shape) != shape or tensor.dtype != dtype or not tensor.is_contiguous():
        layout = "contiguous" if tensor.is_contiguous() else "strided"
        raise InvalidArgumentError(f"{name}: expected {wanted}, got {layout} {tuple(tensor.shape)} {tensor.dtype}.")


def operand_loads(window: FrameWindow, weights: ConvWeights, config: ConvConfig, stride: int) -> tuple[Any, Any]:
    frames = window.frames
    if not config.uses_tma:
        return frames, weights.data
    tile = [1, config.tile_h, config.tile_w, config.block_k]
    if stride == 2:
        count, height, width, channels = frames.shape
        frames = frames.view(count, height // 2, 2, width // 2, 2 * channels)
        tile = [1, config.tile_h, 1, config.tile_w, config.block_k]
    return describe(frames, tile), describe(weights.data, [config.block_n, config.block_k])


def shortcut_loads(additions: Additions, config: ConvConfig, problem: ConvProblem) -> tuple[Any, Any]:
    shortcut, weight = additions.shortcut, additions.shortcut_weight
    if shortcut is None or weight is None or not config.uses_tma:
        return shortcut, weight
    block_k = shortcut_block_k(problem.shortcut_channels, config)
    return describe(shortcut, [1, config.tile_h, config.tile_w, block_k]), describe(weight, [config.block_n, block_k])


def residual_load(additions: Additions, config: ConvConfig, problem: ConvProblem) -> Any:
    residual = additions.residual
    if residual is None or not config.uses_tma or problem.phases == 4:
        return residual
    return describe(residual, [1, config.tile_h, config.tile_w, config.block_n // config.epilogue_parts])


def describe(tensor: torch.Tensor, block: list[int]) -> TensorDescriptor:
    """A descriptor through which blocks of a contiguous tensor are read; outside it they read as zero."""
    return TensorDescriptor(tensor, list(tensor.shape), list(tensor.stride()), block)
