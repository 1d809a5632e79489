"""Number format and memory where the user leaves them open."""

from dataclasses import replace

import pytest

from seedvr2_engine.errors import InvalidArgumentError
from seedvr2_engine.plan.choices import choose_precision, memory_budget_bytes
from seedvr2_engine.plan.gpus import find_gpu


@pytest.mark.parametrize(
    ("gpu", "format"),
    [("rtx3060", "int8"), ("a100", "int8"), ("rtx4090", "fp8"), ("h200", "fp8"), ("b200", "fp8"), ("rtx5090", "mxfp8")],
)
def test_auto_takes_the_fastest_format(gpu, format):
    decision = choose_precision("auto", find_gpu(gpu))
    assert decision.format == format
    assert "this GPU" in decision.reason
    assert choose_precision("auto", find_gpu(gpu), allows_8_bit=False).format == "fp16"


def test_what_is_asked_for_is_given_or_refused():
    assert choose_precision("int8", find_gpu("h200")).format == "int8"
    assert choose_precision("reference", find_gpu("h200")).format is None
    with pytest.raises(
        InvalidArgumentError, match=r"fp8 was asked for, but RTX 3090 \(sm_86\) offers int8, fp16, bf16"
    ):
        choose_precision("fp8", find_gpu("rtx3090"))
    with pytest.raises(
        InvalidArgumentError, match=r"offers fp8, fp16, bf16 \(Triton makes INT8 products the older.*\);"
    ):
        choose_precision("int8", find_gpu("b300"))
    assert "Triton multiplies FP8 in FP16" in choose_precision("auto", find_gpu("gb10")).reason
    with pytest.raises(InvalidArgumentError, match="expected one of auto"):
        choose_precision("fp4", find_gpu("rtx5090"))


def test_gpus_without_kernels_get_the_plain_model():
    turing = replace(find_gpu("rtx3090"), name="RTX 2080 Ti", sm="sm_75")
    decision = choose_precision("auto", turing)
    assert decision.format is None
    assert "sm_75" in decision.reason
    with pytest.raises(InvalidArgumentError, match="offers none"):
        choose_precision("fp16", turing)


def test_memory_budget():
    gpu = find_gpu("rtx5070ti")
    assert memory_budget_bytes(gpu, None) == int(0.9 * (16 << 30))
    assert memory_budget_bytes(gpu, 8) == 8_000_000_000
    # Boxes say 16 GB, and 17.18 decimal ones are there.
    assert memory_budget_bytes(gpu, 17.3) == 17_300_000_000
    for wrong in (0, -1, 17.5, 24):
        with pytest.raises(InvalidArgumentError, match="vram_gb"):
            memory_budget_bytes(gpu, wrong)


def test_without_8_bits_auto_is_fp16():
    decision = choose_precision("auto", find_gpu("h200"), allows_8_bit=False)
    assert (decision.format, decision.reason) == ("fp16", "8-bit formats are switched off")
