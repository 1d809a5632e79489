"""Which configuration a convolution runs with on which GPU: pure heuristics, one set for each architecture.

Imports no Triton, so a plan for any GPU can be made on a machine that has none.
"""

from collections.abc import Callable
from dataclasses import replace

from ..device import DeviceSpec
from .configs import BYTES_PER_ELEMENT as BYTES_PER_ELEMENT
from .configs import FORMATS as FORMATS
from .configs import AttentionConfig as AttentionConfig
from .configs import ConvConfig as ConvConfig
from .configs import ConvProblem as ConvProblem
from .configs import Format as Format
from .configs import OutputFormat as OutputFormat
from .configs import Refusal as Refusal

FORMATS_BY_ARCHITECTURE: dict[str, tuple[Format, ...]] = {
    "sm_80": ("int8", "fp16", "bf16"),
    "sm_86": ("int8", "fp16", "bf16"),
    "sm_87": ("int8", "fp16", "bf16"),
    "sm_89": ("fp8", "int8", "fp16", "bf16"),
    "sm_90": ("fp8", "int8", "fp16", "bf16"),
    # Block-scaled products on tcgen05 want their scales in tensor memory, which Triton 3.6 cannot arrange for scales
    # made in registers; plain FP8 runs at the same rate there. INT8 products become the older, slower `mma.sync`.
    "sm_100": ("fp8", "fp16", "bf16"),
    "sm_103": ("fp8", "fp16", "bf16"),
    "sm_120": ("mxfp8", "fp8", "int8", "fp16", "bf16"),
    "sm_121": ("mxfp8", "fp8", "int8", "fp16", "bf16"),
}


PAIRING_ARCHITECTURES = ("sm_90",)
"""Where two frames are computed from four products: a tile needs two sums of 128 x 128 and twice the operands in shared
memory, which pays where both are plenty. Elsewhere it has not been measured."""


def choose_config(problem: ConvProblem, device: DeviceSpec) -> ConvConfig | Refusal:
    """The configuration for `problem` on `device`, or the reason why the kernels cannot run it there."""
    refusal = _refuse(problem, device)
    if refusal is not None:
        return refusal
    config = _HEURISTICS[device.sm](problem)
    return _fit_shared_memory(_fit_layout(config, problem), problem, device)


def choose_attention_format(precision: Format, dim: int, device: DeviceSpec) -> Format | Refusal:
    """The 8-bit format of queries and keys beside convolutions in `precision`, or why attention stays in 16 bits.

    INT8 where there is a choice: with one scale a token it has a fifth of E4M3's error. The values are E4M3.
    """
    formats = FORMATS_BY_ARCHITECTURE.get(device.sm, ())
    if BYTES_PER_ELEMENT[precision] > 1:
        return Refusal("nothing is quantised")
    if "fp8" not in formats:
        return Refusal(f"{device.sm} has no matrix units for the attention's FP8 values")
    if dim < 32:
        return Refusal(f"a head of {dim} dimensions is too small for 8 bits")
    return "int8" if "int8" in formats else "fp8"


def choose_attention_config(dim: int, device: DeviceSpec, format: Format = "fp16") -> AttentionConfig | Refusal:
    """How attention with one head of `dim` dimensions runs on `device`, or the reason why it does not.

    format: of queries and keys.
    """
    if device.sm not in _ATTENTION:
        return Refusal(f"{device.sm} is not an architecture that the kernels are compiled for")
    if dim & (dim - 1) or not 16 <= dim <= 512:
        return Refusal(f"a head of {dim} dimensions is not a power of two from 16 to 512")
    config = (_ATTENTION if BYTES_PER_ELEMENT[format] > 1 else _ATTENTION_8BIT)[device.sm]
    block_v = min(config.block_v, dim)
    # A thread then holds 64 sums or more.
    overlaps = config.overlaps and config.block_m * block_v >= 64 * 32 * config.warps
    return replace(config, block_v=block_v, overlaps=overlaps)


def shared_memory_bytes(problem: ConvProblem, config: ConvConfig, sm: str) -> int:
    """Estimate the shared memory of a program: the buffers of its software pipeline, and the barriers."""

    def pipeline(block_k: int, element_bytes: int) -> int:
        # What feeds the tensor cores from registers leaves its buffer one step earlier.
        pixels, channels = _BUFFERS.get(sm, (-1, -1))
        rows = (config.stages + pixels) * config.block_m + (config.stages + channels) * config.block_n
        return rows * block_k * element_bytes

    main = pipeline(config.block_k, BYTES_PER_ELEMENT[problem.format]) * (2 if problem.paired else 1)
    shortcut = 0
    if problem.shortcut_channels:
        shortcut = pipeline(shortcut_block_k(problem.shortcut_channels, config), 2)
    return max(main, shortcut) + 1024


