"""Heuristics: every convolution of the VAE has a configuration on every architecture, or a clear refusal."""

import subprocess
import sys
from dataclasses import replace

import pytest

from seedvr2_engine.device import DeviceSpec, MatrixRates
from seedvr2_engine.kernels.architectures import ARCHITECTURES, formats_of
from seedvr2_engine.kernels.dispatch import (
    AttentionConfig,
    ConvConfig,
    ConvProblem,
    Format,
    Refusal,
    choose_attention_config,
    choose_config,
    shared_memory_bytes,
)
from seedvr2_engine.kernels.problems import decoder_problems, encoder_problems

PUBLIC, NANO = (128, 256, 512, 512), (32, 32, 64, 64)
PROBLEM = ConvProblem(128, 128, (3, 3, 3), 1, 64, 64, "fp8")


def spec(sm: str) -> DeviceSpec:
    return DeviceSpec("GPU", sm, 100, ARCHITECTURES[sm].shared_memory_bytes, 16 << 30, 1e12, MatrixRates(1, 1, 1, 1))


@pytest.mark.parametrize("widths", [PUBLIC, NANO], ids=["public", "nano"])
@pytest.mark.parametrize("sm", ARCHITECTURES)
def test_every_convolution_has_a_configuration(sm: str, widths: tuple[int, ...]) -> None:
    for format in formats_of(sm):
        problems = [*decoder_problems(widths, (90, 160), format), *encoder_problems(widths, (720, 1280), format)]
        for name, problem in problems:
            config = choose_config(problem, spec(sm))
            assert isinstance(config, ConvConfig), f"{sm} {name}: {config}"
            assert problem.channels_out % config.block_n == 0
            assert problem.channels_in % config.block_k == 0
            assert shared_memory_bytes(problem, config, sm) <= ARCHITECTURES[sm].shared_memory_bytes
            assert config.uses_tma <= ARCHITECTURES[sm].has_descriptors
            assert not (sm == "sm_90" and config.uses_tma and config.tile_h > 1), f"{name}: pixels through registers"


@pytest.mark.parametrize(
    ("sm", "change", "reason"),
    [
        ("sm_80", {}, "no matrix units for fp8"),
        ("sm_90", {"format": "mxfp8"}, "no matrix units for mxfp8"),
        ("sm_90", {"channels_in": 48}, "48 input channels are not a multiple of 32"),
        ("sm_90", {"channels_in": 24, "format": "fp16"}, "24 input channels are not a multiple of 16"),
        ("sm_90", {"channels_out": 3}, "3 output channels"),
        ("sm_90", {"shortcut_channels": 8}, "8 shortcut channels"),
        ("sm_90", {"stride": 2, "phases": 4}, "both halve and double"),
    ],
)
def test_refusals_say_why(sm: str, change: dict[str, object], reason: str) -> None:
    refusal = choose_config(replace(PROBLEM, **change), spec(sm))
    assert isinstance(refusal, Refusal)
    assert reason in refusal.reason


def test_an_unknown_architecture_is_refused() -> None:
    turing = replace(spec("sm_80"), sm="sm_75")
    assert isinstance(choose_config(PROBLEM, turing), Refusal)
    assert isinstance(choose_attention_config(512, turing), Refusal)


def test_too_little_shared_memory_is_refused() -> None:
    assert isinstance(choose_config(PROBLEM, replace(spec("sm_90"), shared_memory_bytes=8192)), Refusal)


@pytest.mark.parametrize("dim", [8, 96, 1024])
def test_heads_of_other_dimensions_are_refused(dim: int) -> None:
    assert isinstance(choose_attention_config(dim, spec("sm_90")), Refusal)


@pytest.mark.parametrize(
    ("sm", "dim", "format", "overlaps"),
    [
        ("sm_90", 512, "int8", True),
        ("sm_90", 128, "fp8", True),
        ("sm_90", 64, "int8", False),
        ("sm_90", 512, "fp16", False),
        ("sm_89", 512, "int8", False),
        ("sm_100", 512, "fp8", False),
        ("sm_120", 512, "int8", False),
    ],
)
def test_attention_overlaps_where_wgmma_gives_a_thread_enough_sums(
    sm: str, dim: int, format: Format, overlaps: bool
) -> None:
    config = choose_attention_config(dim, spec(sm), format)
    assert isinstance(config, AttentionConfig)
    assert config.overlaps == overlaps


def test_odd_sizes_are_halved_through_pointers() -> None:
    config = choose_config(replace(PROBLEM, stride=2, height_px=65), spec("sm_90"))
    assert isinstance(config, ConvConfig)
    assert not config.uses_tma


def test_work_of_a_decode_is_the_known_figure() -> None:
    """23.55 MFLOP per pixel and frame as written; the composed upsamplers leave 18.50."""
    layers = dict(decoder_problems(PUBLIC, (8, 8), "fp8"))
    frames = {8: 1, 16: 2, 32: 4, 64: 4}
    total = 0.0
    for name, problem in layers.items():
        if "one frame" in name or "attention" in name or "conv_in" in name or "conv_out" in name:
            continue
        repeats = {"mid_block conv1": 5, "mid_block conv2": 5, "up_blocks.1 conv1": 3, "up_blocks.1 conv2": 3}
        repeats |= {f"up_blocks.{i} conv{j}": 2 for i in (2, 3) for j in (1, 2)}
        # A launch of an upsampler's kernel for one output frame; the table counts output frames.
        level = problem.height_px * (2 if problem.phases == 4 else 1)
        total += problem.flops * repeats.get(name, 1) * frames[level]
    assert total / (4 * 64 * 64) == pytest.approx(18.47e6, rel=0.01)


def test_dispatch_imports_no_triton() -> None:
    code = "import sys, seedvr2_engine.kernels.dispatch, seedvr2_engine.quant; sys.exit('triton' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
