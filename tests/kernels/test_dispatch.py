"""Heuristics: every convolution of the VAE has a configuration on every architecture, or a clear refusal."""

import subprocess
import sys
from dataclasses import replace
from functools import cache

import pytest

from seedvr2_engine.device import DeviceSpec, MatrixRates
from seedvr2_engine.kernels.architectures import ARCHITECTURES, formats_of
from seedvr2_engine.kernels.configs import AttentionConfig, ConvConfig, ConvProblem, Format, Refusal
from seedvr2_engine.kernels.dispatch import choose_attention_config, choose_config, shared_memory_bytes
from seedvr2_engine.models.vae.config import VAEConfig
from seedvr2_engine.plan import VAEShape, compile_vae_plan
from seedvr2_engine.plan.choices import memory_budget_bytes
from seedvr2_engine.plan.coverage import ALL_PX, covering_plans, distinct_kernels, distinct_operations
from seedvr2_engine.plan.describe import operation_name
from seedvr2_engine.plan.execution_plan import ExecutionPlan, Operation
from seedvr2_engine.plan.gpus import GPU, GPUS
from seedvr2_engine.quant import QuantRecipe
from seedvr2_engine.quant.recipe import ALWAYS_16_BIT

PUBLIC, NANO = VAEConfig(), VAEConfig(block_out_channels=(32, 32, 64, 64))
PROBLEM = ConvProblem(128, 128, (3, 3, 3), 1, 64, 64, "fp8")


def spec(sm: str) -> DeviceSpec:
    return DeviceSpec("GPU", sm, 100, ARCHITECTURES[sm].shared_memory_bytes, 16 << 30, 1e12, MatrixRates(1, 1, 1, 1))


@cache
def plans_for(sm: str, format: Format, config: VAEConfig) -> list[ExecutionPlan]:
    """At every size for the public model; for nano at one of each sort: ragged, odd, and divided by tiles."""
    return covering_plans(spec(sm), [format], config, ALL_PX if config == PUBLIC else ALL_PX[1:4])


@pytest.mark.parametrize("config", [PUBLIC, NANO], ids=["public", "nano"])
@pytest.mark.parametrize("sm", ARCHITECTURES)
def test_every_convolution_has_a_configuration(sm: str, config: VAEConfig) -> None:
    plans = [plan for format in formats_of(sm) for plan in plans_for(sm, format, config)]
    assert not any(plan.refusals for plan in plans)
    for operation in distinct_operations(plans):
        problem, chosen = operation.problem, operation.config
        if problem is None:
            continue
        name = f"{sm} {operation.format} {operation.layer}"
        assert isinstance(chosen, ConvConfig), name
        assert chosen == choose_config(problem, spec(sm)), name
        assert problem.channels_out % chosen.block_n == 0, name
        assert problem.channels_in % chosen.block_k == 0, name
        assert shared_memory_bytes(problem, chosen, sm) <= ARCHITECTURES[sm].shared_memory_bytes, name
        assert chosen.uses_tma <= ARCHITECTURES[sm].has_descriptors, name
        assert not (sm == "sm_90" and chosen.uses_tma and chosen.tile_h > 1), f"{name}: pixels through registers"


@pytest.mark.parametrize("sm", ARCHITECTURES)
def test_nothing_is_kept_in_16_bits_for_want_of_a_configuration(sm: str) -> None:
    meant = {*ALWAYS_16_BIT.values(), "the attention's projections are kept in 16 bits"}
    for format in formats_of(sm):
        convolutions = [operation for operation in ahead(sm, format).values() if operation.problem is not None]
        assert {operation.reason for operation in convolutions if operation.format != format} <= meant


@cache
def ahead(sm: str, format: Format) -> dict[tuple[object, ...], Operation]:
    """What is compiled ahead of time."""
    return distinct_kernels(plans_for(sm, format, PUBLIC))


