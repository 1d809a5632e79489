"""Blackwell Ultra: an sm_100 with faster FP4 and hardly any FP64."""

from dataclasses import replace

from . import sm_100

ARCHITECTURE = replace(
    sm_100.ARCHITECTURE,
    sm="sm_103",
    products="B300",
    # HGX B300: 13.5 PFLOP/s of dense FP4 each, 4.5 of FP8, and 16 bits as sm_100. INT8 is published with several rates.
    flop_per_sm_clock=replace(sm_100.ARCHITECTURE.flop_per_sm_clock, int8=0, nvfp4=49152),
)
