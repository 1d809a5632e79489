"""Estimates of memory, by hand: of which numbers there are how many, of how many bytes."""

from dataclasses import replace

import pytest

from seedvr2_engine.models.dit.config import PUBLIC_3B, PUBLIC_7B
from seedvr2_engine.models.vae.config import VAEConfig
from seedvr2_engine.models.vae.tiling import TileSpec
from seedvr2_engine.pipeline.chunks import ChunkPlan
from seedvr2_engine.pipeline.memory import (
    ClipMemory,
    Division,
    Sizes,
    estimate_memory,
    fitting_division,
    past_per_pixel,
    plan_clip,
)
from seedvr2_engine.pipeline.options import UpscaleOptions

SIZES = Sizes(VAEConfig(), PUBLIC_3B, vae_element_bytes=2, dit_element_bytes=2, weights_bytes=1000)
PIXELS = 640 * 480
MIB = 1 << 20


def memory(sizes: Sizes = SIZES, frames: int = 21, overlap: int = 0, span: str = "chunk", **options) -> ClipMemory:
    asked = UpscaleOptions(scale=1, **options)
    return estimate_memory(sizes, asked.resize((480, 640)), asked, Division(ChunkPlan(frames, overlap), span))


def test_frames_that_wait_are_of_the_vaes_numbers_and_shared_and_corrected_ones_of_fp32():
    planes = PIXELS * 40 * 4
    assert memory(color="none").frames_bytes == planes
    assert memory(color="none", overlap=5).frames_bytes == planes + 5 * PIXELS * 3 * 4
    for color, curves in (("lab", 75 * MIB), ("hsv", 300 * MIB), ("wavelet_adaptive", 300 * MIB)):
        assert memory(color=color).frames_bytes == planes + 21 * PIXELS * 3 * 2 + curves


@pytest.mark.parametrize("element_bytes", [2, 4])
def test_the_past_of_a_clip_is_of_the_vaes_numbers(element_bytes):
    sizes = replace(SIZES, vae_element_bytes=element_bytes)
    encoder, decoder = past_per_pixel(sizes.vae)
    clip, chunk = memory(sizes, span="clip"), memory(sizes)
    assert clip.vae_bytes - chunk.vae_bytes == pytest.approx(encoder * PIXELS * element_bytes, abs=2)
    both = (encoder + decoder) * PIXELS * element_bytes
    assert clip.transformer_bytes - chunk.transformer_bytes == pytest.approx(both, abs=2)


def test_tiles_are_what_the_vae_has_at_a_time():
    whole, tiled = memory(), memory(tile=TileSpec(256, 64))
    assert tiled.vae_bytes == pytest.approx(whole.vae_bytes * 256 * 256 / PIXELS, abs=1)
    assert memory(tile=TileSpec(1024, 64)).vae_bytes == whole.vae_bytes


def test_a_transformer_on_another_device_takes_nothing_here():
    assert memory().transformer_bytes > 0
    assert memory(replace(SIZES, shares_device=False)).transformer_bytes == 0


@pytest.mark.parametrize(("config", "copies"), [(PUBLIC_3B, 4), (PUBLIC_7B, 3)])
def test_the_widest_layer_of_a_transformers_block_decides(config, copies):
    """Tokens and what comes of them, and the layers between of an MLP with and without a gate."""
    wide = replace(config, mlp_width=100 * config.width)
    tokens = 6 * PIXELS // 256
    expected = tokens * (2 * config.width * 2 + copies * wide.mlp_width * 2)
    assert memory(replace(SIZES, dit=wide)).transformer_bytes == expected


def test_a_fifth_of_a_device_is_left_to_others():
    options = UpscaleOptions(scale=1, vae_span="chunk", color="none")
    resize = options.resize((480, 640))
    needed = memory(frames=45, overlap=5, color="none")
    device_bytes = (needed.weights_bytes + needed.frames_bytes + needed.transformer_bytes) / 0.8
    for share, frames in ((1.001, 45), (0.999, 41)):
        division = fitting_division(SIZES, resize, options, round(share * device_bytes))
        assert division.chunks.chunk_frames == frames


def test_no_more_is_needed_than_there_is():
    small = ClipMemory(10, 0, 20, 5)
    plan = plan_clip(replace(SIZES, vae_plans_itself=True), UpscaleOptions(scale=1), (480, 640), 10**9)
    assert replace(plan, memory=small, device_bytes=100, engine_bytes=50).needed_bytes == 85
    assert replace(plan, memory=small, device_bytes=100, engine_bytes=70).needed_bytes == 100
    assert replace(plan, memory=small, device_bytes=100, engine_bytes=None).needed_bytes == 35
