"""Blackwell of workstations and gamers: an sm_89's matrix instructions and shared memory, and block-scaled products."""

from ...device import MatrixRates
from ..configs import AttentionConfig, ProductConfig
from . import sm_100
from .record import GEFORCE, MMA_SYNC, Architecture

ARCHITECTURE = Architecture(
    sm="sm_120",
    family="Blackwell",
    products="RTX 50 series, RTX PRO Blackwell",
    evidence="compiled ahead of time, never run",
    shared_memory_bytes=101_376,
    flop_per_sm_clock=MatrixRates(bf16=512, fp8=1024, int8=2048, mxfp8=2048, nvfp4=4096),
    efficiency=GEFORCE,
    has_descriptors=True,
    formats=("mxfp8", "fp8", "int8", "fp16", "bf16"),
    conv_config=sm_100.conv_config,
    # With 99 kB of shared memory, 64 queries alone take 64 kB.
    attention=AttentionConfig(64, 16, 512, warps=8, stages=2, uses_tma=True),
    attention_8bit=AttentionConfig(64, 32, 512, warps=8, stages=2, uses_tma=True),
    # On GeForce parts INT8 and MXFP8 have twice the rate of FP8 with FP32 sums, and NVFP4 four times that.
    matrices={
        format: ProductConfig(128, 128, 128, warps=8, stages=3, uses_tma=True)
        for format in ("nvfp4", "int8", "mxfp8", "fp8")
    },
    instructions=MMA_SYNC | {"mxfp8": "kind::mxf8f6f4.block_scale", "nvfp4": "kind::mxf4nvf4.block_scale"},
)
