"""The stages of one clip on its way through the models: encode, restore, decode, colour.

A stage takes and gives single frames or latents; who walks the clip decides how many go together.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from ..color.methods import correct_frame, measure_curves
from ..device import queue_clock
from ..models.dit.geometry import Geometry
from ..models.dit.model import Conditioning, NaDiT
from ..models.dit.sampler import dit_input, noise_condition, sample
from ..models.vae.config import VAEConfig
from ..spans import each, span
from .alpha import is_mask, upscale_alpha
from .clip_noise import ClipNoise
from .options import UpscaleOptions
from .reconstruct import VideoCodec, from_model_range
from .resize import ResizePlan, crop_to_output, to_model_input

LATENT_SCALE = VAEConfig.scaling_factor
"""The transformer's latents are the VAE's times this."""
COLOR_FADE_FRAMES = 8
"""Frames over which one slice's colour curves become the next one's, where slices do not share frames."""

Stage = Literal["encode", "transform", "decode", "color"]
STAGE_SHARES: Mapping[str, float] = {"encode": 0.2, "transform": 0.25, "decode": 0.5, "color": 0.05}
"""About what the stages take of an upscaling's time on a GPU, so that a bar moves evenly."""


@dataclass(frozen=True)
class Progress:
    """How far one stage has come."""

    stage: Stage
    """What the frames have passed, or `transform` also when it begins with them."""
    frames: int
    """Frames of the clip, from its first, that have passed this stage."""


ProgressCallback = Callable[[Progress], None]
"""Called after every frame of a stage; raise from it to cancel."""


class CodedPicture(Protocol):
    """A picture as code values, such as `video.coded.CodedFrame`."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(3, or 4 with alpha, H, W)."""

    def on(self, device: torch.device | str) -> Tensor:
        """FP32 R'G'B' and alpha in [0, 1] of that shape on a device; no NaN, no infinities."""


SourceFrame = Tensor | CodedPicture
"""Floating point (3, H, W), or (4, H, W) with alpha, in [0, 1]; or code values that stand for it."""


@dataclass(frozen=True)
class Models:
    """What a clip passes through."""

    dit: NaDiT
    vae: VideoCodec
    conditioning: Conditioning
    """What the transformer computes from text and timestep alone."""
    text_tokens: int


