"""Which configuration a convolution or an attention runs with on which GPU, or why none: readers of `architectures`.

Imports no Triton, so a plan for any GPU can be made on a machine that has none.
"""

from dataclasses import replace
from functools import lru_cache

from ..device import DeviceSpec
from .architectures import ARCHITECTURES, formats_of
from .configs import AttentionConfig, ConvConfig, ConvProblem, Format, ProductConfig, ProductEnd, Refusal, WindowConfig
from .layout import element_bytes


@lru_cache(maxsize=4096)
def choose_config(problem: ConvProblem, device: DeviceSpec) -> ConvConfig | Refusal:
    """The configuration for `problem` on `device`, or the reason why the kernels cannot run it there."""
    refusal = _refuse(problem, device)
    if refusal is not None:
        return refusal
    config = ARCHITECTURES[device.sm].conv_config(problem)
    return _fit_shared_memory(_fit_layout(config, problem), problem, device)


def choose_attention_format(precision: Format, dim: int, device: DeviceSpec) -> Format | Refusal:
    """The 8-bit format of queries and keys beside convolutions in `precision`, or why attention stays in 16 bits.

    INT8 where there is a choice: with one scale a token it has a fifth of E4M3's error. The values are E4M3.
    """
    formats = formats_of(device.sm)
    if element_bytes(precision) > 1:
        return Refusal("nothing is quantised")
    if "fp8" not in formats:
        return _without_fp8(device)
    if dim < 32:
        return Refusal(f"a head of {dim} dimensions is too small for 8 bits")
    return "int8" if "int8" in formats else "fp8"


def choose_attention_config(dim: int, device: DeviceSpec, format: Format = "fp16") -> AttentionConfig | Refusal:
    """How attention with one head of `dim` dimensions runs on `device`, or the reason why it does not.

    format: of queries and keys.
    """
    architecture = ARCHITECTURES.get(device.sm)
    if architecture is None:
        return _unknown(device)
    if dim & (dim - 1) or not 16 <= dim <= 512:
        return Refusal(f"a head of {dim} dimensions is not a power of two from 16 to 512")
    config = architecture.attention if element_bytes(format) > 1 else architecture.attention_8bit
    if config is None:
        return _without_fp8(device)
    block_v = min(config.block_v, dim)
    # A thread then holds 64 sums or more.
    overlaps = config.overlaps and config.block_m * block_v >= 64 * 32 * config.warps
    return replace(config, block_v=block_v, overlaps=overlaps)


def choose_window_config(dim: int, sm: str) -> WindowConfig | Refusal:
    """How attention over windows with heads of `dim` dimensions runs on an architecture, or why PyTorch's is used."""
    architecture = ARCHITECTURES.get(sm)
    if architecture is None or architecture.windows is None:
        return Refusal(f"the kernel has not been tried on {sm}")
    if dim not in (64, 128):
        return Refusal(f"a head has {dim} dimensions, not 64 or 128")
    return architecture.windows


def choose_product_config(format: str, sm: str) -> ProductConfig | Refusal | None:
    """How a matrix product of the transformer in 8 or 4 bits runs on an architecture; None: by PyTorch's own kernel."""
    architecture = ARCHITECTURES.get(sm)
    if architecture is None or format not in architecture.matrices:
        return Refusal(f"the transformer's products are not computed in {format} on {sm}")
    return next(config for name, config in architecture.matrices.items() if name == format)


def choose_end_config(format: str, end: ProductEnd, sm: str) -> ProductConfig | None:
    """How a product in a format takes along what follows it, or None where that is a pass of its own."""
    architecture = ARCHITECTURES.get(sm)
    found = {} if architecture is None else architecture.ends
    return next((config for (name, kind), config in found.items() if (name, kind) == (format, end)), None)


def shared_memory_bytes(problem: ConvProblem, config: ConvConfig, sm: str) -> int:
    """Estimate the shared memory of a program: the buffers of its software pipeline, and the barriers."""

    def pipeline(block_k: int, element_bytes: int) -> int:
        pixels, channels = ARCHITECTURES[sm].pipeline_buffers
        rows = (config.stages + pixels) * config.block_m + (config.stages + channels) * config.block_n
        return rows * block_k * element_bytes

    main = pipeline(config.block_k, element_bytes(problem.format)) * (2 if problem.paired else 1)
    shortcut = 0
    if problem.shortcut_channels:
        shortcut = pipeline(shortcut_block_k(problem.shortcut_channels, config), 2)
    return max(main, shortcut) + 1024


def shortcut_block_k(channels: int, config: ConvConfig) -> int:
    """Input channels of one step of the fused shortcut, whose operands have 16 bits."""
    return min(_power_of_two_divisor(channels), max(16, config.block_k // 2), 64)


def _refuse(problem: ConvProblem, device: DeviceSpec) -> Refusal | None:
    architecture = ARCHITECTURES.get(device.sm)
    if architecture is None:
        return _unknown(device)
    if problem.format not in architecture.formats:
        reason = architecture.left_out.get(problem.format)
        if reason is not None:
            return Refusal(f"{problem.format} is not used on {device.sm}: {reason}")
        return Refusal(f"{device.sm} has no matrix units for {problem.format}")
    least = 32 if element_bytes(problem.format) == 1 else 16
    if problem.channels_in % least:
        return Refusal(f"{problem.channels_in} input channels are not a multiple of {least} ({problem.format})")
    if problem.channels_out % 16:
        return Refusal(f"{problem.channels_out} output channels are not a multiple of 16")
    if problem.shortcut_channels % 16:
        return Refusal(f"{problem.shortcut_channels} shortcut channels are not a multiple of 16")
    if problem.stride == 2 and problem.phases == 4:
        return Refusal("a convolution cannot both halve and double the size")
    return None


def _unknown(device: DeviceSpec) -> Refusal:
    return Refusal(f"{device.sm} is not an architecture that the kernels are compiled for")


def _without_fp8(device: DeviceSpec) -> Refusal:
    return Refusal(f"{device.sm} has no matrix units for the attention's FP8 values")


def _fit_layout(config: ConvConfig, problem: ConvProblem) -> ConvConfig:
    block_n = min(config.block_n, _power_of_two_divisor(problem.channels_out))
    config = replace(
        config,
        block_n=block_n,
        block_k=min(config.block_k, _power_of_two_divisor(problem.channels_in)),
        epilogue_parts=min(config.epilogue_parts, max(1, block_n // 32)),
    )
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
