"""What results and weights take, counted by hand: a byte that is not planned is one that a GPU lacks."""

from typing import Any

import pytest

from seedvr2_engine.kernels.configs import ConvProblem
from seedvr2_engine.models.vae.tiling import TileSpec
from seedvr2_engine.plan import VAEShape
from seedvr2_engine.plan.compile import _weights
from seedvr2_engine.plan.execution_plan import Operation, Ring
from seedvr2_engine.plan.memory import host_bytes, rings_bytes, weight_bytes, weight_sets
from seedvr2_engine.plan.tiling import result_bytes, tile_size

TILE = TileSpec(256, 64)


@pytest.mark.parametrize("frames", [1, 5, 9])
def test_pictures_have_two_bytes_a_value_and_with_tiles_a_sum_in_float32_besides(frames: int) -> None:
    shape, values = VAEShape("decode", 320, 480, frames), 3 * frames * 320 * 480
    assert result_bytes(shape, None, 16) == 2 * values
    assert result_bytes(shape, TILE, 16) == (2 + 4) * values


@pytest.mark.parametrize(("frames", "latents"), [(1, 1), (5, 2), (9, 3), (None, 1)])
def test_moments_are_float32_of_as_many_latents_as_there_are(frames: int | None, latents: int) -> None:
    shape, values = VAEShape("encode", 320, 480, frames), 2 * 16 * latents * 40 * 60
    assert result_bytes(shape, None, 16) == 4 * values
    assert result_bytes(shape, TILE, 16) == (4 + 4) * values


def test_tiles_are_whole_cells_and_not_larger_than_the_picture() -> None:
    assert tile_size(VAEShape("decode", 320, 480, 1), TileSpec((255, 1000), 64)) == (248, 480)


def convolution(**facts: Any) -> Operation:
    problem = ConvProblem(**{"kernel": (3, 3, 3), "frames": 1, "height_px": 8, "width_px": 8, **facts})
    return Operation(layer="a", kernel="conv3d", segment=0, source="", target="b", size=(8, 8, 512), problem=problem)


def test_weights_of_a_convolution_in_8_bits() -> None:
    rows, depth = 256, 27 * 512
    plain = convolution(channels_in=512, channels_out=256, format="fp8")
    assert weight_bytes(plain, 1) == rows * depth + 4 * rows + 4 * rows
    # The fused shortcut multiplies 16-bit numbers whatever the convolution's are.
    with_shortcut = convolution(channels_in=512, channels_out=256, format="fp8", shortcut_channels=512)
    assert weight_bytes(with_shortcut, 1) - weight_bytes(plain, 1) == 2 * 256 * 512


def test_weights_of_an_upsampler_have_a_bias_for_each_border() -> None:
    rows, depth = 4 * 4 * 256, 8 * 256
    facts: dict[str, Any] = {"channels_in": 256, "channels_out": 256, "format": "fp16", "kernel": (2, 2, 2)}
    assert weight_bytes(convolution(**facts, phases=4), 4) == 2 * rows * depth + 4 * 4 * rows


@pytest.mark.parametrize(("taps", "rate", "sets"), [(2, "up", 4), (3, "up", 1), (2, "same", 1), (1, "up", 1)])
def test_upsamplers_that_double_time_have_four_sets(taps: int, rate: Any, sets: int) -> None:
    problem = ConvProblem(256, 256, (taps, 2, 2), 1, 8, 8, "fp16", phases=4)
    operation = Operation(
        layer="a", kernel="conv3d", segment=0, source="", target="b", size=(8, 8, 256), problem=problem,
        temporal_rate=rate,
    )  # fmt: skip
    assert weight_sets(operation) == sets


def test_rings_on_the_host_count_the_frames_that_wait_there() -> None:
    here = Ring("a", 0, (8, 8, 64), "fp8", slots=5, frame_bytes=4096)
    there = Ring("b", 0, (8, 8, 64), "fp8", slots=3, frame_bytes=4096, offset=None, host_frames=3)
    assert host_bytes((here, there)) == 3 * 4096
    assert rings_bytes((here, there)) == 5 * 4096


def test_norms_have_a_weight_and_a_bias_and_are_counted_once() -> None:
    facts: dict[str, Any] = {"layer": "a", "kernel": "norm", "segment": 0, "source": "", "target": ""}
    wide, narrow = (Operation(size=(8, 8, channels), norm=f"n{channels}", **facts) for channels in (256, 128))
    nothing = Operation(size=(8, 8, 512), **facts)
    # The last convolution's bias is padded to 32 channels.
    assert _weights([wide, narrow, wide, nothing]) == 2 * 4 * (256 + 128) + 4 * 32
