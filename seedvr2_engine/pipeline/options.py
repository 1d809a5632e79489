"""What a user may ask of an upscaling, validated once."""

from dataclasses import dataclass
from typing import Literal, get_args

from ..color.hdr import HDR_CHOICES, HdrChoice
from ..color.methods import COLOR_METHODS, ColorMethod
from ..errors import InvalidArgumentError
from ..models.vae.tiling import TileSpec
from .chunks import STEP_FRAMES, ChunkPlan, padded_count
from .resize import MAX_EDGE_PX, ResizePlan, Size, plan_resize

NoiseKind = Literal["position", "reference"]
"""Noise that belongs to a position of the clip, or the public reference's, which starts anew for every chunk."""

VaeSpan = Literal["clip", "chunk"]
"""What the VAE sees as one: the whole clip, streamed, so that chunks concern the transformer alone; or each chunk.

`clip` leaves no border in encoding and decoding and does neither twice, but keeps the VAE's memory of the clip's past
while the transformer runs. `chunk` is the public reference's way.
"""

DEFAULT_RESOLUTION_PX = 1080
MIN_RESOLUTION_PX = 16
MAX_SCALE = 16.0


@dataclass(frozen=True)
class UpscaleOptions:
    """How clips are to be upscaled; every value is checked when the options are made (InvalidArgumentError)."""

    resolution: int | None = None
    """Shortest edge of the result in pixels, 16 to 16384; 1080 when `scale` is not given either."""
    scale: float | None = None
    """Factor for both edges instead of a resolution, above 0, at most 16."""
    max_resolution: int | None = None
    """Longest edge that the result may have, in pixels; no limit by default."""
    chunk_frames: int | None = None
    """Frames that go through the model together, rounded up to 4n+1; by default what fits into memory."""
    overlap: int | None = None
    """Frames that neighbouring chunks share and cross-fade, fewer than a chunk has; by default what suits the chunk."""
    prepend_frames: int = 0
    """Mirrored frames before the first one, which give it a past and are left out of the result; 0 to 64."""
    color: ColorMethod = "lab"
    """How the source's colours are given back."""
    seed: int = 42
    """Number that the noise follows from, 0 to 2^64 - 1."""
    input_noise: float = 0.0
    """Noise on the source frames, 0 to 1; calms artefacts at very high resolutions."""
    latent_noise: float = 0.0
    """Noise on the source's latents, 0 to 1; the more, the freer the model draws."""
    noise: NoiseKind = "position"
    """What the noise depends on."""
    vae_span: VaeSpan | None = None
    """What the VAE sees as one; the clip where its memory suffices, or else a chunk."""
    slice_frames: int = STEP_FRAMES
    """Frames that the VAE works on at a time, a multiple of 4; the result is the same at any value."""
    hdr: HdrChoice = "auto"
    """How PQ pictures pass through the models; others are not concerned."""
    tile: TileSpec | None = None
    """Spatial tiles of the VAE, which save memory but are not exact; whole frames by default."""

    def __post_init__(self) -> None:
        if self.resolution is not None and self.scale is not None:
            raise InvalidArgumentError(
                f"size: expected a resolution or a scale, got resolution {self.resolution} and scale {self.scale}; "
                "leave one of them out."
            )
        _check_whole("resolution", self.resolution, MIN_RESOLUTION_PX, MAX_EDGE_PX)
        _check_whole("maximum resolution", self.max_resolution, MIN_RESOLUTION_PX, MAX_EDGE_PX)
        if self.scale is not None and not (isinstance(self.scale, int | float) and 0 < self.scale <= MAX_SCALE):
            raise InvalidArgumentError(f"scale: expected a factor above 0 and up to {MAX_SCALE:g}, got {self.scale!r}.")
        _check_whole("chunk frames", self.chunk_frames, 1, 1 << 20)
        _check_whole("overlap", self.overlap, 0, 1 << 20)
        _check_whole("prepended frames", self.prepend_frames, 0, 64)
        _check_whole("seed", self.seed, 0, (1 << 64) - 1)
        _check_share("input noise", self.input_noise)
        _check_share("latent noise", self.latent_noise)
        if self.slice_frames < 1 or self.slice_frames % STEP_FRAMES:
            raise InvalidArgumentError(
                f"slice frames: expected a positive multiple of {STEP_FRAMES}, got {self.slice_frames}."
            )
        _check_choice("colour method", self.color, COLOR_METHODS)
        _check_choice("noise", self.noise, get_args(NoiseKind))
        _check_choice("hdr", self.hdr, HDR_CHOICES)
        if self.vae_span is not None:
            _check_choice("VAE span", self.vae_span, get_args(VaeSpan))
        if self.chunk_frames is not None:
            self.chunks(self.chunk_frames)

    @property
    def remarks(self) -> tuple[str, ...]:
        """Sentences about what differs from what was asked for."""
        if self.chunk_frames is None or padded_count(self.chunk_frames) == self.chunk_frames:
            return ()
        return (
            f"Chunks have 4n+1 frames: {padded_count(self.chunk_frames)} are taken instead of {self.chunk_frames}.",
        )

    def resize(self, source: Size) -> ResizePlan:
        """The sizes for a source of (height, width)."""
        resolution = DEFAULT_RESOLUTION_PX if self.resolution is None and self.scale is None else self.resolution
        return plan_resize(source, resolution=resolution, scale=self.scale, max_resolution=self.max_resolution)

    def chunks(self, fitting_frames: int) -> ChunkPlan:
        """How clips are cut. fitting_frames: frames of a chunk when the user did not ask for a number."""
        frames = padded_count(self.chunk_frames or fitting_frames)
        return ChunkPlan(frames, default_overlap(frames) if self.overlap is None else self.overlap)


def default_overlap(chunk_frames: int) -> int:
    """Frames that chunks share by default: 5, which are two latents, in chunks of 25 frames and more, else 1.

    Chunks of a single frame share nothing.
    """
    return 5 if chunk_frames >= 25 else min(1, chunk_frames - 1)


def _check_whole(name: str, value: int | None, low: int, high: int) -> None:
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high):
        raise InvalidArgumentError(f"{name}: expected a whole number from {low} to {high}, got {value!r}.")


def _check_share(name: str, value: float) -> None:
    if not isinstance(value, int | float) or not 0 <= value <= 1:
        raise InvalidArgumentError(f"{name}: expected a number from 0 to 1, got {value!r}.")


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InvalidArgumentError(f"{name}: expected one of {', '.join(choices)}, got {value!r}.")
