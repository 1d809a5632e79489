"""How much memory an upscaling takes, and the longest chunks that fit; estimates from shapes alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import cast

import torch

from ..color.methods import SLICE_METHODS
from ..engine.served_vae import engine_of, plain_weights
from ..models.dit.config import DiTConfig
from ..models.dit.model import NaDiT
from ..models.vae.causal import CausalConv3d
from ..models.vae.config import VAEConfig
from ..models.vae.model import DownBlock, UpBlock, VideoVAE
from ..plan.dit.memory import activation_bytes
from .chunks import STEP_FRAMES, ChunkPlan, latent_count, padded_count
from .options import UpscaleOptions, VaeSpan
from .reconstruct import VideoCodec
from .resize import TOKEN_PX, ResizePlan, Size

LONGEST_CHUNK_FRAMES = 45
"""Longer chunks gain little: the frames that neighbours share are a ninth of these."""
SHORTEST_CHUNK_FRAMES = 5
WORTHWHILE_CHUNK_FRAMES = 21
"""Chunks that the transformer must be left with for the VAE to see the clip as one."""
USABLE_SHARE = 0.8
"""Share of a device's memory that is planned with; the rest is for the context, fragmentation and other programs."""

ENGINE_SHARE = 0.35
"""Share of a device's memory that the engine is left in any case; with less it works, but more slowly."""
ENGINE_USABLE_SHARE = 0.9

# Copies of the widest full-resolution activation that the plain VAE holds at once; measured on an H200 as the peak of
# `python -m benchmarks.plain_vae` (22.4 GB at 1280x720, slices of 4, FP16, 256 channels).
PLAIN_VAE_COPIES = 9.5
_CURVE_BYTES = {"lab": 75 << 20, "hsv": 300 << 20, "wavelet_adaptive": 300 << 20}
_COLOR_PLANES = 40  # FP32 planes of a frame that colour correction holds at once


@dataclass(frozen=True)
class Sizes:
    """What the memory of an upscaling follows from."""

    vae: VAEConfig
    dit: DiTConfig
    vae_element_bytes: int
    """Bytes of a number in the VAE."""
    dit_element_bytes: int
    """Bytes of a number in the transformer."""
    weights_bytes: int
    """Weights of both models, as they lie on the device."""
    shares_device: bool = True
    """Whether both models are on one device."""
    vae_plans_itself: bool = False
    """Whether the engine serves as the VAE, which makes do with what it is left and counts its own weights."""


@dataclass(frozen=True)
class ClipMemory:
    """Bytes on the device of the VAE."""

    weights_bytes: int
    vae_bytes: int
    """Activations of the encoder or decoder, for a slice of time; 0 for the engine, see `ClipPlan.engine_bytes`."""
    transformer_bytes: int
    """Activations of the transformer, for a chunk."""
    frames_bytes: int
    """Decoded frames of a chunk that wait for their colours, and those that neighbouring chunks share."""

    @property
    def peak_bytes(self) -> int:
        """The most at a time; the two models do not work at once."""
        return self.weights_bytes + self.frames_bytes + max(self.vae_bytes, self.transformer_bytes)


def sizes_of(dit: NaDiT, vae: VideoCodec) -> Sizes:
    """The sizes of two models as they are loaded; weights that are kept elsewhere do not count."""
    tensors = [*dit.parameters(), *dit.buffers(), *plain_weights(vae)]
    return Sizes(
        vae=vae.config,
        dit=dit.config,
        vae_element_bytes=vae.dtype.itemsize,
        dit_element_bytes=dit.dtype.itemsize,
        weights_bytes=sum(tensor.nbytes for tensor in tensors if tensor.device == vae.device) + dit.resident_bytes,
        shares_device=dit.device == vae.device,
        vae_plans_itself=engine_of(vae) is not None,
    )


@dataclass(frozen=True)
class Division:
    """How clips are cut."""

    chunks: ChunkPlan
    vae_span: VaeSpan
    """What the VAE sees as one."""

    def shortened(self, frames: int) -> Division:
        """The same for a clip of so many frames, which may be fewer than a chunk has."""
        length = min(self.chunks.chunk_frames, padded_count(max(1, frames)))
        return replace(
            self, chunks=replace(self.chunks, chunk_frames=length, overlap=min(self.chunks.overlap, length - 1))
        )


