"""What a kernel is to compute, and how a launch of it cuts its work: plain values that plans are made of."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

from ..quant.recipe import EIGHT_BIT, PRECISIONS, Precision

Format = Precision
FORMATS: tuple[Format, ...] = PRECISIONS
MatrixFormat = Literal["nvfp4", "fp8", "mxfp8", "int8", "fp16", "bf16"]
"""Number formats of the transformer's products."""
ProductEnd = Literal["sum", "gate"]
"""What a product in 8 bits may take along: the gated sum after it, or a gate's SiLU times what it gates."""
OutputFormat = Literal["fp16", "bf16", "fp32"]


@dataclass(frozen=True)
class ConvProblem:
    """One convolution as the kernels see it; what a configuration depends on and nothing else."""

    channels_in: int
    """Channels of the input, padding included."""
    channels_out: int
    """Channels of the output (of one phase, for a composed upsampler), padding included."""
    kernel: tuple[int, int, int]
    """Taps in time, rows and columns; a composed upsampler has (2, 2, 2), (3, 2, 2) or (1, 2, 2). With `paired`, four
    Winograd products stand in the place of three taps."""
    frames: int
    """Output frames of one launch."""
    height_px: int
    """Rows of the input."""
    width_px: int
    """Columns of the input."""
    format: Format
    """Number format of the input and the weights."""
    stride: int = 1
    """Spatial stride, 1 or 2; 2 pads one row below and one column at the right."""
    phases: int = 1
    """4 for a composed upsampler (twice the rows and columns), else 1."""
    shortcut_channels: int = 0
    """Channels of the 16-bit tensor that a fused 1x1x1 shortcut reads; 0 is none."""
    has_residual: bool = False
    """Whether a 16-bit tensor of the output's shape is added."""
    has_statistics: bool = True
    """Whether the partial statistics of the next GroupNorm are written."""
    has_range: bool = False
    """Whether the statistics include the smallest and largest value; without them the largest is bounded by M2, which
    FP8 does not mind and INT8 does."""
    paired: bool = False
    """Whether two frames are computed together from four Winograd inputs (see `conv.paired`); then `frames` is 2."""
    output: OutputFormat = "fp16"
    """Format of the output, of the residual and of the shortcut's operands (which cannot be fp32)."""

    @property
    def is_quantized(self) -> bool:
        """Whether input and weights have 8 bits."""
        return self.format in EIGHT_BIT

    @property
    def statistic_rows(self) -> int:
        """Numbers that each tile leaves for each channel: none, mean and M2, or these and the range."""
        return (4 if self.has_range else 2) if self.has_statistics else 0

    @property
    def grid_px(self) -> tuple[int, int]:
        """Rows and columns that one phase computes."""
        return self.height_px // self.stride, self.width_px // self.stride

    @property
    def output_px(self) -> tuple[int, int]:
        """Rows and columns of the output."""
        height, width = self.grid_px
        return (2 * height, 2 * width) if self.phases == 4 else (height, width)

    @property
    def flops(self) -> int:
        """Floating-point operations, two for each multiply-add, the spatial padding counted."""
        kt, kh, kw = self.kernel
        products = self.frames // 2 if self.paired else self.frames
        depth = products * kt * kh * kw * self.channels_in + self.frames * self.shortcut_channels
        height, width = self.grid_px
        return 2 * height * width * self.phases * self.channels_out * depth


@dataclass(frozen=True)
class ConvConfig:
    """How one launch of the convolution kernel cuts its work."""

    tile_h: int
    """Output rows of a tile; a power of two."""
    tile_w: int
    """Output columns of a tile; a power of two."""
    block_n: int
    """Output channels of a tile; a power of two that divides the channels."""
    block_k: int
    """Input channels of one step; a power of two that divides the channels."""
    warps: int
    """Warps of a program."""
    stages: int
    """Depth of the software pipeline."""
    uses_tma: bool
    """Whether tiles are read through tensor descriptors (from sm_90) or through pointers."""
    epilogue_parts: int = 1
    """Parts of its channels in which a tile is finished, a power of two: the registers hold a whole tile only once."""
    transposed: bool = False
    """Whether channels are the product's rows and pixels its columns: a thread then holds many pixels of few channels,
    whose statistics cost next to nothing. Such a tile is finished in one part."""

    @property
    def block_m(self) -> int:
        """Output pixels of a tile."""
        return self.tile_h * self.tile_w

    def divides(self, grid_px: tuple[int, int]) -> bool:
        """Whether tiles cover (rows, columns) exactly, so that nothing has to be masked."""
        rows, columns = grid_px
        return rows % self.tile_h == 0 and columns % self.tile_w == 0

    def describe(self) -> str:
        """The configuration in one short phrase."""
        loads = "descriptors" if self.uses_tma else "pointers"
        return (
            f"tile {self.tile_h}x{self.tile_w}, N {self.block_n}, K {self.block_k}, "
            f"{self.warps} warps, {self.stages} stages, {loads}"
        )


@dataclass(frozen=True)
class AttentionConfig:
    """How one launch of the attention kernel cuts its work."""

    block_m: int
    """Queries of a program; a power of two."""
    block_n: int
    """Keys of one step; a power of two."""
    block_v: int
    """Dimensions of the values that a program accumulates; a power of two that divides the head's."""
    warps: int
    """Warps of a program."""
    stages: int
    """Depth of the software pipeline."""
    uses_tma: bool
    """Whether rows are read through tensor descriptors (from sm_90) or through pointers."""
    overlaps: bool = False
    """In 8 bits: whether a block's product with the values runs while the next block's softmax is computed. Written for
    `wgmma`, of which a thread must hold a multiple of 64 sums; the values are then in `layout.value_order`."""


class WindowConfig(NamedTuple):
    """How one launch of the window attention cuts its work."""

    block_m: int
    """Queries of a program; a power of two."""
    block_n: int
    """Keys of one step; a power of two."""
    warps: int
    """Warps of a program."""
    stages: int
    """Depth of the software pipeline."""
    uses_tma: bool
    """Whether rows are read through tensor descriptors (from sm_90) or through pointers."""


class ProductConfig(NamedTuple):
    """How one launch of a matrix product in 8 or 4 bits cuts its work."""

    block_m: int
    """Rows of a tile; a power of two."""
    block_n: int
    """Columns of a tile; a power of two."""
    block_k: int
    """Depth of one step; a power of two."""
    warps: int
    """Warps of a program."""
    stages: int
    """Depth of the software pipeline."""
    uses_tma: bool
    """Whether operands are read through tensor descriptors (from sm_90) or through pointers."""
    group: int = 8
    """Tiles of rows that share a tile of columns before the next one is taken."""
    parts: int = 1
    """Parts of its columns in which a tile is finished by `product_ends`; a power of two."""
    stays: bool = False
    """Whether a program takes one tile after the other, by `product_ends`, or one alone."""


@dataclass(frozen=True)
class Refusal:
    """Why no kernel takes a problem on a GPU."""

    reason: str
    """One clause, to be shown in the plan."""
