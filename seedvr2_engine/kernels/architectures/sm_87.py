"""Ampere of Jetson modules: an A100's tensor cores and shared memory, a laptop's memory bandwidth.

Source: NVIDIA's Jetson AGX Orin technical brief: 85 TOPS of dense INT8 from 16 SMs at 1.3 GHz, an A100's rate.
"""

from dataclasses import replace

from . import sm_80
from .record import GEFORCE

ARCHITECTURE = replace(sm_80.ARCHITECTURE, sm="sm_87", products="Jetson Orin", efficiency=GEFORCE)
