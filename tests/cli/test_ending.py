"""How a process that has used a GPU ends: at once, with the code it has, and with everything said."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import atexit, sys
from types import SimpleNamespace
from seedvr2_engine import cli
from seedvr2_engine.cli import _Ending

ending = _Ending()
ending.code = {code}
atexit.register(ending.leave)
atexit.register(lambda: print("what others do at the end"))
sys.modules["torch"] = SimpleNamespace(cuda=SimpleNamespace(is_initialized=lambda: {used}))

class Late:
    def __del__(self):
        print("taken apart")

late = Late()
print("said")
sys.exit({code})
"""


@pytest.mark.parametrize("code", [0, 3])
@pytest.mark.parametrize("used", [True, False])
def test_nothing_is_taken_apart_after_a_gpu_was_used(code, used):
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(code=code, used=used)], capture_output=True, text=True, env={**os.environ}
    )
    assert result.returncode == code
    assert result.stderr == ""
    expected = ["said", "what others do at the end"]
    assert result.stdout.splitlines() == (expected if used else [*expected, "taken apart"])
