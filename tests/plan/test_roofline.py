"""The roofline against times worked out by hand, and what must hold for all plans."""

from dataclasses import replace

import pytest

from seedvr2_engine.kernels.architectures.record import DATA_CENTRE
from seedvr2_engine.models.vae.config import VAEConfig
from seedvr2_engine.models.vae.tiling import TileSpec
from seedvr2_engine.plan import PlanOptions, VAEShape, compile_vae_plan
from seedvr2_engine.plan.choices import choose_precision, memory_budget_bytes
from seedvr2_engine.plan.gpus import GPUS, find_gpu
from seedvr2_engine.plan.roofline import operation_bytes, roofline
from seedvr2_engine.quant import QuantRecipe

PLENTY = 1 << 50


def make(gpu="h200", format="fp8", part="decode", size=(720, 1280), frames=21, budget=PLENTY, **options):
    device = find_gpu(gpu)
    shape = VAEShape(part, *size, frames)
    plan = compile_vae_plan(VAEConfig(), QuantRecipe(format), device, shape, budget, PlanOptions(**options))
    return plan, roofline(plan, device)


def test_one_layer_by_hand():
    plan, times = make(allows_pairs=False)
    index, operation = next(
        (i, operation)
        for i, operation in enumerate(plan.steady.operations)
        if operation.layer == "decoder.up_blocks.3.resnets.1.conv1" and operation.problem is not None
    )
    # 128 channels in and out, 27 taps, 1280 x 720 pixels, four frames a step; 1979 TFLOP/s on paper.
    flops = 2 * 27 * 128 * 128 * 1280 * 720
    assert operation.flops == flops
    expected_ms = 4 * flops / (132 * 8192 * 1.83e9 * DATA_CENTRE.matrix_8_bit) * 1e3
    assert times.steady[index].ms == pytest.approx(expected_ms, rel=1e-6)
    assert times.steady[index].bound == "matrix"
    # Three 8-bit frames in, a 16-bit frame out, the weights, and two or four numbers a tile.
    pixels = 1280 * 720
    least = 128 * pixels * (3 + 2) + 27 * 128 * 128
    assert least <= operation_bytes(operation) <= 1.03 * least


def test_a_pair_of_frames_by_hand():
    plan, _ = make()
    norm, conv = (
        operation for operation in plan.steady.operations if operation.layer == "decoder.up_blocks.3.resnets.1.conv1"
    )
    pixels = 1280 * 720
    assert conv.flops == 2 * 4 * 9 * 128 * 128 * pixels
    # Four 8-bit Winograd inputs in, two 16-bit frames out.
    least = 128 * pixels * (4 + 4) + 36 * 128 * 128
    assert least <= operation_bytes(conv) <= 1.03 * least
    # Two 16-bit frames and two remembered ones in, two to remember and four Winograd inputs out.
    assert operation_bytes(norm) == pixels * 128 * (4 + 2 + 2 + 4)


def test_a_norm_is_bound_by_memory():
    plan, times = make(allows_pairs=False)
    index, operation = next(
        (i, operation)
        for i, operation in enumerate(plan.steady.operations)
        if operation.layer == "decoder.up_blocks.3.resnets.1.conv1" and operation.kernel == "norm"
    )
    assert operation_bytes(operation) == 1280 * 720 * 128 * 3
    expected_ms = 4 * operation_bytes(operation) / (4800e9 * DATA_CENTRE.bandwidth) * 1e3
    assert times.steady[index].ms == pytest.approx(expected_ms, rel=1e-6)
    assert times.steady[index].bound == "memory"


def test_the_work_of_a_decode_is_the_published_count():
    # 18.50 MFLOP a pixel and frame with composed upsamplers, the attention aside, as counted by hand.
    plan, _ = make(frames=None, allows_pairs=False)
    attention = sum(operation.flops for operation in plan.steady.operations if operation.kernel == "attention")
    runs = {segment: plan.steady.order.count(segment) for segment in plan.steady.order}
    total = sum(operation.flops * runs[operation.segment] for operation in plan.steady.operations) - attention
    assert total / (4 * 1280 * 720) == pytest.approx(18.5e6, rel=0.01)


