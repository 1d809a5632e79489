"""Blackwell Ultra: an sm_100 with faster FP4, which nothing here uses, and hardly any FP64."""

from dataclasses import replace

from . import sm_100

ARCHITECTURE = replace(sm_100.ARCHITECTURE, sm="sm_103", products="B300, GB300")
