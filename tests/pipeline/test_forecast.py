"""Memory and time are foreseen from shapes alone, and chunks are as long as memory allows."""

import itertools
from dataclasses import replace

import pytest
import torch

from seedvr2_engine.checkpoint.opening import open_checkpoint
from seedvr2_engine.engine.dit.weights import device_bytes
from seedvr2_engine.loading_dit import load_dit
from seedvr2_engine.models.dit.config import PUBLIC_3B
from seedvr2_engine.models.vae.causal import CausalCache
from seedvr2_engine.models.vae.config import VAEConfig
from seedvr2_engine.pipeline.forecast import forecast, matrix_rate
from seedvr2_engine.pipeline.memory import (
    LONGEST_CHUNK_FRAMES,
    Sizes,
    asked_division,
    estimate_memory,
    fitting_division,
    past_per_pixel,
    plan_clip,
    sizes_of,
)
from seedvr2_engine.pipeline.options import UpscaleOptions

from ..conftest import GOLDEN, TINY, build_tiny_vae
from ..models.dit.dit_cases import TINY as TINY_DIT
from ..models.dit.dit_cases import build_tiny

PUBLIC = Sizes(VAEConfig(), PUBLIC_3B, 2, 2, weights_bytes=7_300_000_000)
SMALL = Sizes(TINY, TINY_DIT["3b"], 4, 4, weights_bytes=0)
GB = 10**9


def test_the_past_that_the_vae_keeps_is_that_of_a_real_run():
    vae, caches = build_tiny_vae(), (CausalCache(), CausalCache())
    with torch.no_grad():
        vae.encoder(torch.zeros(1, 3, 5, 32, 48), caches[0])
        vae.decoder(torch.zeros(1, 16, 2, 4, 6), caches[1])
    for expected, cache in zip(past_per_pixel(TINY), caches, strict=True):
        assert expected == pytest.approx(cache.nbytes / 4 / (32 * 48), rel=0.01)


@pytest.mark.parametrize(
    ("color", "kept_bytes"), [("wavelet", 0), ("lab", 9 * 3 * 2 * 96 * 128 + (75 << 20)), ("none", 0)]
)
def test_frames_and_the_planes_of_their_colours_are_counted_in_bytes(color, kept_bytes):
    options = UpscaleOptions(scale=1, chunk_frames=9, overlap=5, color=color, vae_span="chunk")
    division = asked_division(options)
    memory = estimate_memory(PUBLIC, options.resize((96, 128)), options, division)
    # Five shared frames and forty planes, all in FP32; what waits for its curves is in the VAE's format.
    assert memory.frames_bytes == 4 * (5 * 3 + 40) * 96 * 128 + kept_bytes


@pytest.mark.parametrize("span", ["clip", "chunk", None])
def test_more_memory_never_gives_shorter_chunks(span):
    options = UpscaleOptions(resolution=720, vae_span=span)
    resize = options.resize((360, 640))
    divisions = [fitting_division(PUBLIC, resize, options, gb * GB) for gb in (8, 16, 24, 32, 48, 80, 141)]
    lengths = [division.chunks.chunk_frames for division in divisions]
    spans = [division.vae_span for division in divisions]
    assert span is None or lengths == sorted(lengths)
    assert (lengths[-1], spans[-1]) == (LONGEST_CHUNK_FRAMES, span or "clip")
    assert spans == sorted(spans)  # `chunk` before `clip`
    assert fitting_division(PUBLIC, resize, options, GB).chunks.chunk_frames == 5
    for division, gb in itertools.islice(zip(divisions, (8, 16, 24, 32, 48, 80, 141), strict=True), 4, None):
        assert estimate_memory(PUBLIC, resize, options, division).peak_bytes <= 0.8 * gb * GB


def test_the_engine_gets_what_the_transformer_leaves():
    sizes = replace(PUBLIC, vae_plans_itself=True)
    options = UpscaleOptions(resolution=1080)
    for gb in (12, 16, 24, 80):
        plan = plan_clip(sizes, options, (540, 960), gb * GB)
        assert plan.division.vae_span == "clip"
        assert plan.engine_bytes >= 0.35 * gb * GB
        assert plan.needed_bytes == min(plan.engine_bytes + plan.memory.peak_bytes, gb * GB)
        if gb > 16:
            assert plan.needed_bytes <= 0.91 * gb * GB
        # The engine is loaded for clips of any length.
        assert plan_clip(sizes, options, (540, 960), gb * GB, 1).engine_bytes == plan.engine_bytes
    assert plan_clip(PUBLIC, options, (540, 960), 80 * GB).engine_bytes is None


