"""How long an upscaling will take, before its models are loaded: from the arithmetic that is to be done."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from ..device import DeviceSpec
from ..models.dit.model import NaDiT
from ..models.dit.sampler import LAST_TIMESTEP
from ..models.vae.model import VideoVAE
from ..plan import VAEShape, compile_vae_plan
from ..plan.choices import choose_precision
from ..plan.coverage import PARTS
from ..plan.dit.memory import weight_bytes
from ..plan.dit.roofline import Chunk, choose_transformer_format, transformer_time
from ..plan.roofline import roofline
from ..quant import QuantRecipe
from .chunks import chunk_spans, latent_count, padded_count
from .memory import ClipPlan, Sizes
from .options import UpscaleOptions
from .resize import ResizePlan
from .setup import Setup

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
    """What a whole clip will take of a device's time."""

    chunk_count: int
    work: Work


def forecast(sizes: Sizes, plan: ClipPlan, options: UpscaleOptions, frames: int) -> Forecast:
    """What a clip of so many frames takes when it is cut by this plan."""
    total = frames + options.prepend_frames
    chunk_frames = plan.division.shortened(total).chunks.chunk_frames
    count = sum(1 for _ in chunk_spans(padded_count(total), plan.division.chunks))
    one = _chunk_work(sizes, plan.resize, chunk_frames)
    # The VAE passes every frame once, or those that chunks share twice.
    vae_chunks = count if plan.division.vae_span == "chunk" else padded_count(total) / chunk_frames
    return Forecast(count, Work(one.encode * vae_chunks, one.transform * count, one.decode * vae_chunks))


@dataclass(frozen=True)
class PaperTime:
    """What a clip takes on a GPU by its rates on paper."""

    vae_format: str
    """Of the VAE's convolutions."""
    dit_format: str
    """Of the transformer's products; `auto` means the first that the GPU has, which weights need not bear."""
    dit_weight_bytes: int
    """Of the transformer with its blocks' matrices in that format."""
    encode_s: float
    transform_s: float
    decode_s: float

    @property
    def seconds(self) -> float:
        """All of it; reading, colours and writing left out."""
        return self.encode_s + self.transform_s + self.decode_s


def paper_time(setup: Setup, plan: ClipPlan, options: UpscaleOptions, frames: int, gpu: DeviceSpec) -> PaperTime | None:
    """The time of a clip by rooflines; None where the plain VAE would serve, or a rate is not known.

    Raises InvalidArgumentError for a format that is not computed there.
    """
    formats, sizes = setup.formats, setup.sizes
    format = choose_transformer_format(formats.dit_precision, gpu)
    vae_format = choose_precision(formats.precision, gpu).format
    if not formats.uses_engine or vae_format is None or plan.engine_bytes is None:
        return None
    total = frames + options.prepend_frames
    by_chunks = plan.division.vae_span == "chunk"
    count = sum(1 for _ in chunk_spans(padded_count(total), plan.division.chunks))
    chunk_frames = plan.division.shortened(total).chunks.chunk_frames
    height, width = plan.resize.padded
    cell = sizes.vae.spatial_compression
    chunk = Chunk(latent_count(chunk_frames), height // cell, width // cell)
    transform = transformer_time(sizes.dit, chunk, format, gpu, offload=setup.dit.offload)
    seen = chunk_frames if by_chunks else padded_count(total)
    spent = []
    for part in PARTS:
        shape = VAEShape(part, height, width, seen)
        times = roofline(compile_vae_plan(sizes.vae, QuantRecipe(vae_format), gpu, shape, plan.engine_bytes), gpu)
        if times is None or transform is None:
            return None
        spent.append(times.clip_ms(seen) / 1e3 * (count if by_chunks else 1))
    decode_s, encode_s = spent
    assert transform is not None
    weights = weight_bytes(sizes.dit, format)
    return PaperTime(vae_format, format, weights, encode_s, count * transform.ms / 1e3, decode_s)


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
    cell = sizes.vae.spatial_compression
    latent_size = latent_count(frames), height // cell, width // cell
    with torch.device("meta"):
        vae, dit = VideoVAE(sizes.vae), NaDiT(sizes.dit)
        pictures = torch.empty(1, 3, frames, height, width)
        latent = torch.empty(1, sizes.vae.latent_channels, *latent_size)
        video = torch.empty(*latent_size, sizes.dit.in_channels)
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