@dataclass(frozen=True)
class ClipPlan:
    """How clips of one size are cut, and with which memory: what `--plan` says of a run, and what the run goes by."""

    resize: ResizePlan
    """The sizes of their frames."""
    division: Division
    """How they are cut; a short clip may be a part of a chunk."""
    memory: ClipMemory
    """What they are expected to take on the device."""
    device_bytes: int
    """The memory of the VAE's device, all of it."""
    engine_bytes: int | None
    """What the engine plans with beside a transformer with whole chunks; None where the plain VAE serves."""

    @property
    def needed_bytes(self) -> int:
        """What is to be free on the device, the engine's part included."""
        peak_bytes = self.memory.peak_bytes
        return peak_bytes if self.engine_bytes is None else min(peak_bytes + self.engine_bytes, self.device_bytes)


def plan_clip(
    sizes: Sizes, options: UpscaleOptions, source: Size, device_bytes: int, frames: int | None = None
) -> ClipPlan:
    """Cut clips of (height, width) in pixels as asked for, and otherwise so that the estimate is within the memory.

    device_bytes: the device's whole memory and not what is free at the moment, so that results do not depend on what
    else runs. frames: how many a clip has, where the estimate is for one that may be shorter than a chunk.
    """
    resize = options.resize(source)
    division = fitting_division(sizes, resize, options, device_bytes)
    whole = memory = estimate_memory(sizes, resize, options, division)
    if frames is not None:
        shortened = division.shortened(frames + options.prepend_frames)
        memory = estimate_memory(sizes, resize, options, shortened)
    engine_bytes = engine_budget_bytes(whole, device_bytes) if sizes.vae_plans_itself else None
    return ClipPlan(resize, division, memory, device_bytes, engine_bytes)


def limit_engine(vae: VideoCodec, plan: ClipPlan) -> None:
    """Have the engine, if it serves, plan with what the transformer leaves of the memory."""
    engine = engine_of(vae)
    if engine is not None and plan.engine_bytes is not None:
        engine.limit(plan.engine_bytes)


def asked_division(options: UpscaleOptions) -> Division | None:
    """The division where nothing is left open; None where it depends on the memory."""
    if options.chunk_frames is None or options.vae_span is None:
        return None
    return Division(options.chunks(options.chunk_frames), options.vae_span)


def fitting_division(sizes: Sizes, resize: ResizePlan, options: UpscaleOptions, memory_bytes: int) -> Division:
    """The division as asked for, and otherwise so that the estimate is within so much memory of the VAE's device.

    The plain VAE sees the whole clip if that leaves room for chunks as asked for, or of 21 frames; the engine always.
    What is left open takes its smallest value where nothing fits.
    """
    smallest = options.chunk_frames or max(SHORTEST_CHUNK_FRAMES, padded_count((options.overlap or 0) + 1))
    # The engine keeps a clip's past within what it is given.
    span = options.vae_span or ("clip" if sizes.vae_plans_itself else None)
    if span is None:
        division = _longest(sizes, resize, options, "clip", memory_bytes)
        if division is not None and division.chunks.chunk_frames >= _worthwhile_frames(options):
            return division
        span = "chunk"
    return _longest(sizes, resize, options, span, memory_bytes) or Division(options.chunks(smallest), span)


def estimate_memory(sizes: Sizes, resize: ResizePlan, options: UpscaleOptions, division: Division) -> ClipMemory:
    """What clips of this size take when they are cut like this."""
    height, width = resize.padded
    pixels = height * width
    seen = pixels if options.tile is None else min(pixels, options.tile.sizes_px[0] * options.tile.sizes_px[1])
    channels = max(sizes.vae.block_out_channels[:2])
    slice_numbers = (options.slice_frames + 1) * sizes.vae_element_bytes
    chunk_frames, overlap = division.chunks.chunk_frames, division.chunks.overlap
    waiting = chunk_frames if options.color in SLICE_METHODS else 0
    output = resize.output[0] * resize.output[1] * 3
    past_encoder, past_decoder = (n * pixels * sizes.vae_element_bytes for n in past_per_pixel(sizes.vae))
    keeps_past = division.vae_span == "clip" and not sizes.vae_plans_itself
    return ClipMemory(
        weights_bytes=sizes.weights_bytes,
        vae_bytes=0
        if sizes.vae_plans_itself
        else round(seen * channels * slice_numbers * PLAIN_VAE_COPIES + keeps_past * past_encoder),
        transformer_bytes=_transformer_bytes(sizes, pixels, chunk_frames) * sizes.shares_device
        + round(keeps_past * (past_encoder + past_decoder)),
        frames_bytes=output * (waiting * sizes.vae_element_bytes + overlap * 4)
        + output // 3 * _COLOR_PLANES * 4
        + _CURVE_BYTES.get(options.color, 0),
    )


