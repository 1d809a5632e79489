"""Kernels for a GPU that is not here: which they are, and that they are found instead of compiled."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from seedvr2_engine.doctor.packing import PackRequest
from seedvr2_engine.errors import InvalidArgumentError, KernelsError, OutputError
from seedvr2_engine.kernels.packed.elsewhere import capability_of, compiling_for
from seedvr2_engine.kernels.packed.manifest import Manifest
from seedvr2_engine.kernels.packed.writing import write_folder

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def seen(tmp_path_factory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("kernels")
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["SEEDVR2_KERNELS"] = str(folder)
    command = [sys.executable, "-m", "tests.doctor.without_gpu", str(folder)]
    answer = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert answer.returncode == 0, answer.stderr
    found: dict[str, Any] = json.loads(answer.stdout.splitlines()[-1])
    return {**found, "manifest": Manifest.read(folder / "sm_90")}


def test_the_engine_says_itself_what_it_launches(seen):
    convolves = {"conv3d_kernel", "normalize_kernel", "combine_kernel", "finish_kernel", "unfold_kernel", "fold_kernel"}
    assert convolves < set(seen["vae"])
    assert {"step_tokens_kernel", "join_parts_kernel", "product_ends_kernel", "quantize_rows_kernel"} < set(seen["dit"])
    assert seen["color"] == 5


def test_no_size_needs_a_kernel_of_its_own(seen):
    assert seen["beyond"] == []


def test_the_same_launch_is_written_once(seen):
    assert seen["written"] == len(seen["manifest"].kernels) == 1
    assert seen["manifest"].kernels[0].name == "quantize_rows_kernel"


def test_what_is_packed_is_not_compiled(seen):
    assert seen["fits"] == {"found": 1}


def test_another_generation_compiles(seen):
    assert seen["other generation"] == {"compiled": 1}


def test_unknown_parts_and_generations_are_refused():
    with pytest.raises(InvalidArgumentError, match="expected one of color, vae, 3b, 7b, nano, got 5b"):
        PackRequest("sm_90", ("5b",))
    with pytest.raises(KernelsError, match="got sm_70"):
        capability_of("sm_70")


def test_the_interpreter_compiles_nothing():
    with pytest.raises(KernelsError, match="TRITON_INTERPRET"), compiling_for("sm_90"):
        pass


def test_a_folder_is_not_replaced(tmp_path):
    with pytest.raises(OutputError, match="exists already"):
        write_folder(tmp_path, "sm_90", [], [])
    with pytest.raises(OutputError, match="create"):
        write_folder(tmp_path / "no" / "folder", "sm_90", [], [])
    assert list(tmp_path.iterdir()) == []
