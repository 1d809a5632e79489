"""A few hundred mutated checkpoint files; run `fuzz_checkpoints` itself for many thousands."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the memory limit is read from /proc")
def test_mutated_files_are_refused_or_right(tmp_path: Path) -> None:
    # A process of its own, because the memory limit stays with it.
    command = [sys.executable, "-m", "tests.checkpoint.fuzz.fuzz_checkpoints", "400", "--seed", "1"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    assert "400 files" in result.stdout
    assert "'refused'" in result.stdout
    assert "'loaded'" in result.stdout
