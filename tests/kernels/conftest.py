"""The kernels' tests run on the CPU in Triton's interpreter."""

import os

# Read by Triton when it is imported.
os.environ.setdefault("TRITON_INTERPRET", "1")

import pytest

pytest.importorskip("triton")

from .interpreter import correct_interpreter

correct_interpreter()
