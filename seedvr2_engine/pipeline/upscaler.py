"""From a clip to a larger one: frames in, frames out, in memory that depends on a chunk and not on the clip.

A chunk of 4n+1 frames is resized, encoded, restored by one step of the transformer, decoded, and given its source's
colours; neighbouring chunks share frames and are cross-faded. Source of the order of work: the public reference's
`src/core/generation_phases.py`, whose phases each go over the whole clip.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Literal

import torch
from torch import Tensor

from ..errors import InvalidArgumentError
from ..models.dit import Conditioning, NaDiT
from ..models.geometry import Geometry
from ..models.sampler import LAST_TIMESTEP, dit_input, noise_condition, sample
from ..models.vae import VideoVAE
from .alpha import is_mask, upscale_alpha
from .chunks import Chunk, ChunkPlan, chunked, joined, prepend_mirrored
from .clip_noise import ClipNoise, with_noise
from .color import SLICE_METHODS, correct_frame, measure_curves
from .memory import chunk_frames_that_fit
from .options import UpscaleOptions
from .resize import ResizePlan, crop_to_output, to_model_input

LATENT_SCALE = 0.9152
"""The transformer's latents are the VAE's times this. Source: ByteDance-Seed/SeedVR, `configs_3b/main.yaml`."""

Stage = Literal["encode", "transform", "decode", "color"]


@dataclass(frozen=True)
class Progress:
    """How far one stage has come."""

    stage: Stage
    """What the frames have passed, or `transform` also when it begins with them."""
    frames: int
    """Frames of the clip, from its first, that have passed this stage."""


ProgressCallback = Callable[[Progress], None]
"""Called after every frame of a stage; raise from it to cancel."""


class Upscaler:
    """Upscales clips and pictures with one pair of models; keeps nothing of one clip for the next."""

    def __init__(self, dit: NaDiT, vae: VideoVAE, options: UpscaleOptions | None = None, *, text: Tensor) -> None:
        """Compute what follows from the text alone. text: the embedding (tokens, text width) that the model runs with.

        dit, vae: models that belong together, each on its device and in its number format.
        """
        self.dit = dit
        self.vae = vae
        self.options = options or UpscaleOptions()
        self._conditioning: Conditioning = dit.conditioning(text, LAST_TIMESTEP)
        self._text_tokens = len(text)

    def resize_plan(self, source: tuple[int, int]) -> ResizePlan:
        """The sizes for a source of (height, width) in pixels."""
        return self.options.resize(source)

    def chunk_plan(self, resize: ResizePlan) -> ChunkPlan:
        """How clips of this size are cut: as asked for, or in the longest chunks that fit into free memory."""
        if self.options.chunk_frames is not None:
            return self.options.chunks(self.options.chunk_frames)
        return self.options.chunks(chunk_frames_that_fit(self.dit, self.vae, resize, self.options))

    @torch.no_grad()
    def upscale(self, frames: Iterable[Tensor], on_progress: ProgressCallback | None = None) -> Iterator[Tensor]:
        """Upscale frames (3, H, W), or (4, H, W) with alpha, in [0, 1]; yields as many, clamped, FP32 on the CPU.

        Frames are taken as chunks need them. All must have one shape (InvalidArgumentError). Whether alpha is a mask
        is decided on the first chunk. The same frames, options and device give the same numbers.
        """
        stream = iter(frames)
        first = next(stream, None)
        if first is None:
            return
        clip = _Clip(self, first, on_progress)
        source = prepend_mirrored(_checked(chain([first], stream)), clip.prepended)
        # The context before a chunk is gone by the time its frames are joined.
        results = ((replace(chunk.span, lead=0), clip.upscaled(chunk)) for chunk in chunked(source, clip.plan))
        for frame in islice(joined(results, clip.plan.overlap), clip.prepended, None):
            yield frame.cpu()

    @torch.no_grad()
    def restore(self, latents: Tensor, noises: tuple[Tensor, Tensor], geometry: Geometry) -> Tensor:
        """Low-quality latents (T, h, w, 16), scaled, to clean ones by one step, float32 on the transformer's device.

        noises: where sampling starts, and the noise on the condition, both of the latents' shape.
        """
        condition = noise_condition(latents, noises, self.options.latent_noise)

        def velocity(noisy: Tensor, _timestep: float) -> Tensor:
            return self.dit.velocity(dit_input(noisy, condition), geometry, self._conditioning).float()

        return sample(velocity, noises[0])

    def geometry(self, shape: tuple[int, ...]) -> Geometry:
        """The windows and rotations for latents (T, h, w)."""
        return self.dit.geometry(shape, self._text_tokens)


class _Clip:
    """One clip on its way: its sizes, its noise, and what its first chunk decided."""

    def __init__(self, upscaler: Upscaler, first: Tensor, on_progress: ProgressCallback | None) -> None:
        _check_frame(0, first, first)
        options = upscaler.options
        self.prepended = options.prepend_frames
        self._upscaler = upscaler
        self._options = options
        self._vae = upscaler.vae
        self._device = upscaler.vae.device
        self._resize = upscaler.resize_plan((first.shape[1], first.shape[2]))
        self.plan = upscaler.chunk_plan(self._resize)
        self._noise = ClipNoise(options.seed, options.noise, upscaler.dit.device)
        self._picture_noise = ClipNoise(options.seed, options.noise, self._device)
        self._geometries: dict[tuple[int, ...], Geometry] = {}
        self._is_mask: bool | None = None
        self._on_progress = on_progress or (lambda _: None)

    def upscaled(self, chunk: Chunk[Tensor]) -> Iterator[Tensor]:
        """The frames of a chunk whose results are used, (3 or 4, H, W) in [0, 1], on the VAE's device."""
        span = chunk.span
        latents = self._encode(chunk)
        self._report("transform", span.start)
        clean = self._restore(latents, chunk)
        self._report("transform", span.stop)
        own = chunk.frames[span.lead : span.lead + span.frames]
        content: Iterable[Tensor] = islice(self._decode(clean, chunk), span.lead, span.lead + span.frames)
        if self._options.color in SLICE_METHODS:
            content = list(content)
        curves = measure_curves(
            ((picture, self._style(frame)) for picture, frame in zip(content, own, strict=True)), self._options.color
        )
        if own[0].shape[0] == 4 and self._is_mask is None:
            self._is_mask = is_mask(torch.stack([frame[3] for frame in own]))
        for count, (picture, frame) in enumerate(zip(content, own, strict=True), start=1):
            colored = correct_frame(picture, self._style(frame), self._options.color, curves)
            out = (colored * 0.5 + 0.5).clamp(0, 1)
            self._report("color", span.start + count)
            yield out if frame.shape[0] == 3 else torch.cat([out, self._alpha(frame, picture)])

    def _encode(self, chunk: Chunk[Tensor]) -> Tensor:
        """Latents (T, h, w, 16), scaled, float32."""
        begin = chunk.span.start - chunk.span.lead
        pictures: Iterator[Tensor] = (self._model_input(frame)[0] for frame in chunk.frames)
        if self._options.input_noise:
            numbers = range(begin, begin + len(chunk.frames))
            drawn = self._picture_noise.of_pictures(numbers, self._resize.padded)
            pictures = with_noise(pictures, drawn, self._options.input_noise)

        def counted() -> Iterator[Tensor]:
            for count, picture in enumerate(pictures):
                if count:
                    self._report("encode", min(begin + count, chunk.span.stop))
                yield picture[None]

        encoded = self._vae.stream_encode(counted(), slice_frames=self._options.slice_frames, tile=self._options.tile)
        latents = torch.cat(list(encoded)).movedim(1, -1).float() * LATENT_SCALE
        self._report("encode", chunk.span.stop)
        return latents

    def _restore(self, latents: Tensor, chunk: Chunk[Tensor]) -> Tensor:
        dit = self._upscaler.dit
        shape = tuple(latents.shape[:3])
        if shape not in self._geometries:
            self._geometries = {shape: self._upscaler.geometry(shape)}
        noises = self._noise.of_latents(chunk.latents, (shape[1], shape[2]), latents.shape[3], dit.dtype)
        return self._upscaler.restore(latents.to(dit.device), noises, self._geometries[shape])

    def _decode(self, latents: Tensor, chunk: Chunk[Tensor]) -> Iterator[Tensor]:
        """Pictures (3, H, W), cropped to the output's size, in the VAE's dtype; context and padding included."""
        begin = chunk.span.start - chunk.span.lead
        unscaled = (latents / LATENT_SCALE).movedim(-1, 1).to(self._device)
        decoded = self._vae.stream_decode(
            unscaled.split(1), slice_frames=self._options.slice_frames, tile=self._options.tile
        )
        for count, frame in enumerate(decoded, start=1):
            self._report("decode", min(begin + count, chunk.span.stop))
            yield crop_to_output(frame[0], self._resize)

    def _model_input(self, frame: Tensor) -> Tensor:
        """A source frame as the model takes it: (1, 3, *padded) in [-1, 1] on the VAE's device."""
        return to_model_input(frame[None, :3].to(self._device, non_blocking=True), self._resize)

    def _style(self, frame: Tensor) -> Tensor:
        # Made anew from the source frame rather than kept: it is cheap, and as large as the result.
        return crop_to_output(self._model_input(frame)[0], self._resize)

    def _alpha(self, frame: Tensor, picture: Tensor) -> Tensor:
        alpha = frame[None, 3:].to(self._device)
        return upscale_alpha(alpha, picture[None], self._resize.resized, mask=bool(self._is_mask))[0]

    def _report(self, stage: Stage, frames: int) -> None:
        self._on_progress(Progress(stage, max(0, frames - self.prepended)))


def _checked(frames: Iterable[Tensor]) -> Iterator[Tensor]:
    first: Tensor | None = None
    for index, frame in enumerate(frames):
        first = frame if first is None else first
        _check_frame(index, frame, first)
        yield frame


def _check_frame(index: int, frame: Tensor, first: Tensor) -> None:
    if frame.ndim != 3 or frame.shape[0] not in (3, 4) or not frame.is_floating_point():
        raise InvalidArgumentError(
            f"frame {index}: expected floating point (3, H, W) or (4, H, W), got {frame.dtype} {tuple(frame.shape)}."
        )
    if frame.shape != first.shape:
        raise InvalidArgumentError(
            f"frame {index}: expected shape {tuple(first.shape)} like the first frame, got {tuple(frame.shape)}; "
            "a clip must keep its size."
        )
