"""Small jobs: a clip, the small models or stand-ins for them, and units of a few frames."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from seedvr2_engine.jobs.job import Job, JobOptions
from seedvr2_engine.jobs.shot import Shot
from seedvr2_engine.loading import NANO_VAE
from seedvr2_engine.loading_dit import NANO_DIT
from seedvr2_engine.models.vae.config import VAEConfig
from seedvr2_engine.pipeline.options import UpscaleOptions
from seedvr2_engine.pipeline.setup import ModelFiles
from seedvr2_engine.pipeline.upscaler import Upscaler
from seedvr2_engine.video import SinkOptions, open_sink

from ..pipeline.golden_pipeline import EMPTY_TEXT, StubDiT, StubVAE
from ..pipeline.picture_cases import scene

FRAMES = 40
OPTIONS = UpscaleOptions(scale=1, chunk_frames=9, overlap=5, vae_span="clip", color="adain", input_noise=0.1)
SHOTS = (Shot(0, 22), Shot(22, FRAMES, "cut"))
UNIT_FRAMES = 8


def write_clip(path: Path, frames: int = FRAMES, seed: float = 0.0) -> Path:
    with open_sink(path, width=32, height=24, options=SinkOptions(codec="ffv1")) as sink:
        for index, frame in enumerate(scene(frames, 24, 32)):
            # Times that are not even, so that they are seen to be kept.
            sink.write((frame + seed) / (1 + seed), pts=index * 2 + index % 2 if sink.frames_written else 0)
    return path


def job(source: Path, target: Path, **changed: Any) -> Job:
    options = replace(OPTIONS, **changed.pop("options", {}))
    run = JobOptions(shots=changed.pop("shots", None), unit_frames=changed.pop("unit_frames", UNIT_FRAMES), **changed)
    return Job(str(source), target, ModelFiles(NANO_DIT, NANO_VAE, NANO_DIT), options, SinkOptions(), job=run)


class StandIn(StubVAE):
    """The stub with a memory of one latent, and a configuration."""

    config = VAEConfig()

    def stream_encode(self, frames, *, slice_frames, tile):
        before = None
        for latent in super().stream_encode(frames, slice_frames=slice_frames, tile=tile):
            yield latent if before is None else (latent + before) / 2
            before = latent


def stand_in(options: UpscaleOptions) -> Upscaler:
    """Models that take no time and forget soon."""
    upscaler = Upscaler(StubDiT(0.5), StandIn(), options, text=EMPTY_TEXT)
    upscaler.plan = lambda *_: None  # type: ignore[assignment]
    return upscaler


torch.set_num_threads(1)
