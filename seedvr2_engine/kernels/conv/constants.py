"""What a convolution kernel is compiled for, as two constants: what it computes, and how it is cut.

A kernel takes each as one compile-time argument, so that its functions hand on two names instead of twenty. What it
reads and writes stays one argument each: descriptors and pointers have types of their own.
"""

from typing import NamedTuple

from ..configs import ConvConfig, ConvProblem
from ..dispatch import shortcut_block_k


class Conv(NamedTuple):
    """What is computed; the names are those of Triton's constants."""

    CI: int
    """Input channels."""
    CO: int
    """Output channels, of one phase."""
    CS: int
    """Channels that the fused shortcut reads; 0 is none."""
    KT: int
    """Taps in time; 4 Winograd products where frames are paired."""
    KH: int
    """Taps along the rows."""
    KW: int
    """Taps along the columns."""
    STRIDE: int
    """Spatial stride."""
    PHASES: int
    """4 for a composed upsampler, else 1."""
    SCALED: bool
    """Whether products are block-scaled (MXFP8)."""
    INTEGER: bool
    """Whether products are INT8."""
    HAS_EXPONENTS: bool
    """Whether frames have exponents, and weights scales."""
    HAS_RESIDUAL: bool
    """Whether a tensor of the output's shape is added."""
    STATISTIC_ROWS: int
    """Statistics that each tile leaves: 0, 2 or 4."""

    @staticmethod
    def of(problem: ConvProblem) -> "Conv":
        """The constants of a problem."""
        kt, kh, kw = problem.kernel
        return Conv(
            CI=problem.channels_in,
            CO=problem.channels_out,
            CS=problem.shortcut_channels,
            KT=kt,
            KH=kh,
            KW=kw,
            STRIDE=problem.stride,
            PHASES=problem.phases,
            SCALED=problem.format == "mxfp8",
            INTEGER=problem.format == "int8",
            HAS_EXPONENTS=problem.is_quantized,
            HAS_RESIDUAL=problem.has_residual,
            STATISTIC_ROWS=problem.statistic_rows,
        )


class Cut(NamedTuple):
    """How a launch cuts its work."""

    BLOCK_H: int
    """Output rows of a tile."""
    BLOCK_W: int
    """Output columns of a tile."""
    BLOCK_N: int
    """Output channels of a tile."""
    BLOCK_K: int
    """Input channels of one step."""
    BLOCK_KS: int
    """The same of the shortcut; 0 without one."""
    SPLITS: int
    """Parts of its channels in which a tile is finished."""
    TMA: bool
    """Whether tiles are read through tensor descriptors."""
    TRANSPOSED: bool
    """Whether channels are the product's rows and pixels its columns."""
    WHOLE: bool
    """Whether tiles cover the grid exactly, so that nothing has to be masked."""

    @staticmethod
    def of(problem: ConvProblem, config: ConvConfig) -> "Cut":
        """The constants of a configuration for a problem."""
        return Cut(
            BLOCK_H=config.tile_h,
            BLOCK_W=config.tile_w,
            BLOCK_N=config.block_n,
            BLOCK_K=config.block_k,
            BLOCK_KS=shortcut_block_k(problem.shortcut_channels, config) if problem.shortcut_channels else 0,
            SPLITS=config.epilogue_parts,
            TMA=config.uses_tma,
            TRANSPOSED=config.transposed,
            WHOLE=config.divides(problem.grid_px),
        )


def constants(problem: ConvProblem, config: ConvConfig) -> dict[str, tuple[object, ...]]:
    """Both, by the kernels' parameter names."""
    return {"CONV": Conv.of(problem), "CUT": Cut.of(problem, config)}