_BUFFERS = {"sm_90": (0, 0), "sm_100": (0, 0), "sm_103": (0, 0)}
"""Buffers beyond the pipeline's depth for the pixels and for the weights; (-1, -1) elsewhere. As Triton 3.6 has it."""


def shortcut_block_k(channels: int, config: ConvConfig) -> int:
    """Input channels of one step of the fused shortcut, whose operands have 16 bits."""
    return min(_power_of_two_divisor(channels), max(16, config.block_k // 2), 64)


def _refuse(problem: ConvProblem, device: DeviceSpec) -> Refusal | None:
    formats = FORMATS_BY_ARCHITECTURE.get(device.sm)
    if formats is None:
        return Refusal(f"{device.sm} is not an architecture that the kernels are compiled for")
    if problem.format not in formats:
        return Refusal(f"{device.sm} has no matrix units for {problem.format}")
    least = 32 if BYTES_PER_ELEMENT[problem.format] == 1 else 16
    if problem.channels_in % least:
        return Refusal(f"{problem.channels_in} input channels are not a multiple of {least} ({problem.format})")
    if problem.channels_out % 16:
        return Refusal(f"{problem.channels_out} output channels are not a multiple of 16")
    if problem.shortcut_channels % 16:
        return Refusal(f"{problem.shortcut_channels} shortcut channels are not a multiple of 16")
    if problem.stride == 2 and problem.phases == 4:
        return Refusal("a convolution cannot both halve and double the size")
    return None


def _fit_layout(config: ConvConfig, problem: ConvProblem) -> ConvConfig:
    config = replace(
        config,
        block_n=min(config.block_n, _power_of_two_divisor(problem.channels_out)),
        block_k=min(config.block_k, _power_of_two_divisor(problem.channels_in)),
    )
    config = replace(config, epilogue_parts=min(config.epilogue_parts, max(1, config.block_n // 32)))
    if config.block_n <= 64 and config.warps > 4:
        config = replace(config, warps=4)
    # A strided tile is addressed as pairs of rows and pairs of columns, which a descriptor has for even sizes only.
    if problem.stride == 2 and (problem.height_px % 2 or problem.width_px % 2):
        config = replace(config, uses_tma=False)
    return config


def _fit_shared_memory(config: ConvConfig, problem: ConvProblem, device: DeviceSpec) -> ConvConfig | Refusal:
    while shared_memory_bytes(problem, config, device.sm) > device.shared_memory_bytes:
        if config.stages > 2:
            config = replace(config, stages=config.stages - 1)
        elif config.block_k > 32:
            config = replace(config, block_k=config.block_k // 2)
        else:
            return Refusal(f"no tile fits into {device.shared_memory_bytes} bytes of shared memory")
    return config


def _power_of_two_divisor(n: int) -> int:
    return n & -n


def _ampere_ada(problem: ConvProblem) -> ConvConfig:
    # Descriptors become plain, unpipelined loads before sm_90.
    # With K 128 a shortcut's second product spills registers; so does the shallow first convolution in two parts.
    block_k = 128 if problem.is_quantized and not problem.shortcut_channels else 64
    # Where a short INT8 product has a shortcut ptxas aims at 128 registers and spills in two parts (Triton 3.7, without
    # masks) or four (3.6, with them); in one part it takes the 170 to 181 that it needs.
    is_tight = problem.format == "int8" and problem.shortcut_channels > 0 and problem.kernel[0] == 1
    parts = 1 if is_tight else 4 if problem.channels_in <= 32 else 2
    return ConvConfig(8, 16, 128, block_k, warps=8, stages=4, uses_tma=False, epilogue_parts=parts)


def _hopper(problem: ConvProblem) -> ConvConfig:
    block_k = 128 if problem.is_quantized else 64
    width = problem.grid_px[1]
    fills = width / (-(-width // 128) * 128) > 0.9
    if problem.paired:
        # Two sums of a tile take half of an SM's registers, so one program has it to itself.
        tile = (1, 128) if fills else (8, 16)
        return ConvConfig(*tile, 128, block_k, warps=8, stages=3, uses_tma=fills, transposed=True)
    # Descriptors: only a tile of one row goes from shared memory into the matrix unit as it is. Others pass through
    # registers, which Triton 3.6 overwrites while `wgmma` still reads them: results differ from run to run. Where
    # such tiles stick out too far, and where the sum is so long that 256 channels pay, pointers are faster.
    deep = problem.channels_in >= 512 and problem.channels_out >= 512
    uses_tma = fills and not deep
    if not uses_tma:
        if problem.channels_out % 256 == 0 and problem.format != "int8":
            # The borders of an upsampler spill registers in four parts.
            parts = 8 if problem.phases == 4 else 4
            return ConvConfig(8, 16, 256, block_k, warps=8, stages=3, uses_tma=False, epilogue_parts=parts)
        # With 4 warps a shortcut's second product spills registers.
        warps = 8 if problem.shortcut_channels else 4
        return ConvConfig(8, 16, 128, block_k, warps=warps, stages=3, uses_tma=False, epilogue_parts=4)
    # The matrix unit wants at least 64 rows, and a range of each channel spills registers.
    transposed = problem.channels_out % 64 == 0 and not problem.has_range
    if transposed and problem.channels_out % 256 == 0:
        return ConvConfig(1, 128, 256, block_k, warps=8, stages=3, uses_tma=True, transposed=True)
    # Two programs of 128 channels share an SM, so that one multiplies while the other finishes its tile.
    parts = 1 if transposed or problem.phases == 4 or problem.shortcut_channels or not problem.has_residual else 2
    return ConvConfig(1, 128, 128, block_k, 4, 3, uses_tma=True, epilogue_parts=parts, transposed=transposed)


def _blackwell(problem: ConvProblem) -> ConvConfig:
    # With 4 warps a tile of 128 x 128 spills registers on sm_100 and sm_120; so does a shortcut's in two parts, and a
    # residual's on sm_100 with Triton 3.6.
    block_k = 128 if problem.is_quantized else 64
    parts = 4 if problem.shortcut_channels or problem.has_residual else 2
    return ConvConfig(8, 16, 128, block_k, warps=8, stages=4, uses_tma=True, epilogue_parts=parts)


_HEURISTICS: dict[str, Callable[[ConvProblem], ConvConfig]] = {
    "sm_80": _ampere_ada,
    "sm_86": _ampere_ada,
    "sm_87": _ampere_ada,
    "sm_89": _ampere_ada,
    "sm_90": _hopper,
    "sm_100": _blackwell,
    "sm_103": _blackwell,
    "sm_120": _blackwell,
    "sm_121": _blackwell,
}

# A Hopper SM multiplies 64 x 256 tiles best, and 128 queries are needed to stay below the L2's bandwidth; so a program
# takes half of the value's 512 dimensions. With 99 kB of shared memory, 64 queries alone take 64 kB.
_ATTENTION: dict[str, AttentionConfig] = {
    "sm_80": AttentionConfig(64, 32, 256, warps=8, stages=2, uses_tma=False),
    "sm_86": AttentionConfig(64, 16, 256, warps=8, stages=2, uses_tma=False),
    "sm_87": AttentionConfig(64, 32, 256, warps=8, stages=2, uses_tma=False),
    "sm_89": AttentionConfig(64, 16, 256, warps=8, stages=2, uses_tma=False),
    "sm_90": AttentionConfig(128, 32, 256, warps=8, stages=2, uses_tma=True),
    "sm_100": AttentionConfig(128, 32, 256, warps=8, stages=2, uses_tma=True),
    "sm_103": AttentionConfig(128, 32, 256, warps=8, stages=2, uses_tma=True),
    "sm_120": AttentionConfig(64, 16, 512, warps=8, stages=2, uses_tma=True),
    "sm_121": AttentionConfig(64, 16, 512, warps=8, stages=2, uses_tma=True),
}

# INT8 queries and keys, FP8 values. On sm_89 and sm_100 wider tiles spill registers.
_ATTENTION_8BIT: dict[str, AttentionConfig] = {
    "sm_89": AttentionConfig(64, 32, 128, warps=8, stages=2, uses_tma=False),
    "sm_90": AttentionConfig(128, 64, 256, warps=8, stages=3, uses_tma=True, overlaps=True),
    "sm_100": AttentionConfig(128, 64, 128, warps=8, stages=2, uses_tma=True),
    "sm_103": AttentionConfig(128, 64, 128, warps=8, stages=2, uses_tma=True),
    "sm_120": AttentionConfig(64, 32, 512, warps=8, stages=2, uses_tma=True),
    "sm_121": AttentionConfig(64, 32, 512, warps=8, stages=2, uses_tma=True),
}
