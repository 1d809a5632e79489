"""What an upscaling will take, before its models are loaded: memory from shapes, time from arithmetic to be done."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch.utils.flop_counter import FlopCounterMode

from ..models.dit.model import NaDiT
from ..models.dit.sampler import LAST_TIMESTEP
from ..models.vae.model import VideoVAE
from .chunks import chunk_spans, padded_count
from .memory import Division, MemoryEstimate, Sizes, estimate_memory, fitting_division
from .options import UpscaleOptions
from .resize import ResizePlan

# Shares of the rate of a large matrix product at which the networks run. Measured on an H200 (PyTorch 2.11): 0.39 for
# decoding and 0.32 for encoding 1280x720 with the plain VAE in BF16; on two cores of an EPYC in FP32 0.3 to 0.45.
_VAE_SHARE, _DIT_SHARE = 0.35, 0.5
_PROBE_SIZE = {"cpu": 768, "cuda": 8192}
_PROBES = 3


@dataclass(frozen=True)
class Work:
    """Floating-point operations of a whole clip."""

    encode: float
    transform: float
    decode: float

    def seconds(self, flop_per_s: float) -> float:
        """A rough time on a device whose matrix products run at this rate; reading, colours and writing left out."""
        return ((self.encode + self.decode) / _VAE_SHARE + self.transform / _DIT_SHARE) / flop_per_s


@dataclass(frozen=True)
class Forecast:
    """What one clip will take."""

    resize: ResizePlan
    division: Division
    chunk_count: int
    memory: MemoryEstimate
    work: Work


def forecast(sizes: Sizes, resize: ResizePlan, options: UpscaleOptions, *, frames: int, memory_bytes: int) -> Forecast:
    """What a clip of so many frames takes. memory_bytes: of the device, for the length of chunks if that is open."""
    total = frames + options.prepend_frames
    division = fitting_division(sizes, resize, options, memory_bytes)
    plan = division.chunks
    taken = padded_count(min(total, plan.chunk_frames))
    chunk_frames = min(plan.chunk_frames, taken)
    count = sum(1 for _ in chunk_spans(padded_count(total), plan))
    one = _chunk_work(sizes, resize, chunk_frames)
    # The VAE passes every frame once, or those that chunks share twice.
    vae_chunks = count if division.vae_span == "chunk" else padded_count(total) / chunk_frames
    fitted = replace(division, chunks=replace(plan, chunk_frames=chunk_frames, overlap=min(plan.overlap, taken - 1)))
    return Forecast(
        resize=resize,
        division=division,
        chunk_count=count,
        memory=estimate_memory(sizes, resize, options, fitted),
        work=Work(one.encode * vae_chunks, one.transform * count, one.decode * vae_chunks),
    )


def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP a second of a large matrix product, measured now; takes some tenths of a second."""
    size = _PROBE_SIZE.get(device.type, 2048)
    a = torch.randn(size, size, device=device).to(dtype)

    def once() -> float:
        _finish(device)
        began = time.perf_counter()
        a @ a
        _finish(device)
        return time.perf_counter() - began

    once()
    return 2 * size**3 / min(once() for _ in range(_PROBES))


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _chunk_work(sizes: Sizes, resize: ResizePlan, frames: int) -> Work:
    """Count on the meta device, where nothing is computed."""
    height, width = resize.padded
    latents = (frames - 1) // 4 + 1
    with torch.device("meta"):
        vae, dit = VideoVAE(sizes.vae), NaDiT(sizes.dit)
        pictures = torch.empty(1, 3, frames, height, width)
        latent = torch.empty(1, 16, latents, height // 8, width // 8)
        video = torch.empty(latents, height // 8, width // 8, sizes.dit.in_channels)
        text = torch.empty(1, sizes.dit.text_width)
    return Work(
        encode=_count(lambda: vae.encode(pictures)),
        transform=_count(lambda: dit(video, text, LAST_TIMESTEP)),
        decode=_count(lambda: vae.decode(latent)),
    )


def _count(run: Callable[[], object]) -> float:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        run()
    return float(counter.get_total_flops())
