"""GB10: an sm_120 beside an Arm processor, with which it shares its memory.

Its 16-bit and FP8 rates are those of the professional sm_120 parts: others have measured 92 TFLOP/s in FP16 with FP32
accumulation and 188 in FP8 on its 48 SMs at 2.4 GHz, where the GeForce rates would end at 59 and 118.
"""

from dataclasses import replace

from ...device import MatrixRates
from . import sm_120

ARCHITECTURE = replace(
    sm_120.ARCHITECTURE,
    sm="sm_121",
    products="GB10 (DGX Spark)",
    flop_per_sm_clock=MatrixRates(bf16=1024, fp8=2048, int8=2048, mxfp8=2048, nvfp4=4096),
    formats=("int8", "fp16", "bf16"),
    # Compiled with Triton 3.7.1: every MXFP8 convolution multiplies in BF16 there, and wants 131 kB of shared memory.
    # Those in FP8 multiply in FP16, at half the rate of INT8, which has its own instruction.
    left_out={
        "mxfp8": "Triton makes block-scaled products for sm_120 only",
        "fp8": "Triton multiplies FP8 in FP16 there",
    },
    attention_8bit=None,
    matrices={"int8": sm_120.ARCHITECTURE.matrices["int8"]},
)
