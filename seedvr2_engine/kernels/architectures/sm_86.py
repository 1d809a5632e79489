"""Ampere of workstations and gamers: the tensor cores are slower and the shared memory is smaller than an A100's."""

from dataclasses import replace

from ...device import MatrixRates
from ..configs import AttentionConfig, ProductConfig
from . import sm_80
from .record import GEFORCE

ARCHITECTURE = replace(
    sm_80.ARCHITECTURE,
    sm="sm_86",
    products="RTX 30 series, RTX A6000, A10, A40",
    shared_memory_bytes=101_376,
    flop_per_sm_clock=MatrixRates(bf16=512, fp8=0, int8=2048, mxfp8=0),
    efficiency=GEFORCE,
    # With 99 kB of shared memory, 64 queries alone take 64 kB.
    attention=AttentionConfig(64, 16, 256, warps=8, stages=2, uses_tma=False),
    matrices={"int8": ProductConfig(128, 128, 64, warps=8, stages=4, uses_tma=False)},
)
