"""What is known of one generation of GPUs. Each has a file beside this one; everything else reads its record."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ...device import MatrixRates
from ..configs import (
    AttentionConfig,
    ConvConfig,
    ConvProblem,
    Format,
    MatrixFormat,
    ProductConfig,
    ProductEnd,
    WindowConfig,
)

MMA_SYNC: dict[MatrixFormat, str] = {
    "fp8": "mma.sync.aligned.m16n8k32.row.col.f32.e4m3.e4m3.f32",
    "int8": "mma.sync.aligned.m16n8k32.row.col.satfinite.s32.s8.s8.s32",
    "fp16": "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32",
    "bf16": "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32",
}
"""Tensor-core instructions of a warp, which all generations from sm_80 have for the formats they multiply."""


@dataclass(frozen=True)
class Efficiency:
    """Shares of the figures on paper that are taken as reachable."""

    matrix_16_bit: float
    """Of the FP16 and BF16 rate."""
    matrix_8_bit: float
    """Of the FP8, MXFP8 and INT8 rate, and of the NVFP4 rate."""
    bandwidth: float
    """Of the memory bandwidth."""
    windows: float
    """Of the 16-bit rate, by the transformer's attention inside windows."""
    launch_us: float = 2.0
    """What an operation takes however small it is, inside a CUDA graph."""
    host_bytes_per_s: float = 22e9
    """Pinned host memory over PCIe 4.0 x16, one direction."""
    source: str = ""
    """Where the shares come from."""
    products: Mapping[MatrixFormat, float] = field(default_factory=dict)
    """Of a format's rate, by the transformer's products, where our kernel reaches another share of it."""

    def share(self, format: MatrixFormat) -> float:
        """Of the rate of a format, by a large matrix product."""
        return self.matrix_16_bit if format in ("fp16", "bf16") else self.matrix_8_bit


DATA_CENTRE = Efficiency(
    0.79, 0.74, 0.85, 0.3, source="matrix products measured on one H200 (777 of 989, 1459 of 1979); the rest assumed"
)
GEFORCE = Efficiency(0.85, 0.85, 0.85, 0.6, source="assumed, not measured")


@dataclass(frozen=True)
class Architecture:
    """What all GPUs of one compute capability share, and how the kernels are cut for them."""

    # How a user sees it.
    sm: str
    """Compute capability as compilers write it, such as `sm_120`; the name of its file."""
    family: str
    """NVIDIA's name of the generation, such as `Blackwell`."""
    products: str
    """What is sold with it."""
    evidence: str
    """What is known of the kernels there: measured on which GPU, or compiled only."""

    # What the hardware has.
    shared_memory_bytes: int
    """Shared memory that one block may opt in to."""
    flop_per_sm_clock: MatrixRates
    """Matrix work of one SM in one clock; of the GeForce parts where they differ from the professional ones."""
    efficiency: Efficiency
    """How much of the rates on paper is reached."""
    has_descriptors: bool
    """Whether tiles can be read through tensor descriptors (TMA); plain, unpipelined loads take their place before."""

    # What the kernels use.
    formats: tuple[Format, ...]
    """Number formats that the kernels multiply there, the one that `auto` takes first."""
    conv_config: Callable[[ConvProblem], ConvConfig]
    """The cut of a convolution, before it is fitted to the layout and to the shared memory."""
    attention: AttentionConfig
    """The cut of the attention in 16 bits."""
    left_out: Mapping[Format, str] = field(default_factory=dict)
    """Formats that the hardware multiplies and the kernels do not, each with the reason: one clause."""
    attention_8bit: AttentionConfig | None = None
    """With 8-bit queries and keys and FP8 values; None where there is no FP8."""
    windows: WindowConfig | None = None
    """The cut of the attention over windows; None where PyTorch's is used, because nobody has tried the kernel."""
    matrices: Mapping[MatrixFormat, ProductConfig | None] = field(default_factory=dict)
    """The formats in 8 and 4 bits of the transformer's matrix products, the one that `auto` tries first, each with the
    cut of our kernel, or None where PyTorch's own is used."""
    ends: Mapping[tuple[MatrixFormat, ProductEnd], ProductConfig] = field(default_factory=dict)
    """The cuts of products that take along what follows them, where that is measured to be faster than a pass."""
    pairs_frames: bool = False
    """Whether two frames are computed from four products. A tile then needs two sums of 128 x 128, and twice the
    operands in shared memory, which pays where both are plenty; False where it has not been measured."""

    # What the compiled kernels must show.
    instructions: Mapping[MatrixFormat, str] = field(default_factory=lambda: MMA_SYNC)
    """Part of the name of the tensor-core instruction that the PTX must have, by format."""
    pipeline_buffers: tuple[int, int] = (-1, -1)
    """Buffers in shared memory beyond the pipeline's depth, for the pixels and for the weights, as Triton 3.6 has it:
    what feeds the tensor cores from registers leaves its buffer one step earlier."""
    registers_per_thread: int = 255
    """Registers that a thread can have."""
    registers_per_block: int = 65_536
    """Registers that all threads of a block can have."""
    known_spills: Mapping[str, int] = field(default_factory=dict)
    """Kernels that keep registers in local memory, and how many bytes at most: format, layer and taps, as
    `plan.describe.operation_name` has them. A kernel that is not named here may not."""
