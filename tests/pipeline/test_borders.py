"""The borders between chunks cannot be seen: the picture changes there no more than inside a chunk."""

import pytest
import torch

from seedvr2_engine import load_vae
from seedvr2_engine.models.dit.model import NaDiT
from seedvr2_engine.pipeline.chunks import ChunkPlan
from seedvr2_engine.pipeline.options import UpscaleOptions
from seedvr2_engine.pipeline.upscaler import Upscaler
from seedvr2_engine.quality.compare import ClipMeter

from ..models.dit.dit_cases import TINY, tiny_weights

FRAMES, BORDER_LIMIT = 120, 1.1


class Restless(NaDiT):
    """Leaves latents nearly as they are, but for an error that depends on all frames in the attention windows."""

    def velocity(self, video, geometry, conditioning):
        noisy, condition, _ = video.split([16, 16, 1], dim=-1)
        error = super().velocity(video, geometry, conditioning)
        return noisy - condition - 0.1 * torch.tanh(error)


def moving_clip() -> list[torch.Tensor]:
    """Waves that drift over a ground which grows brighter."""
    rows, columns = torch.meshgrid(torch.arange(32.0), torch.arange(48.0), indexing="ij")
    frames = []
    for index in range(FRAMES):
        waves = [((rows * (1 + c) + columns * (2 - c) + 2 * index) / 9).sin() for c in range(3)]
        frames.append((torch.stack(waves) * 0.2 + 0.4 + 0.1 * (columns + index) / (48 + FRAMES)).clamp(0, 1))
    return frames


def worst_jump(overlap: int, span: str) -> float:
    dit = Restless(TINY["3b"])
    dit.load_state_dict(tiny_weights("3b"))
    options = UpscaleOptions(scale=1, chunk_frames=25, overlap=overlap, vae_span=span)
    text = torch.randn(7, 64, generator=torch.manual_seed(0))
    upscaler = Upscaler(dit.requires_grad_(False), load_vae("nano"), options, text=text)
    meter = ClipMeter()
    for frame in upscaler.upscale(moving_clip()):
        meter.add(frame)
    jumps = meter.measures(ChunkPlan(25, overlap)).border_jumps
    assert len(jumps) == {5: 5, 0: 4}[overlap]
    return max(jumps)


@pytest.mark.slow
def test_no_border_of_a_moving_clip_is_visible():
    assert worst_jump(5, "clip") <= BORDER_LIMIT


@pytest.mark.slow
def test_chunks_that_share_nothing_would_be_noticed():
    assert worst_jump(0, "chunk") > BORDER_LIMIT
