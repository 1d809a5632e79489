"""Work that begins in the midst of a clip gives the numbers of a run through the whole clip."""

import pytest
import torch

from seedvr2_engine.jobs.units import entry as entries
from seedvr2_engine.jobs.units.entry import (
    DECODE_WARM_UP_LATENTS,
    ENCODE_WARM_UP_LATENTS,
    entry_at,
    first_frames,
)
from seedvr2_engine.loading import NANO_VAE, load_vae
from seedvr2_engine.pipeline.chunks import ChunkPlan, chunk_count, chunk_spans
from seedvr2_engine.pipeline.memory import Division
from seedvr2_engine.pipeline.options import UpscaleOptions
from seedvr2_engine.pipeline.upscaler import Upscaler

from ..pipeline.test_upscaler import clip, stub


def entered(upscaler: Upscaler, frames, chunk, **named):
    division = upscaler.division(tuple(frames[0].shape[1:]))
    entry = entry_at(chunk, division, upscaler.options, len(frames))
    begin = first_frames(division, upscaler.options, len(frames))[chunk]
    return begin, entry, list(upscaler.upscale(frames[entry.first_frame :], entry=entry, **named))


@pytest.mark.parametrize(
    "options",
    [
        {"color": "lab"},
        {"color": "lab", "vae_span": "chunk"},
        {"color": "wavelet", "prepend_frames": 6, "input_noise": 0.3, "overlap": 7},
        {"color": "wavelet", "prepend_frames": 6, "input_noise": 0.3, "vae_span": "chunk"},
        {"color": "none", "noise": "reference", "input_noise": 0.3, "latent_noise": 0.2, "vae_span": "chunk"},
        {"color": "adain", "noise": "reference", "input_noise": 0.3, "overlap": 0},
    ],
)
def test_every_chunk_can_be_the_first(options, monkeypatch):
    monkeypatch.setattr(entries, "DECODE_WARM_UP_LATENTS", 1)
    monkeypatch.setattr(entries, "ENCODE_WARM_UP_LATENTS", 1)
    upscaler, frames = stub(noise_share=0.5, **options), clip(43)
    transfer = 16 if options["color"] == "wavelet" else 2
    whole = list(upscaler.upscale(frames, transfer=transfer))
    division = upscaler.division((20, 28))
    count = len(first_frames(division, upscaler.options, 43))
    reads = []
    for chunk in (1, count // 2, count - 2, count - 1):
        begin, entry, part = entered(upscaler, frames, chunk, transfer=transfer)
        reads.append(entry.first_frame)
        if begin >= 0:
            assert len(part) == len(whole) - begin
            assert torch.equal(torch.stack(part), torch.stack(whole[begin:])), chunk
    assert reads[-1] > 0  # What a chunk does not need is not read.


def test_what_alpha_is_follows_from_the_first_frames_of_the_clip():
    """Later ones have grey alpha, which alone would not be a mask."""
    frames = [
        torch.cat([f[:3], torch.full_like(f[:1], float(i < 9) if i < 12 else 0.5)]) for i, f in enumerate(clip(43))
    ]
    for span in ("clip", "chunk"):
        upscaler = stub(vae_span=span)
        whole = list(upscaler.upscale(frames))
        begin, entry, part = entered(upscaler, frames, 6, opening=frames[:20])
        assert torch.equal(torch.stack(part), torch.stack(whole[begin:]))
        assert not entry.is_start


def test_counted_chunks_are_those_that_are_made():
    for frames, overlap in ((1, 0), (5, 0), (5, 1), (9, 5), (13, 7)):
        plan = ChunkPlan(frames, overlap)
        for total in range(1, 60):
            assert chunk_count(total, plan) == sum(1 for _ in chunk_spans(total, plan))


def test_frames_put_before_a_clip_begin_no_chunk():
    options = UpscaleOptions(prepend_frames=12)
    division = Division(ChunkPlan(5, 1), "chunk")
    assert first_frames(division, options, 10) == [-1, -1, -1, 0, 4, 8]
    assert entry_at(3, division, options, 10).is_start


def test_the_small_vae_forgets_what_came_before():
    """To the bit after as many latents as a plan warms up with, and not a few earlier."""
    torch.set_num_threads(1)
    vae, frames = load_vae(NANO_VAE), [frame[None] * 2 - 1 for frame in clip(4 * 44 + 1, 16, 32)]
    latents = list(vae.stream_encode(frames))
    later = list(vae.stream_encode(frames[4 * 2 :]))
    assert torch.equal(torch.stack(later[ENCODE_WARM_UP_LATENTS:]), torch.stack(latents[2 + ENCODE_WARM_UP_LATENTS :]))
    assert not torch.equal(later[ENCODE_WARM_UP_LATENTS - 6], latents[2 + ENCODE_WARM_UP_LATENTS - 6])
    pictures = list(vae.stream_decode(latents))
    later = list(vae.stream_decode(latents[2:]))
    after = 4 * DECODE_WARM_UP_LATENTS - 3
    assert torch.equal(torch.stack(later[after:]), torch.stack(pictures[4 * 2 + after :]))
    assert not torch.equal(later[after - 16], pictures[4 * 2 + after - 16])