def test_a_norm_is_three_launches_and_all_else_one():
    _, times = make(size=(64, 64))
    launches = {
        time.kernel: round(time.launch_ms / time.runs / (DATA_CENTRE.launch_us * 1e-3), 6) for time in times.steady
    }
    assert launches.pop("norm") == 3
    assert set(launches.values()) == {1}


def test_a_clip_is_its_first_frame_and_its_steps():
    _, short = make(frames=5)
    _, long = make(frames=81)
    assert long.clip_ms(81) == pytest.approx(short.first_ms + 20 * short.step_ms)
    assert long.clip_ms(1) == long.first_ms


def test_a_picture_has_one_step():
    plan, times = make(frames=1)
    assert times.steady == ()
    assert times.step_ms == 0
    assert 0 < times.first_ms < make(frames=5)[1].step_ms
    assert plan.steady.operations == ()


def test_faster_hardware_is_faster():
    def clip_ms(**change):
        device = replace(find_gpu("rtx5070ti"), **change)
        shape = VAEShape("decode", 720, 1280, 21)
        plan = compile_vae_plan(VAEConfig(), QuantRecipe("mxfp8"), device, shape, PLENTY)
        return roofline(plan, device).clip_ms(21)

    device = find_gpu("rtx5070ti")
    base = clip_ms()
    assert base / 2 < clip_ms(tflops=device.tflops.scaled(2)) < base
    assert base / 2 < clip_ms(bandwidth_bytes_per_s=2 * device.bandwidth_bytes_per_s) < base
    assert make("rtx5070ti", "mxfp8")[1].step_ms < make("rtx5070ti", "fp8")[1].step_ms


def test_tiles_cost_more_than_whole_frames():
    _, whole = make(size=(1088, 1920))
    plan, tiled = make(size=(1088, 1920), tile=TileSpec(1024, 128))
    assert plan.tile_px == (1024, 1024)
    # 1088 rows and 1920 columns in steps of 896.
    assert tiled.tiles == 4
    assert tiled.step_ms > 1.5 * whole.step_ms


def test_host_memory_is_a_roof_of_its_own():
    plan, times = make("rtx4060", size=(1088, 1920), frames=81, budget=int(7.4e9))
    assert plan.uses_host
    assert times.host_ms > 0
    assert times.step_ms > times.host_ms
    device = find_gpu("rtx4060")
    endless = replace(device, tflops=device.tflops.scaled(1e6), bandwidth_bytes_per_s=1e18)
    # What is left is the transfer, longer than the launches.
    assert roofline(plan, endless).step_ms == times.host_ms
    assert make("rtx4060", size=(1088, 1920), frames=81)[1].host_ms == 0


def test_what_cannot_be_known_is_not_told():
    device = replace(find_gpu("h200"), bandwidth_bytes_per_s=0.0)
    plan, _ = make()
    assert roofline(plan, device) is None
    refused, times = make(budget=10 << 20, allows_host=False, allows_tiles=False)
    assert refused.refusals
    assert times is None


@pytest.mark.parametrize("gpu", [gpu.name for gpu in GPUS])
def test_every_gpu_has_a_plan_and_a_time(gpu):
    device = find_gpu(gpu)
    decision = choose_precision("auto", device)
    shape = VAEShape("decode", 720, 1280, 21)
    budget = memory_budget_bytes(device, None)
    plan = compile_vae_plan(VAEConfig(), QuantRecipe(decision.format), device, shape, budget)
    assert not plan.refusals
    assert plan.memory.peak <= budget
    assert 50 < roofline(plan, device).clip_ms(21) < 20_000
