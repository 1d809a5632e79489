"""GB10: an sm_120 beside an Arm processor, with which it shares its memory."""

from dataclasses import replace

from . import sm_120

ARCHITECTURE = replace(sm_120.ARCHITECTURE, sm="sm_121", products="GB10 (DGX Spark)")
