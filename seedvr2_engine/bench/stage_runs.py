"""The stages of an upscaling one by one, on a clip that is made up, so that each can be measured by itself."""

from __future__ import annotations

import torch
from torch import Tensor

from ..pipeline.chunks import latent_count
from ..pipeline.clip_stages import ClipStages, Models
from ..pipeline.options import UpscaleOptions
from ..pipeline.resize import ResizePlan


class StageRuns:
    """One chunk of 4n+1 frames; every stage works on what the stages before gave, or on random numbers like it."""

    def __init__(self, models: Models, options: UpscaleOptions, resize: ResizePlan, frames: int) -> None:
        self._stages = ClipStages(models, options, resize, None)
        generator = torch.manual_seed(0)
        base = torch.rand(3, *resize.source, generator=generator)
        self.source = [base.roll(3 * index, 2) for index in range(frames)]
        """The source frames (3, H, W) in [0, 1]."""
        self._device = models.vae.device
        height, width = resize.padded
        cell, channels = models.vae.config.spatial_compression, models.vae.config.latent_channels
        shape = latent_count(frames), height // cell, width // cell, channels
        self._latents = list(torch.randn(shape, generator=generator).to(self._device))
        self._pictures = [
            (torch.rand(3, *resize.output, generator=generator) * 2 - 1).to(self._device, models.vae.dtype)
        ] * frames

    def encode(self) -> list[Tensor]:
        """Source frames to latents, resampling included."""
        return list(self._stages.encode(self._stages.model_inputs(self.source)))

    def transform(self) -> Tensor:
        """Latents to clean latents, noise included."""
        return self._stages.restore(self._latents, range(len(self._latents)))

    def decode(self) -> None:
        """Latents to pictures, which are dropped."""
        for _ in self._stages.decode(self._latents):
            pass

    def color(self) -> None:
        """Pictures to pictures in their source's colours."""
        for _ in self._stages.finish(self._pictures, self.source):
            pass
