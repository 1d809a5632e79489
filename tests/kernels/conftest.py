"""The kernels' tests run on the CPU, in the interpreter that `tests/conftest.py` asks for where there is no GPU."""

import os

import pytest

pytest.importorskip("triton")

from .interpreter import correct_interpreter

INTERPRETS = os.environ.get("TRITON_INTERPRET") == "1"
if INTERPRETS:
    correct_interpreter()


@pytest.fixture(autouse=True)
def _interpreter() -> None:
    if not INTERPRETS:
        pytest.skip("runs in Triton's interpreter: TRITON_INTERPRET=1")
