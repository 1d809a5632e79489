"""Ahead-of-time compilation for GPUs that are not here: the right instructions, no spills, shared memory that fits.

Each architecture compiles in a process of its own, without the interpreter.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.aot.compiler import overwrites_operands
from seedvr2_engine.kernels.architectures import ARCHITECTURES

ROOT = Path(__file__).parents[2]
CASES = [(sm, format) for sm in ARCHITECTURES for format in ARCHITECTURES[sm].formats]


def reports(*arguments: str) -> list[dict[str, object]]:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = str(ROOT)
    command = [sys.executable, "-m", "benchmarks.compile_kernels", "--json", "-", *arguments]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-2000:]
    return json.loads(result.stdout)


def check(found: list[dict[str, object]], sm: str, format: str) -> None:
    assert found
    architecture = ARCHITECTURES[sm]
    instruction = architecture.instructions[format]
    limit = architecture.shared_memory_bytes
    for report in found:
        layer = f"{sm} {format} {report['layer']}"
        allowed = architecture.known_spills.get(f"{report['format']} {report['layer']}", 0)
        assert report["spilled_bytes"] <= allowed, f"{layer} spills registers: {report}"
        assert report["registers"] <= architecture.registers_per_thread, f"{layer}: {report}"
        assert report["registers"] * report["threads"] <= architecture.registers_per_block, f"{layer}: {report}"
        assert report["shared_memory_bytes"] <= report["planned_shared_memory_bytes"] <= limit, f"{layer}: {report}"
        assert report["matrix_instructions"], f"{layer} has no matrix instruction"
        # Triton 3.6 reuses those registers while the product still reads them.
        assert not report["reads_registers"], f"{layer} multiplies from registers"
        if report["format"] == format and report["channels_out"] >= 256:
            named = [found for found in report["matrix_instructions"] if instruction in found]
            assert named, f"{layer}: {report}"
            assert sm != "sm_90" or all(found.startswith("wgmma") for found in named), f"{layer}: {report}"


def test_the_first_target_gets_block_scaled_products() -> None:
    check(reports("sm_120", "--format", "mxfp8", "--layer", "encoder.down_blocks.1.resnets.0.conv1"), "sm_120", "mxfp8")


@pytest.mark.parametrize("kernel", ["3x3x3", "4x3x3 in pairs"])
def test_hopper_multiplies_from_shared_memory(kernel: str) -> None:
    found = reports("sm_90", "--format", "fp8", "--layer", f"decoder.up_blocks.2.resnets.1.conv2 {kernel}")
    check(found, "sm_90", "fp8")
    assert {report["masks"] for report in found} == {True, False}


@pytest.mark.parametrize("sm", ["sm_90", "sm_100", "sm_120"])
def test_the_passes_of_the_transformer_compile(sm: str) -> None:
    found = reports(sm, "--tokens")
    architecture = ARCHITECTURES[sm]
    names = {"step", "gate", "join", "collect"}
    for format, config in architecture.matrices.items():
        rounded = ("step", "rows, none", "rows, gated silu", "rows, gelu")
        names |= {f"{name}, {format}" for name in (*rounded, *(("product", "product, bias") if config else ()))}
    names |= {f"product, {end}, {format}" for format, end in architecture.ends}
    if "fp8" in architecture.formats:
        pairs = {"int8", "fp8"} & set(architecture.formats)
        names |= {f"{name} in 8 bits, {format}" for format in pairs for name in ("join", "windows")}
    assert {report["layer"] for report in found} == {f"{family} {name}" for family in ("3b", "7b") for name in names}
    assert all(report["spilled_bytes"] == 0 for report in found)
    for report in found:
        assert not report["serialized"], report
        if " product" in report["layer"] or " windows" in report["layer"]:
            instruction = architecture.instructions[report["layer"].rpartition(", ")[2]]
            assert any(instruction in name for name in report["matrix_instructions"]), report
            assert report["shared_memory_bytes"] <= architecture.shared_memory_bytes


def test_the_colour_kernels_compile() -> None:
    found = reports(*ARCHITECTURES, "--color")
    assert len(found) == 5 * len(ARCHITECTURES)
    assert all(report["spilled_bytes"] == 0 for report in found), found


@pytest.mark.exhaustive
@pytest.mark.parametrize(("sm", "format"), CASES)
def test_every_convolution_compiles(sm: str, format: str) -> None:
    check(reports(sm, "--format", format), sm, format)


@pytest.mark.exhaustive
@pytest.mark.parametrize("sm", ARCHITECTURES)
def test_attention_compiles(sm: str) -> None:
    for report in reports(sm, "--attention"):
        assert report["spilled_bytes"] == 0
        assert report["shared_memory_bytes"] <= ARCHITECTURES[sm].shared_memory_bytes
        assert report["matrix_instructions"]


def test_attention_in_8_bits_on_hopper() -> None:
    by_format = {report["format"]: report for report in reports("sm_90", "--attention")}
    assert set(by_format) == {"fp16", "bf16", "int8"}
    eight_bit = by_format["int8"]
    kinds = ("m64n64k32.s32.s8.s8", "m64n256k32.f32.e4m3.e4m3")
    assert all(any(kind in found for found in eight_bit["matrix_instructions"]) for kind in kinds), eight_bit
    assert eight_bit["spilled_bytes"] == 0
    assert eight_bit["shared_memory_bytes"] <= ARCHITECTURES["sm_90"].shared_memory_bytes
    # Registers that hold probabilities are read while the softmax of the next ones goes on.
    assert eight_bit["reads_registers"]
    assert not eight_bit["overwrites"], "probabilities are written over while a product reads them"
    assert not eight_bit["serialized"], "ptxas waits for every single wgmma"


@pytest.mark.parametrize(
    ("written", "where", "overwrites"),
    [("%r9", "after", False), ("%r1", "before", False), ("%r1", "after", True), ("%r1", "next turn", True)],
)
def test_registers_written_while_a_product_reads_them_are_found(written: str, where: str, overwrites: bool) -> None:
    write = {name: f"add.s32 {written}, %r8, 1;" if name == where else "" for name in ("before", "after", "next turn")}
    loop = f"""
    $L__BB0_2:                              // in a loop
        {write["next turn"]}
        wgmma.wait_group.sync.aligned 0;
        {write["before"]}
        wgmma.mma_async.sync.aligned.m64n8k32.f32.e4m3.e4m3 {{%r4,%r5,%r6,%r7}}, {{%r0,%r1,%r2,%r3}}, %rd1, %p1, 1, 1;
        {{ .reg .b16 low; {write["after"]} }}
        st.shared.b32 [%r1], %r9;
        @%p2 bra $L__BB0_2;
        ret;
    """
    assert overwrites_operands(loop) == overwrites
