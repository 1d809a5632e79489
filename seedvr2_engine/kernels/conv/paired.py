"""Two consecutive frames of a causal convolution from four products instead of six.

Three temporal taps over two frames are Winograd's F(2, 3) (Winograd 1980; Lavin, Gray 2016) along time alone:
with inputs d0..d3 and taps g0..g2,

    m0 = (d0 - d2) g0                 y0 = m0 + m1 + m2
    m1 = (d1 + d2)/2 (g0 + g1 + g2)   y1 = m1 - m2 + m3
    m2 = (d2 - d1)/2 (g0 - g1 + g2)
    m3 = (d3 - d1) g2

The Winograd inputs are made where frames are normalised, the taps' sums when weights are packed. Along time,
neighbouring frames are alike, so the differences are small and nothing is lost to cancellation.
"""

import triton
import triton.language as tl

from ..configs import ConvConfig, ConvProblem
from ..launch import launch
from .constants import constants
from .conv3d import check_operands, conclude, operand_loads, residual_load, shortcut_loads
from .operands import Additions, ConvOutput, ConvWeights, FrameWindow
from .product import accumulate_step


@triton.jit
def accumulate_two(
    one, other, ONE: tl.constexpr, OTHER: tl.constexpr, STEPS: tl.constexpr,
    x, w, frame, exponent, row, column, weight_row, H, W, CONV: tl.constexpr, CUT: tl.constexpr,
):  # fmt: skip
    """Add the products of frames ONE and OTHER of the four with their taps to two sums."""
    for step in range(STEPS):
        one = accumulate_step(
            one, ONE * STEPS + step, x, w, frame + ONE, exponent, row, column, weight_row, H, W, CONV, CUT
        )  # fmt: skip
        other = accumulate_step(
            other, OTHER * STEPS + step, x, w, frame + OTHER, exponent, row, column, weight_row, H, W, CONV, CUT
        )  # fmt: skip
    return one, other


@triton.jit(do_not_specialize=["H", "W", "GRID_H", "GRID_W"])
def paired_conv3d_kernel(
    x, w, y, partials, exponents, scale, bias, residual, shortcut, shortcut_weight, H, W, GRID_H, GRID_W,
    CONV: tl.constexpr, CUT: tl.constexpr,
):  # fmt: skip
    """One tile of two frames; the frames share an exponent."""
    PHASES: tl.constexpr = CONV.PHASES
    PIXELS: tl.constexpr = CUT.BLOCK_H * CUT.BLOCK_W
    CHANNEL_BLOCKS: tl.constexpr = CONV.CO // CUT.BLOCK_N
    STEPS: tl.constexpr = CONV.KH * CONV.KW * CONV.CI // CUT.BLOCK_K
    pid = tl.program_id(0)
    block_n = pid % CHANNEL_BLOCKS
    pid = pid // CHANNEL_BLOCKS
    phase = pid % PHASES
    pid = pid // PHASES
    tiles_w = tl.cdiv(GRID_W, CUT.BLOCK_W)
    grid_h = pid // tiles_w * CUT.BLOCK_H
    grid_w = pid % tiles_w * CUT.BLOCK_W
    row = grid_h - (1 if PHASES == 4 else CONV.KH // 2)
    column = grid_w - (1 if PHASES == 4 else CONV.KW // 2)
    if PHASES == 4:
        row += phase // 2
        column += phase % 2
    weight_row = phase * CONV.CO + block_n * CUT.BLOCK_N
    zero = tl.program_id(1)
    exponent = 0
    if CONV.HAS_EXPONENTS:
        exponent = tl.load(exponents)
    ROWS: tl.constexpr = CUT.BLOCK_N if CUT.TRANSPOSED else PIXELS
    COLUMNS: tl.constexpr = PIXELS if CUT.TRANSPOSED else CUT.BLOCK_N
    none = tl.zeros((ROWS, COLUMNS), dtype=tl.int32 if CONV.INTEGER else tl.float32)
    # Two products at a time: the pipeline is filled twice for a tile, not four times.
    both, change = accumulate_two(
        none, none, 1, 2, STEPS, x, w, zero, exponent, row, column, weight_row, H, W, CONV, CUT
    )  # fmt: skip
    first, second = accumulate_two(
        both + change, both - change, 0, 3, STEPS, x, w, zero, exponent, row, column, weight_row, H, W, CONV, CUT
    )  # fmt: skip
    for t in tl.static_range(2):
        conclude(
            first if t == 0 else second, exponent, (zero + t, phase, grid_h, grid_w), phase, block_n * CUT.BLOCK_N,
            y, partials, scale, bias, residual, shortcut, shortcut_weight, GRID_H, GRID_W, CONV, CUT,
        )  # fmt: skip


def paired_conv3d(
    window: FrameWindow,
    weights: ConvWeights,
    additions: Additions,
    out: ConvOutput,
    problem: ConvProblem,
    config: ConvConfig,
) -> None:
    """Convolve two frames into `out`. Reference: `reference.paired_conv3d`.

    window: frames (4, H, W, Ci), those of `operands.WINOGRAD_INPUTS`, of one exponent; its table is not looked
    into.
    weights: as `pack.pair_taps` makes them. Raises InvalidArgumentError where a tensor does not fit the problem.
    """
    check_operands(window, weights, additions, out, problem)
    grid_h, grid_w = problem.grid_px
    tiles = triton.cdiv(grid_h, config.tile_h) * triton.cdiv(grid_w, config.tile_w)
    launch(
        paired_conv3d_kernel, (tiles * problem.phases * (problem.channels_out // config.block_n),),
        *operand_loads(window, weights, config, problem.stride),
        out.y, out.partials, window.exponents, weights.scale, weights.bias, residual_load(additions, config, problem),
        *shortcut_loads(additions, config, problem), problem.height_px, problem.width_px, grid_h, grid_w,
        **constants(problem, config), num_warps=config.warps, num_stages=config.stages,
    )  # fmt: skip
