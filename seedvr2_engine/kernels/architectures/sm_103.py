"""Blackwell Ultra: an sm_100 with faster FP4, which nothing here uses, and hardly any FP64."""

from dataclasses import replace

from . import sm_100

ARCHITECTURE = replace(
    sm_100.ARCHITECTURE,
    sm="sm_103",
    products="B300",
    # FP8 and 16 bits as sm_100 (HGX B300: 4500 TFLOP/s of dense FP8 each). Of INT8 contradicting rates are published.
    flop_per_sm_clock=replace(sm_100.ARCHITECTURE.flop_per_sm_clock, int8=0),
)
