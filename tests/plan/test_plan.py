"""Plans: memory that never overlaps, rings that never lose a frame, and the order of preference under a budget."""

import subprocess
import sys
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seedvr2_engine.device import DeviceSpec, MatrixRates
from seedvr2_engine.errors import InvalidArgumentError
from seedvr2_engine.models.vae.config import VAEConfig
from seedvr2_engine.models.vae.tiling import TileSpec
from seedvr2_engine.plan import ExecutionPlan, PlanOptions, VAEShape, compile_vae_plan
from seedvr2_engine.plan.describe import describe_area
from seedvr2_engine.plan.gpus import find_gpu
from seedvr2_engine.plan.memory import touched
from seedvr2_engine.plan.tables import SETTLED, STILL, row_count, row_moves, step_rows
from seedvr2_engine.plan.target import can_pair
from seedvr2_engine.quant import QuantRecipe

from .plan_json import from_json

H200 = DeviceSpec("NVIDIA H200", "sm_90", 132, 232_448, 141 << 30, 4.8e12, MatrixRates(0, 0, 0, 0))
RTX5070TI = DeviceSpec("RTX 5070 Ti", "sm_120", 70, 101_376, 16 << 30, 9e11, MatrixRates(0, 0, 0, 0))
GB = 10**9


def plan(
    shape: VAEShape, budget: int = 1 << 60, *, precision: str = "fp8", device: DeviceSpec = H200, **options: object
) -> ExecutionPlan:
    return compile_vae_plan(VAEConfig(), QuantRecipe(precision), device, shape, budget, PlanOptions(**options))


VIDEO_1080P = VAEShape("decode", 1088, 1920, 21)


def test_the_promised_peaks() -> None:
    """The project's figures for whole frames in FP8."""
    assert plan(VIDEO_1080P, 12_500_000_000).memory.peak < 12.5 * GB
    assert not plan(VIDEO_1080P, 12_500_000_000).uses_host
    on_host = plan(VIDEO_1080P, 6 * GB)
    assert on_host.uses_host
    assert on_host.is_exact
    assert plan(VAEShape("decode", 2160, 3840, 1)).memory.peak < 12 * GB
    big = plan(VAEShape("decode", 2160, 3840), 16 * GB)
    assert big.uses_host
    assert big.is_exact


def test_memory_does_not_depend_on_the_length() -> None:
    peaks = {frames: plan(VAEShape("decode", 720, 1280, frames)).memory for frames in (5, 201)}
    assert peaks[5].peak - peaks[5].result == peaks[201].peak - peaks[201].result


