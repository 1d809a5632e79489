"""Ampere of the data centre."""

from ...device import MatrixRates
from ..configs import AttentionConfig, ConvConfig, ConvProblem, ProductConfig
from .record import DATA_CENTRE, Architecture


def conv_config(problem: ConvProblem) -> ConvConfig:
    """The same from sm_80 to sm_89."""
    # Descriptors become plain, unpipelined loads before sm_90.
    # With K 128 a shortcut's second product spills registers; so does the shallow first convolution in two parts.
    block_k = 128 if problem.is_quantized and not problem.shortcut_channels else 64
    # Where a short INT8 product has a shortcut ptxas aims at 128 registers and spills in two parts (Triton 3.7, without
    # masks) or four (3.6, with them); in one part it takes the 170 to 181 that it needs.
    is_tight = problem.format == "int8" and problem.shortcut_channels > 0 and problem.kernel[0] == 1
    parts = 1 if is_tight else 4 if problem.channels_in <= 32 else 2
    return ConvConfig(8, 16, 128, block_k, warps=8, stages=4, uses_tma=False, epilogue_parts=parts)


ARCHITECTURE = Architecture(
    sm="sm_80",
    family="Ampere",
    products="A100",
    evidence="compiled ahead of time, never run",
    shared_memory_bytes=166_912,
    flop_per_sm_clock=MatrixRates(bf16=2048, fp8=0, int8=4096, mxfp8=0),
    efficiency=DATA_CENTRE,
    has_descriptors=False,
    formats=("int8", "fp16", "bf16"),
    conv_config=conv_config,
    attention=AttentionConfig(64, 32, 256, warps=8, stages=2, uses_tma=False),
    matrices={"int8": ProductConfig(128, 128, 128, warps=8, stages=3, uses_tma=False)},
)
