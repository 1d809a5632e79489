"""Ada: an sm_86 that multiplies FP8."""

from dataclasses import replace

from ...device import MatrixRates
from ..configs import AttentionConfig
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
)
