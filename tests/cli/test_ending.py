"""How a process that has used a GPU ends: at once, with the code it has, and with everything said and recorded."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import sys
from types import SimpleNamespace
from seedvr2_engine.cli.ending import ENDING
from seedvr2_engine.spans import span

ENDING.code = {code}
sys.modules["torch"] = SimpleNamespace(cuda=SimpleNamespace(is_initialized=lambda: {used}))

class Late:
    def __del__(self):
        print("taken apart")

late = Late()
with span("work"):
    print("said")
sys.exit({code})
"""


@pytest.mark.parametrize("code", [0, 3])
@pytest.mark.parametrize("used", [True, False])
def test_nothing_is_taken_apart_after_a_gpu_was_used(code, used, tmp_path):
    environment = {**os.environ, "SEEDVR2_SPANS": str(tmp_path / "spans.json")}
    command = [sys.executable, "-c", PROGRAM.format(code=code, used=used)]
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert result.returncode == code
    assert result.stderr == ""
    assert result.stdout.splitlines() == (["said"] if used else ["said", "taken apart"])
    assert "work" in (tmp_path / "spans.json").read_text()
