"""Ada: an sm_86 that multiplies FP8."""

from dataclasses import replace

from ...device import MatrixRates
from ..configs import AttentionConfig, ProductConfig
from . import sm_86

ARCHITECTURE = replace(
    sm_86.ARCHITECTURE,
    sm="sm_89",
    family="Ada",
    products="RTX 40 series, RTX 6000 Ada, L4, L40S",
    flop_per_sm_clock=MatrixRates(bf16=512, fp8=1024, int8=2048, mxfp8=0),
    formats=("fp8", "int8", "fp16", "bf16"),
    # Wider tiles spill registers.
    attention_8bit=AttentionConfig(64, 32, 128, warps=8, stages=2, uses_tma=False),
    # INT8 first: on GeForce parts it has twice the rate of FP8 with FP32 sums.
    matrices={format: ProductConfig(128, 128, 64, warps=8, stages=4, uses_tma=False) for format in ("int8", "fp8")},
)