def engine_budget_bytes(estimate: ClipMemory, memory_bytes: int) -> int:
    """What the engine may plan with beside a transformer that takes so much, on a device with so much memory."""
    taken = estimate.weights_bytes + estimate.transformer_bytes + estimate.frames_bytes
    return max(round(ENGINE_SHARE * memory_bytes), round(ENGINE_USABLE_SHARE * memory_bytes) - taken)


@lru_cache(maxsize=4)
def past_per_pixel(config: VAEConfig) -> tuple[float, float]:
    """Numbers that the causal caches of encoder and decoder hold, for each pixel of a frame."""
    # Counted and not run on the meta device, for which PyTorch imports its compiler: seconds before the first frame.
    edge = 64
    with torch.device("meta"):
        vae = VideoVAE(config)
    encoder, decoder, lowest = vae.encoder, vae.decoder, edge // config.spatial_compression
    into = _past(encoder.conv_in, edge) + _past(encoder.mid_block, lowest) + _past(encoder.conv_out, lowest)
    for level, down in enumerate(cast(Iterable[DownBlock], encoder.down_blocks)):
        # What halves the size remembers its frames with the row and column that it adds.
        into += _past(down.resnets, edge >> level) + _past(down.downsamplers, (edge >> level) + 1)
    back = _past(decoder.conv_in, lowest) + _past(decoder.mid_block, lowest) + _past(decoder.conv_out, edge)
    for level, up in enumerate(cast(Iterable[UpBlock], decoder.up_blocks)):
        back += _past(up.resnets, lowest << level) + _past(up.upsamplers, lowest << level + 1)
    return into / edge**2, back / edge**2


def _past(layers: torch.nn.Module, edge_px: int) -> int:
    """Numbers that the convolutions remember of frames so many pixels high and wide."""
    convs = (layer for layer in layers.modules() if isinstance(layer, CausalConv3d))
    return sum(conv.in_channels * (conv.kernel_size[0] - conv.stride[0]) for conv in convs) * edge_px**2


def _longest(
    sizes: Sizes, resize: ResizePlan, options: UpscaleOptions, span: VaeSpan, memory_bytes: int
) -> Division | None:
    """The longest chunks that fit, from 45 frames down to 5, or those asked for; None if there are none."""
    least = max(SHORTEST_CHUNK_FRAMES, padded_count((options.overlap or 0) + 1))
    lengths = range(max(LONGEST_CHUNK_FRAMES, least), least - 1, -STEP_FRAMES)
    for frames in lengths if options.chunk_frames is None else (options.chunk_frames,):
        division = Division(options.chunks(frames), span)
        if _fits(sizes, estimate_memory(sizes, resize, options, division), span, memory_bytes):
            return division
    return None


def _worthwhile_frames(options: UpscaleOptions) -> int:
    return 1 if options.chunk_frames is not None else WORTHWHILE_CHUNK_FRAMES


def _fits(sizes: Sizes, estimate: ClipMemory, span: VaeSpan, memory_bytes: int) -> bool:
    room = USABLE_SHARE * memory_bytes - estimate.weights_bytes - estimate.frames_bytes
    if sizes.vae_plans_itself:
        return estimate.transformer_bytes <= room - ENGINE_SHARE * memory_bytes
    # What the VAE takes for a slice is the same in chunks of any length.
    return estimate.transformer_bytes <= room and (span == "chunk" or estimate.vae_bytes <= room)


def _transformer_bytes(sizes: Sizes, pixels: int, chunk_frames: int) -> int:
    return activation_bytes(sizes.dit, sizes.dit_element_bytes, latent_count(chunk_frames) * pixels // TOKEN_PX**2)