class ClipStages:
    """The stages for one clip: its sizes, its noise, and what its first frames decided."""

    def __init__(
        self, models: Models, options: UpscaleOptions, resize: ResizePlan, on_progress: ProgressCallback | None
    ) -> None:
        self._models = models
        self._options = options
        self._resize = resize
        self._device = models.vae.device
        self._clock = queue_clock(models.vae.device)
        self._noise = ClipNoise(options.seed, options.noise, models.dit.device)
        self._picture_noise = ClipNoise(options.seed, options.noise, self._device)
        self._geometry: tuple[tuple[int, ...], Geometry] | None = None
        self._is_mask: bool | None = None
        self._curves: Tensor | None = None
        self._on_progress = on_progress or (lambda _: None)

    def report(self, stage: Stage, frames: int) -> None:
        """Tell the caller that so many frames, those put before the first one included, have passed a stage."""
        self._on_progress(Progress(stage, max(0, frames - self._options.prepend_frames)))

    def decide_mask(self, frames: Iterable[SourceFrame]) -> None:
        """Decide once for the clip whether its alpha, if it has any, is a cut-out; frames: those of the first chunk."""
        if self._is_mask is None:
            alphas = [whole(frame, self._device)[3] for frame in frames if frame.shape[0] == 4]
            self._is_mask = is_mask(torch.stack(alphas)) if alphas else None

    def skip_inputs(self, runs: Iterable[int]) -> None:
        """Pass by the noise of the frames before the first ones, of which `model_inputs` would have got such runs."""
        if self._options.input_noise:
            self._picture_noise.skip_pictures(runs, self._resize.padded)

    def model_inputs(self, frames: Iterable[SourceFrame], numbers: range | int = 0) -> Iterator[Tensor]:
        """Source frames as the encoder takes them, (1, 3, *padded) in [-1, 1], with the noise that was asked for.

        numbers: theirs in the clip, or the first one's.
        """
        strength = self._options.input_noise
        if strength == 0:
            return (self._model_input(frame) for frame in frames)
        noise = self._picture_noise.of_pictures(numbers, self._resize.padded)
        return (self._model_input(frame) + drawn * strength for frame, drawn in zip(frames, noise, strict=False))

    def encode(self, pictures: Iterable[Tensor]) -> Iterator[Tensor]:
        """4n+1 model inputs to n+1 latents (h, w, 16), scaled, float32."""
        encoded = self._models.vae.stream_encode(
            pictures, slice_frames=self._options.slice_frames, tile=self._options.tile
        )
        scaled = (latent[0].movedim(0, -1).float() * LATENT_SCALE for latent in encoded)
        return each("encode", scaled, self._clock)

    def restore(self, latents: Sequence[Tensor], numbers: range) -> Tensor:
        """Low-quality latents (h, w, 16) of one chunk to clean ones (T, h, w, 16), scaled, float32, by one step."""
        with span("transformer", self._clock):
            return self._restore(latents, numbers)

    def _restore(self, latents: Sequence[Tensor], numbers: range) -> Tensor:
        dit, options = self._models.dit, self._options
        low = torch.stack(list(latents)).to(dit.device)
        shape = tuple(low.shape[:3])
        if self._geometry is None or self._geometry[0] != shape:
            self._geometry = shape, dit.geometry(shape, self._models.text_tokens)
        geometry = self._geometry[1]
        noises = self._noise.of_latents(numbers, (shape[1], shape[2]), low.shape[3], dit.dtype)
        condition = noise_condition(low, noises, options.latent_noise)

        def velocity(noisy: Tensor, _timestep: float) -> Tensor:
            return dit.velocity(dit_input(noisy, condition), geometry, self._models.conditioning).float()

        return sample(velocity, noises[0])

    def decode(self, latents: Iterable[Tensor]) -> Iterator[Tensor]:
        """n+1 clean latents (h, w, 16) to 4n+1 pictures (3, H, W) of the output's size, in the VAE's dtype."""
        unscaled = ((latent / LATENT_SCALE).movedim(-1, 0)[None].to(self._device) for latent in latents)
        decoded = self._models.vae.stream_decode(
            unscaled, slice_frames=self._options.slice_frames, tile=self._options.tile
        )
        return each("decode", (crop_to_output(frame[0], self._resize) for frame in decoded), self._clock)

    def measure(self, pictures: Iterable[Tensor], frames: Sequence[SourceFrame]) -> None:
        """Measure the colours of a slice from which the next one's are faded; arguments as in `finish`."""
        self._curves = self._measured(pictures, frames)

    def finish(
        self, pictures: Iterable[Tensor], frames: Sequence[SourceFrame], *, fade: bool = False
    ) -> Iterator[Tensor]:
        """Give a slice of decoded pictures their source frames' colours and alpha: (3 or 4, H, W) in [0, 1].

        pictures may be a generator where the colour method looks at single frames. fade: begin with the colour curves
        of the slice before.
        """
        return each("colour", self._finish(pictures, frames, fade=fade), self._clock)

    def _finish(self, pictures: Iterable[Tensor], frames: Sequence[SourceFrame], *, fade: bool) -> Iterator[Tensor]:
        method = self._options.color
        curves = self._measured(pictures, frames)
        before, self._curves = self._curves if fade else None, curves
        fading = min(COLOR_FADE_FRAMES, len(frames))
        for index, (picture, frame) in enumerate(zip(pictures, frames, strict=True)):
            used = curves
            if before is not None and curves is not None and index < fading:
                used = before.lerp(curves, (index + 1) / (fading + 1))
            colored = correct_frame(picture, self._style(frame), method, used)
            out = from_model_range(colored)
            yield out if frame.shape[0] == 3 else torch.cat([out, self._alpha(frame, picture)])

    def _measured(self, pictures: Iterable[Tensor], frames: Sequence[SourceFrame]) -> Tensor | None:
        pairs = ((picture, self._style(frame)) for picture, frame in zip(pictures, frames, strict=True))
        return measure_curves(pairs, self._options.color)

    def _model_input(self, frame: SourceFrame) -> Tensor:
        return to_model_input(_colors_on(frame, self._device)[None], self._resize)

    def _style(self, frame: SourceFrame) -> Tensor:
        # Made anew from the source frame rather than kept: it is cheap, and as large as the result.
        return crop_to_output(self._model_input(frame)[0], self._resize)

    def _alpha(self, frame: SourceFrame, picture: Tensor) -> Tensor:
        alpha = _alpha_on(frame, self._device)[None]
        return upscale_alpha(alpha, picture[None], self._resize.resized, mask=bool(self._is_mask))[0]


def _colors_on(frame: SourceFrame, device: torch.device) -> Tensor:
    """R'G'B' (3, H, W) of a source frame on a device."""
    return frame[:3].to(device, non_blocking=True) if isinstance(frame, Tensor) else frame.on(device)[:3]


def _alpha_on(frame: SourceFrame, device: torch.device) -> Tensor:
    """Alpha (1, H, W) of a source frame that has it, on a device."""
    return frame[3:].to(device) if isinstance(frame, Tensor) else frame.on(device)[3:]


def whole(frame: SourceFrame, device: torch.device) -> Tensor:
    """A source frame (3 or 4, H, W) on the host; device: where code values are converted."""
    return frame if isinstance(frame, Tensor) else frame.on(device).cpu()
