"""The records of the GPU generations: complete, consistent, and the one thing to write for a new one."""

import sys
from pathlib import Path

import pytest

from seedvr2_engine.device import DeviceSpec, MatrixRates
from seedvr2_engine.engine.report import EngineReport
from seedvr2_engine.kernels import architectures
from seedvr2_engine.kernels.architectures import ARCHITECTURES, discover, formats_of
from seedvr2_engine.kernels.configs import FORMATS, AttentionConfig, ConvConfig, WindowConfig
from seedvr2_engine.kernels.dispatch import choose_attention_config, choose_window_config
from seedvr2_engine.kernels.layout import element_bytes
from seedvr2_engine.models.vae.config import VAEConfig
from seedvr2_engine.plan import VAEShape, compile_vae_plan
from seedvr2_engine.plan.choices import choose_precision
from seedvr2_engine.plan.gpus import GPU, GPUS
from seedvr2_engine.plan.roofline import roofline
from seedvr2_engine.quant import QuantRecipe

NEW = '''
"""A generation that does not exist: a Hopper with block-scaled products and tiles of 64 channels."""

from dataclasses import replace

from seedvr2_engine.device import MatrixRates
from seedvr2_engine.kernels.architectures import sm_90
from seedvr2_engine.kernels.configs import ConvConfig, WindowConfig

ARCHITECTURE = replace(
    sm_90.ARCHITECTURE,
    sm="sm_199",
    family="Lovelock",
    products="RTX 90 series",
    formats=("mxfp8", "fp16"),
    flop_per_sm_clock=MatrixRates(bf16=8192, fp8=0, int8=0, mxfp8=16384),
    conv_config=lambda problem: ConvConfig(1, 128, 64, 128, 4, 3, uses_tma=True),
    attention_8bit=None,
    windows=WindowConfig(32, 32, warps=4, stages=2, uses_tma=False),
    pairs_frames=False,
)
'''


@pytest.fixture
def new_generation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Name of a generation that one file has added."""
    name = f"{architectures.__name__}.sm_199"
    (tmp_path / "sm_199.py").write_text(NEW)
    monkeypatch.setattr(architectures, "__path__", [*architectures.__path__, str(tmp_path)])
    monkeypatch.delitem(sys.modules, name, raising=False)
    found = discover()
    monkeypatch.delattr(architectures, "sm_199")
    monkeypatch.delitem(sys.modules, name)
    assert list(found) == [*ARCHITECTURES, "sm_199"]
    monkeypatch.setitem(ARCHITECTURES, "sm_199", found["sm_199"])
    return "sm_199"


def test_a_new_file_is_planned_dispatched_timed_and_reported(new_generation: str) -> None:
    gpu = GPU("RTX 9090", new_generation, 200, 2500, 48, 512, 32).spec()
    assert gpu.tflops.mxfp8 == 200 * 2500 * 16384 / 1e6
    decision = choose_precision("auto", gpu)
    assert decision.format == "mxfp8"
    plan = compile_vae_plan(VAEConfig(), QuantRecipe("mxfp8"), gpu, VAEShape("decode", 720, 1280, 21), 40 << 30)
    assert plan.refusals == ()
    assert not plan.in_pairs
    configs = [operation.config for operation in plan.convolutions() if operation.format == "mxfp8"]
    assert configs
    assert all(isinstance(config, ConvConfig) and config.block_n == 64 for config in configs)
    times = roofline(plan, gpu)
    assert times is not None
    assert times.step_ms > 0
    attention = [operation for operation in plan.steady.operations if operation.kernel == "attention"]
    assert [(operation.format, operation.reason) for operation in attention] == [
        ("fp16", "sm_199 has no matrix units for the attention's FP8 values")
    ]
    assert isinstance(choose_attention_config(512, gpu), AttentionConfig)
    assert choose_window_config(128, new_generation) == WindowConfig(32, 32, 4, 2, False)
    report = EngineReport(gpu.name, gpu.sm, "mxfp8", decision.reason, None, ())
    assert "[LOVELOCK_ENGINE] MXFP8 on RTX 9090 (sm_199)" in report.text()


def test_what_has_no_file_is_unknown_everywhere() -> None:
    assert formats_of("sm_199") == ()
    gpu = DeviceSpec("RTX 9090", "sm_199", 200, 232_448, 48 << 30, 2e12, MatrixRates(1, 1, 1, 1))
    assert choose_precision("auto", gpu).format is None
    assert "[VAE_ENGINE]" in EngineReport(gpu.name, gpu.sm, "reference", "", None, ()).text()


def test_a_file_under_another_name_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sm_198.py").write_text(NEW)
    monkeypatch.setattr(architectures, "__path__", [str(tmp_path)])
    with pytest.raises(ValueError, match=r"sm_198.py describes sm_199"):
        discover()
    monkeypatch.delitem(sys.modules, f"{architectures.__name__}.sm_198")
    monkeypatch.delattr(architectures, "sm_198")


@pytest.mark.parametrize("sm", ARCHITECTURES)
def test_a_record_does_not_contradict_itself(sm: str) -> None:
    architecture = ARCHITECTURES[sm]
    rates = architecture.flop_per_sm_clock
    for format in architecture.formats:
        rate = rates.bf16 if element_bytes(format) == 2 else getattr(rates, format)
        assert rate > 0, f"{format} is multiplied at no rate"
        assert format in architecture.instructions
    for format in FORMATS:
        rate = rates.bf16 if element_bytes(format) == 2 else getattr(rates, format)
        if rate and format not in architecture.formats:
            assert architecture.left_out.get(format), f"{format} is multiplied and not offered, and nothing says why"
    assert not set(architecture.formats) & set(architecture.left_out)
    assert ("fp8" in architecture.formats) == (architecture.attention_8bit is not None)
    configs = [architecture.attention, architecture.attention_8bit, architecture.windows]
    assert not any(config.uses_tma and not architecture.has_descriptors for config in configs if config is not None)
    assert architecture.family
    assert architecture.products
    assert architecture.evidence


def test_every_gpu_of_the_table_has_a_generation() -> None:
    assert {gpu.sm for gpu in GPUS} <= set(ARCHITECTURES)