# GPUs of one generation differ in their plans by memory.
@pytest.mark.parametrize("gpu", {(gpu.sm, gpu.vram_gib): gpu for gpu in GPUS}.values(), ids=lambda gpu: gpu.name)
def test_all_that_a_gpu_runs_is_among_what_is_compiled_ahead(gpu: GPU) -> None:
    """At other sizes than those, with the GPU's own memory: in pairs, with frames in host memory, in tiles."""
    device = gpu.spec()
    shapes = [VAEShape("decode", 1088, 1920), VAEShape("encode", 359, 637, 21), VAEShape("decode", 480, 640, 1)]
    for format in formats_of(gpu.sm):
        for shape in shapes:
            plan = compile_vae_plan(PUBLIC, QuantRecipe(format), device, shape, memory_budget_bytes(device, None))
            assert not plan.refusals
            kernels = distinct_kernels([plan])
            missing = [
                operation_name(operation)
                for kernel, operation in kernels.items()
                if kernel not in ahead(gpu.sm, format)
            ]
            assert not missing, f"{format} {shape}: {missing}"


def test_pairs_of_frames_are_among_what_is_compiled_ahead() -> None:
    operations = ahead("sm_90", "fp8").values()
    paired = {operation.layer for operation in operations if operation.problem is not None and operation.problem.paired}
    single = {
        operation.layer
        for operation in operations
        if operation.problem is not None and operation.problem.kernel == (3, 3, 3)
    }
    assert len(paired) > 5
    assert paired & single, "a GPU with less memory computes the same layers one frame at a time"


@pytest.mark.parametrize(
    ("sm", "change", "reason"),
    [
        ("sm_80", {}, "no matrix units for fp8"),
        ("sm_90", {"format": "mxfp8"}, "no matrix units for mxfp8"),
        ("sm_100", {"format": "int8"}, "int8 is not used on sm_100: Triton makes INT8 products the older"),
        ("sm_103", {"format": "mxfp8"}, "mxfp8 is not used on sm_103: Triton cannot place the scales"),
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


@pytest.mark.parametrize(("height", "width", "uses_tma"), [(64, 256, True), (65, 256, False), (64, 255, False)])
def test_odd_sizes_are_halved_through_pointers(height: int, width: int, uses_tma: bool) -> None:
    config = choose_config(replace(PROBLEM, stride=2, height_px=height, width_px=width), spec("sm_90"))
    assert isinstance(config, ConvConfig)
    assert config.uses_tma == uses_tma


@pytest.mark.parametrize(("channels", "block_n", "block_k"), [(96, 32, 32), (160, 32, 32), (64, 64, 64)])
def test_tiles_divide_the_channels(channels: int, block_n: int, block_k: int) -> None:
    config = choose_config(replace(PROBLEM, channels_in=channels, channels_out=channels, width_px=60), spec("sm_90"))
    assert isinstance(config, ConvConfig)
    assert (config.block_n, config.block_k) == (block_n, block_k)


def test_pairs_need_room_for_two_tiles() -> None:
    config = ConvConfig(8, 16, 128, 128, warps=8, stages=3, uses_tma=False)
    paired = replace(PROBLEM, kernel=(4, 3, 3), frames=2, paired=True)
    # Three stages of 128 pixels and 128 channels, 128 deep, and a kilobyte of barriers.
    assert shared_memory_bytes(PROBLEM, config, "sm_90") == 3 * (128 + 128) * 128 + 1024
    assert shared_memory_bytes(paired, config, "sm_90") == 2 * 3 * (128 + 128) * 128 + 1024


@pytest.mark.parametrize(
    ("width", "fills"), [(256, True), (232, True), (230, False), (192, False), (116, True), (115, False), (1920, True)]
)
@pytest.mark.parametrize("paired", [False, True])
def test_hopper_takes_rows_of_128_pixels_where_nine_tenths_of_them_are_picture(
    width: int, fills: bool, paired: bool
) -> None:
    change = {"kernel": (4, 3, 3), "frames": 2, "paired": True} if paired else {}
    config = choose_config(replace(PROBLEM, width_px=width, **change), spec("sm_90"))
    assert isinstance(config, ConvConfig)
    assert (config.uses_tma, config.tile_h, config.tile_w) == ((True, 1, 128) if fills else (False, 8, 16))


def test_dispatch_imports_no_triton() -> None:
    code = "import sys, seedvr2_engine.kernels.dispatch, seedvr2_engine.quant; sys.exit('triton' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
