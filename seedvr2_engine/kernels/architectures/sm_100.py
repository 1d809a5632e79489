"""Blackwell of the data centre: `tcgen05`, which multiplies from shared into tensor memory."""

from ...device import MatrixRates
from ..configs import AttentionConfig, ConvConfig, ConvProblem, ProductConfig
from .record import DATA_CENTRE, Architecture


def conv_config(problem: ConvProblem) -> ConvConfig:
    """The same for both kinds of Blackwell."""
    # With 4 warps a tile of 128 x 128 spills registers on sm_100 and sm_120; so does a shortcut's in two parts, and a
    # residual's on sm_100 with Triton 3.6.
    block_k = 128 if problem.is_quantized else 64
    parts = 4 if problem.shortcut_channels or problem.has_residual else 2
    return ConvConfig(8, 16, 128, block_k, warps=8, stages=4, uses_tma=True, epilogue_parts=parts)


ARCHITECTURE = Architecture(
    sm="sm_100",
    family="Blackwell",
    products="B200",
    evidence="compiled ahead of time, never run",
    shared_memory_bytes=232_448,
    flop_per_sm_clock=MatrixRates(bf16=8192, fp8=16384, int8=16384, mxfp8=16384, nvfp4=32768),
    efficiency=DATA_CENTRE,
    has_descriptors=True,
    formats=("fp8", "fp16", "bf16"),
    left_out={
        # `tcgen05` wants the scales in tensor memory, where Triton 3.6 cannot put scales that are made in registers.
        "mxfp8": "Triton cannot place the scales of block-scaled products, and plain FP8 is as fast",
        "int8": "Triton makes INT8 products the older, slower `mma.sync`",
    },
    conv_config=conv_config,
    attention=AttentionConfig(128, 32, 256, warps=8, stages=2, uses_tma=True),
    # Wider tiles spill registers.
    attention_8bit=AttentionConfig(128, 64, 128, warps=8, stages=2, uses_tma=True),
    # MXFP8 has the rate of FP8, and is for weights that do not bear a scale a row.
    matrices={
        "nvfp4": ProductConfig(128, 128, 256, warps=8, stages=3, uses_tma=True),
        "fp8": None,
        "mxfp8": ProductConfig(128, 128, 128, warps=8, stages=3, uses_tma=True),
    },
    instructions={
        "nvfp4": "kind::mxf4nvf4.block_scale.scale_vec::4X",
        "mxfp8": "kind::mxf8f6f4.block_scale.scale_vec::1X",
        "fp8": "tcgen05.mma.cta_group::1.kind::f8f6f4",
        "fp16": "tcgen05.mma.cta_group::1.kind::f16",
        "bf16": "tcgen05.mma.cta_group::1.kind::f16",
    },
    pipeline_buffers=(0, 0),
)