def test_preference_under_a_shrinking_budget() -> None:
    whole = plan(VIDEO_1080P)
    assert whole.is_exact
    assert not whole.uses_host
    last = whole.memory.peak
    kinds = []
    for budget in (13 * GB, 11 * GB, 8 * GB, 6 * GB, 4100 * GB // 1000, 2 * GB):
        chosen = plan(VIDEO_1080P, budget)
        assert not chosen.refusals
        assert chosen.memory.peak <= min(budget, last)
        kinds.append("whole" if chosen.is_exact and not chosen.uses_host else "host" if chosen.is_exact else "tiles")
    assert kinds == ["whole", "host", "host", "host", "host", "tiles"]
    refused = plan(VIDEO_1080P, GB // 2)
    assert "GB of GPU memory" in refused.refusals[0]


def test_tiles_are_as_large_as_the_memory_allows() -> None:
    sizes = []
    for budget in (3 * GB, 4 * GB, 5 * GB):
        chosen = plan(VIDEO_1080P, budget, allows_host=False)
        assert chosen.tile_px is not None
        size = chosen.tile_px[0]
        assert size % 64 == 0
        larger = plan(VIDEO_1080P, tile=TileSpec(size + 64, min(128, (size + 64) // 4)))
        assert chosen.memory.peak <= budget < larger.memory.peak
        sizes.append(size)
    assert sizes == sorted(set(sizes))


SHAPES = [
    VAEShape("decode", 24, 40, None),
    VAEShape("decode", 24, 40, 1),
    VAEShape("encode", 37, 43, None),
    VAEShape("encode", 24, 24, 1),
]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: f"{shape.part} {shape.frames}")
@pytest.mark.parametrize("host", [False, True])
def test_no_two_living_buffers_share_a_byte(shape: VAEShape, host: bool) -> None:
    made = plan(shape, 0 if host else 1 << 60, allows_tiles=False)
    for schedule in (made.first, made.steady):
        for index, operation in enumerate(schedule.operations):
            for name in touched(operation):
                buffer = schedule.places.get(name)
                if buffer is not None:
                    assert buffer.first <= index <= buffer.last
        for i, one in enumerate(schedule.buffers):
            assert one.offset + one.bytes <= made.memory.arena
            for other in schedule.buffers[:i]:
                apart = one.first > other.last or other.first > one.last
                assert apart or one.offset >= other.offset + other.bytes or other.offset >= one.offset + one.bytes
    ends = [(ring.offset, ring.offset + ring.bytes) for ring in made.rings if ring.offset is not None]
    assert all(a[1] <= b[0] for a, b in pairwise(ends))
    assert not ends or ends[-1][1] <= made.memory.rings


@pytest.mark.parametrize("part", ["decode", "encode"])
@pytest.mark.parametrize("way", ["pairs", "single frames", "host"])
def test_every_convolution_finds_the_frames_it_needs(part: str, way: str) -> None:
    """Walk twelve steps with frame numbers in place of frames: each tap must see its layer's right frame."""
    budget = 0 if way == "host" else 1 << 60
    made = plan(VAEShape(part, 64, 64, None), budget, allows_tiles=False, allows_pairs=way == "pairs")
    assert made.in_pairs == (way == "pairs")
    contents: dict[tuple[int, int], tuple[str, int]] = {}
    host_memory: dict[str, dict[int, tuple[str, int]]] = {}
    for index in range(12):
        schedule = made.steady if index else made.first
        rows = iter(step_rows(made, index))
        for operation, run in schedule.executions():
            numbers = [number for _ in range(row_count(operation)) for number in next(rows)]
            if operation.slot is None or not numbers:
                continue
            ring = made.rings[operation.slot.ring]
            frame = made.frames_before(operation.segment, index) + run
            if operation.problem is None:
                if operation.makes_winograd_inputs:
                    needed = [(operation.layer, max(frame - past, 0)) for past in (2, 1)]
                    assert [contents[operation.slot.ring, slot] for slot in numbers[:2]] == needed
                    numbers = numbers[2:]
                if ring.host_frames:
                    for past in range(1, min(frame, ring.host_frames) + 1):
                        kept = host_memory[operation.layer][(frame - past) % ring.host_frames]
                        contents[operation.slot.ring, ring.slots - 1 - past] = kept
                    host_memory.setdefault(operation.layer, {})[frame % ring.host_frames] = (operation.layer, frame)
                for offset in range(operation.frames):
                    contents[operation.slot.ring, numbers[offset]] = (operation.layer, frame + offset)
                continue
            taps = operation.problem.kernel[0]
            for offset in range(operation.frames):
                row = numbers[offset * (taps + 1) :]
                one = frame + offset
                newest = {"same": one, "up": (one + 1) // 2, "down": 2 * one}[operation.temporal_rate]
                needed = [(operation.layer, max(newest - past, 0)) for past in range(taps - 1, -1, -1)]
                assert [contents[operation.slot.ring, slot] for slot in row[:taps]] == needed
                if operation.temporal_rate == "up" and index:
                    assert row[taps] == (one + 1) % 2 + (2 if newest == 1 else 0)


@pytest.mark.parametrize("part", ["decode", "encode"])
def test_the_tables_of_a_settled_step_follow_from_the_one_before(part: str) -> None:
    made = plan(VAEShape(part, 64, 64, None))
    increments, moduli = row_moves(made)
    for index in range(SETTLED, SETTLED + 40):
        moved = [
            tuple((a + b) % m for a, b, m in zip(*rows, strict=True))
            for rows in zip(step_rows(made, index), increments, moduli, strict=True)
        ]
        assert moved == step_rows(made, index + 1)
    assert any(m != STILL for row in moduli for m in row)


def test_the_order_is_depth_first() -> None:
    assert plan(VAEShape("decode", 64, 64), allows_pairs=False).steady.order == (0, 1, 2, 2, 1, 2, 2)
    assert plan(VAEShape("encode", 64, 64), allows_pairs=False).steady.order == (0, 0, 1, 0, 0, 1, 2)


def test_pairs_run_half_as_often() -> None:
    assert plan(VAEShape("decode", 64, 64)).steady.order == (0, 1, 2, 2)
    assert plan(VAEShape("encode", 64, 64)).steady.order == (0, 0, 1, 2)


def test_pairs_are_taken_where_they_fit() -> None:
    paired = plan(VIDEO_1080P)
    single = plan(VIDEO_1080P, paired.memory.peak - 1)
    assert paired.in_pairs
    assert not single.in_pairs
    assert not single.uses_host
    # Two thirds of the products of every layer of three temporal taps; the latent level has single frames.
    assert 0.66 < paired.flops(first=False) / single.flops(first=False) < 0.73
    assert not plan(VIDEO_1080P, device=RTX5070TI).in_pairs


def test_pairs_are_for_hopper_and_not_for_int8() -> None:
    assert can_pair(H200, QuantRecipe("fp8"))
    assert can_pair(H200, QuantRecipe("fp16"))
    assert not can_pair(H200, QuantRecipe("int8"))
    assert not can_pair(RTX5070TI, QuantRecipe("fp8"))


def test_layers_that_remember_most_wait_on_the_host_first() -> None:
    whole = plan(VIDEO_1080P, allows_pairs=False)
    some = plan(VIDEO_1080P, whole.memory.peak - 1, allows_pairs=False)
    assert some.uses_host
    largest = max(
        whole.rings[operation.slot.ring].frame_bytes
        for operation in whole.steady.operations
        if operation.problem is not None and operation.slot is not None and operation.problem.kernel[0] == 3
    )
    assert {ring.frame_bytes for ring in some.rings if ring.host_frames} == {largest}


@pytest.mark.parametrize("gigabytes", [1.4, 3.0])
def test_tiles_share_a_quarter_and_128_pixels_at_most(gigabytes: float) -> None:
    tiled = plan(VIDEO_1080P, int(gigabytes * GB), allows_host=False)
    assert tiled.tile_px is not None
    assert tiled.overlap_px == min(128, tiled.tile_px[0] // 4)


def test_work_is_what_the_measurements_count() -> None:
    """The specification's figure is 23554 kFLOP for each pixel of a long clip before composing the upsamplers."""
    made = plan(VAEShape("decode", 720, 1280), allows_pairs=False)
    attention = 4 * 512 * (90 * 160) ** 2
    per_pixel = (made.flops(first=False) - attention) / (4 * 720 * 1280)
    upsamplers = (16.4 + 442.4 + 131.1 + 3538.9 + 131.1 + 3538.9) * 1e3
    # A sixteenth of the pixels in half of the frames; a quarter of the pixels; all of them.
    composed = 2 * 8 * 512**2 / 32 + 2 * 8 * 512**2 / 4 + 2 * 12 * 256**2
    # conv_out computes 32 channels of nine taps in place of three.
    ends = 2 * 3 * 128 * 32 - 20.7e3
    assert per_pixel == pytest.approx(23554e3 - upsamplers + composed + ends, rel=1e-4)


@settings(max_examples=15)
@given(
    st.sampled_from(["decode", "encode"]),
    st.integers(1, 12),
    st.integers(1, 12),
    st.sampled_from([None, 1, 5]),
    st.sampled_from(["fp8", "int8", "fp16", "bf16", "mxfp8"]),
)
def test_json_gives_the_same_plan(part: str, rows: int, columns: int, frames: int | None, precision: str) -> None:
    made = plan(VAEShape(part, 8 * rows, 8 * columns, frames), precision=precision, device=RTX5070TI)
    assert from_json(made.to_json()) == made


def test_every_layer_says_why() -> None:
    made = plan(VAEShape("decode", 720, 1280), precision="mxfp8", device=RTX5070TI)
    layers = {operation.layer: operation for operation in made.convolutions()}
    assert layers["decoder.conv_out"].format == "fp16"
    assert "picture itself" in layers["decoder.conv_out"].reason
    assert layers["decoder.up_blocks.3.resnets.2.conv2"].format == "mxfp8"
    assert layers["decoder.mid_block.attentions.0.to_qkv"].format == "fp16"
    assert describe_area(made).startswith("whole frames")


@pytest.mark.parametrize(
    ("gpu", "precision", "format", "reason"),
    [
        ("h200", "fp8", "int8", "scores in INT8, values in FP8"),
        ("rtx5070ti", "mxfp8", "int8", "scores in INT8, values in FP8"),
        ("rtx4090", "int8", "int8", "scores in INT8, values in FP8"),
        ("b200", "fp8", "fp8", "scores in FP8, values in FP8"),
        ("rtx3090", "int8", "fp16", "sm_86 has no matrix units for the attention's FP8 values"),
        ("h200", "bf16", "bf16", "nothing is quantised"),
    ],
)
def test_attention_has_a_format_of_its_own(gpu: str, precision: str, format: str, reason: str) -> None:
    made = plan(VAEShape("decode", 720, 1280), precision=precision, device=find_gpu(gpu))
    for schedule in (made.first, made.steady):
        operation = next(operation for operation in schedule.operations if operation.kernel == "attention")
        assert (operation.format, operation.reason) == (format, reason)
        assert (f"{operation.layer}.operands" in schedule.places) == (format in ("int8", "fp8"))


def test_attention_can_be_kept_in_16_bits() -> None:
    recipe = QuantRecipe("fp8").keeping_in_16_bits("decoder.mid_block.attentions.0", "the accuracy check wants it")
    made = compile_vae_plan(VAEConfig(), recipe, H200, VAEShape("decode", 720, 1280), 80 << 30)
    operation = next(operation for operation in made.steady.operations if operation.kernel == "attention")
    assert (operation.format, operation.reason) == ("fp16", "the accuracy check wants it")


def test_a_format_that_the_gpu_lacks_is_replaced_with_a_reason() -> None:
    made = plan(VAEShape("decode", 64, 64), precision="mxfp8", device=H200)
    assert {operation.format for operation in made.convolutions()} == {"fp16"}
    assert any("no matrix units for mxfp8" in operation.reason for operation in made.convolutions())


def test_an_unknown_gpu_and_odd_widths_are_refused() -> None:
    other = DeviceSpec("GTX 1080", "sm_61", 20, 49_152, 8 << 30, 0, MatrixRates(0, 0, 0, 0))
    assert "sm_61" in plan(VAEShape("decode", 64, 64), device=other).refusals[0]
    config = VAEConfig(block_out_channels=(96, 256, 512, 512))
    made = compile_vae_plan(config, QuantRecipe("fp8"), H200, VAEShape("decode", 64, 64), 1 << 60)
    assert any("power of two" in reason for reason in made.refusals)


@pytest.mark.parametrize(
    "shape",
    [
        VAEShape("decode", 60, 64),
        VAEShape("encode", 7, 64),
        VAEShape("encode", 64, 64, 4),
        VAEShape("decode", 64, 64, 6),
        VAEShape("decode", 64, 64, 7),
    ],
)
def test_impossible_shapes_are_refused(shape: VAEShape) -> None:
    with pytest.raises(InvalidArgumentError, match="plan: expected"):
        plan(shape)


def test_a_plan_needs_no_triton() -> None:
    code = "import sys, seedvr2_engine.plan, seedvr2_engine.engine; print('triton' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"