def test_what_was_asked_for_is_kept():
    options = UpscaleOptions(scale=2, chunk_frames=13, overlap=4, vae_span="chunk")
    division = fitting_division(SMALL, options.resize((64, 64)), options, 0)
    assert (division.chunks.chunk_frames, division.chunks.overlap, division.vae_span) == (13, 4, "chunk")
    options = UpscaleOptions(scale=2, overlap=9)
    assert fitting_division(SMALL, options.resize((64, 64)), options, 0).chunks.chunk_frames == 13


def test_a_larger_picture_and_a_longer_chunk_take_more():
    def peak(scale, frames, **how):
        options = UpscaleOptions(scale=scale, chunk_frames=frames, overlap=1, **{"vae_span": "clip", **how})
        resize = options.resize((360, 640))
        return estimate_memory(PUBLIC, resize, options, fitting_division(PUBLIC, resize, options, 0)).peak_bytes

    assert peak(1, 5) < peak(2, 5) < peak(2, 45)
    assert peak(2, 45, vae_span="chunk") < peak(2, 45)
    # 22.4 GB were measured for the plain decoder at 1280x720 in FP16.
    assert 22.4 * GB < peak(2, 21, vae_span="chunk") < 45 * GB


def test_work_is_that_of_the_public_models():
    options = UpscaleOptions(resolution=720, chunk_frames=21, overlap=0, vae_span="clip")
    plan = plan_clip(PUBLIC, options, (360, 640), 0)
    seen = forecast(PUBLIC, plan, options, 21)
    assert seen.chunk_count == 1
    # 5.08 GFLOP a token in matrix products, and attention.
    assert seen.work.transform / 21_600 == pytest.approx(5.3e9, rel=0.02)
    assert seen.work.decode == pytest.approx(463e12, rel=0.01)
    assert seen.work.seconds(700e12) == pytest.approx((463 + 178) / 0.35 / 700 + 115 / 0.5 / 700, rel=0.05)
    twice = forecast(PUBLIC, plan, options, 41)
    assert twice.chunk_count == 2
    assert twice.work.transform == 2 * seen.work.transform
    assert twice.work.decode == pytest.approx(seen.work.decode * 41 / 21)


def test_frames_in_front_are_work_too_and_those_that_chunks_share_are_the_vaes_twice():
    def seen(span, overlap=0, prepend=0):
        options = UpscaleOptions(
            scale=1, chunk_frames=9, overlap=overlap, vae_span=span, prepend_frames=prepend, color="none"
        )
        return forecast(SMALL, plan_clip(SMALL, options, (64, 64), 0), options, 9)

    once, more = seen("clip"), seen("clip", prepend=12)
    assert (once.chunk_count, more.chunk_count) == (1, 3)
    assert more.work.transform == 3 * once.work.transform
    assert more.work.encode == pytest.approx(once.work.encode * 21 / 9)
    shared = seen("chunk", overlap=5, prepend=12)
    assert shared.chunk_count == 4
    assert shared.work.decode == pytest.approx(4 * once.work.decode)


def test_weights_on_the_device_from_a_header_and_from_a_model(tiny_vae):
    path = GOLDEN / "dit_tiny_3b.safetensors"
    vae_bytes = sum(p.nbytes for p in tiny_vae.parameters())
    for offload in (False, True):
        dit = load_dit(path, offload=offload)
        with open_checkpoint(path) as checkpoint:
            foreseen = device_bytes(checkpoint, TINY_DIT["3b"], torch.float32, offload=offload, packed=False)
        assert sizes_of(dit, tiny_vae).weights_bytes == pytest.approx(foreseen + vae_bytes, rel=0.01)
    assert sizes_of(build_tiny("3b"), tiny_vae).shares_device


def test_the_rate_of_a_matrix_product_is_that_of_a_computer():
    assert 1e8 < matrix_rate(torch.device("cpu"), torch.float32) < 1e14
