"""The transformer on paper: against what was measured, counted by hand, and for every GPU of the table."""

import math

import pytest

from seedvr2_engine.errors import InvalidArgumentError
from seedvr2_engine.kernels.architectures import ARCHITECTURES
from seedvr2_engine.models.dit.config import PUBLIC_3B, PUBLIC_7B
from seedvr2_engine.plan.dit.memory import block_bytes, weight_bytes
from seedvr2_engine.plan.dit.roofline import Chunk, choose_transformer_format, transformer_formats, transformer_time
from seedvr2_engine.plan.gpus import GPUS, find_gpu

from ..models.dit.dit_cases import TINY

CLIP = Chunk(6, 90, 160)
PUBLIC = {"3b": PUBLIC_3B, "7b": PUBLIC_7B}


@pytest.mark.parametrize(
    ("family", "format", "measured_ms", "measured_gb"),
    # `python -m benchmarks.dit_formats`, H200, 1280x720, 21 frames.
    [
        ("3b", "bf16", 192.6, 6.78), ("3b", "fp8", 124.8, 3.46), ("3b", "int8", 139.5, 3.46),
        ("7b", "bf16", 305.5, 16.48), ("7b", "fp8", 187.7, 8.33), ("7b", "int8", 214.1, 8.33),
    ],
)  # fmt: skip
def test_an_h200_is_what_was_measured(family, format, measured_ms, measured_gb):
    config = PUBLIC[family]
    time = transformer_time(config, CLIP, format, find_gpu("h200"))
    # A roofline leaves out what stands between kernels.
    assert 0.85 * measured_ms < time.ms < measured_ms
    assert weight_bytes(config, format) / 1e9 == pytest.approx(measured_gb, abs=0.01)


def test_the_products_by_hand():
    time = transformer_time(PUBLIC_3B, CLIP, "bf16", find_gpu("h200"))
    rows = 6 * 45 * 80 + 58
    flop = 32 * 2 * rows * 2560 * (4 * 2560 + 3 * 6912)
    assert time.products_ms == pytest.approx(flop / (132 * 4096 * 1.83e9 * 0.79) * 1e3, rel=1e-6)


def test_weights_by_hand():
    shapes = TINY["3b"].tensor_shapes()
    large = {name: shape for name, shape in shapes.items() if name.startswith("blocks.") and len(shape) == 2}
    small = sum(math.prod(shape) for name, shape in shapes.items() if name not in large)
    numbers, rows = sum(map(math.prod, large.values())), sum(shape[0] for shape in large.values())
    assert weight_bytes(TINY["3b"], "bf16") == 2 * (small + numbers)
    assert weight_bytes(TINY["3b"], "int8") == 2 * small + numbers + 4 * rows


@pytest.mark.parametrize("family", ["3b", "7b"])
def test_every_gpu_has_a_time_in_every_format_that_it_computes(family):
    config, chunk = PUBLIC[family], Chunk(2, 30, 40)
    for gpu in GPUS:
        device = gpu.spec()
        formats = transformer_formats(device.sm)
        assert formats[-1] == "bf16"
        assert set(formats[:-1]) == set(ARCHITECTURES[device.sm].matrices)
        times = {format: transformer_time(config, chunk, format, device) for format in formats}
        for format in formats[:-1]:
            assert times[format].products_ms < times["bf16"].products_ms, (gpu.name, format)
            assert weight_bytes(config, format) < weight_bytes(config, "bf16")


def test_blocks_on_the_host_come_over_the_bus():
    device = find_gpu("rtx5070ti")
    for format in transformer_formats(device.sm):
        here = transformer_time(PUBLIC_7B, Chunk(1, 20, 20), format, device)
        away = transformer_time(PUBLIC_7B, Chunk(1, 20, 20), format, device, offload=True)
        assert (here.host_ms, away.ms) == (0, away.host_ms)
        assert away.host_ms == pytest.approx(36 * block_bytes(PUBLIC_7B, format) / 22e9 * 1e3)
        assert away.ms > here.ms


def test_formats_are_chosen_or_refused():
    h200 = find_gpu("h200")
    assert choose_transformer_format("auto", h200) == "fp8"
    assert choose_transformer_format("auto", find_gpu("rtx5070ti")) == "int8"
    assert choose_transformer_format("nvfp4", find_gpu("b200")) == "nvfp4"
    assert choose_transformer_format("bf16", h200) == "bf16"
    assert choose_transformer_format("fp16", h200) == "fp16"
    with pytest.raises(InvalidArgumentError, match=r"fp8 was asked for, but RTX 3090 \(sm_86\) computes int8, bf16"):
        choose_transformer_format("fp8", find_gpu("rtx3090"))
