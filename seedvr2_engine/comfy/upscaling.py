"""From the inputs of the Video Upscaler node to the project's own pipeline, and its frames to an IMAGE."""

import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from ..color.methods import ColorMethod
from ..device import is_out_of_memory
from ..engine.optimize_dit import DitPrecision
from ..errors import DeviceMemoryError, InvalidArgumentError, SeedVR2Error
from ..pipeline.chunks import padded_count
from ..pipeline.clip_stages import STAGE_SHARES
from ..pipeline.memory import ClipPlan, limit_engine
from ..pipeline.options import UpscaleOptions
from ..pipeline.upscaler import Progress, Upscaler
from .dit_model import DiTRequest, ManagedDiT, find_dit_model
from .progress import NodeProgress
from .residency import Resident, bring, make_room
from .vae_model import ManagedVAE, VAERequest, load_vae_model

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class UpscaleRequest:
    """What the node was asked for; the names are its inputs'."""

    seed: int
    resolution: int = 1080
    max_resolution: int = 0
    batch_size: int = 5
    uniform_batch_size: bool = False
    temporal_overlap: int = 0
    prepend_frames: int = 0
    color_correction: str = "lab"
    input_noise_scale: float = 0.0
    latent_noise_scale: float = 0.0
    offload_device: str = "cpu"
    enable_debug: bool = False
    dit_precision: DitPrecision = "auto"

    def options(self) -> UpscaleOptions:
        """For the pipeline; a batch is rounded up to 4n+1 frames, as the widget's steps are, and that is said."""
        batch = padded_count(max(1, self.batch_size))
        if batch != self.batch_size:
            log.warning("[SeedVR2] batch_size %d: 4n+1 frames pass the model, so it is %d", self.batch_size, batch)
        overlap = self.temporal_overlap
        if overlap >= batch:
            # Saved workflows have this: it never did anything there.
            log.warning("[SeedVR2] temporal_overlap %d: batches of %d have no overlap", overlap, batch)
            overlap = 0
        return UpscaleOptions(
            resolution=self.resolution,
            max_resolution=self.max_resolution or None,
            chunk_frames=batch,
            overlap=overlap,
            prepend_frames=self.prepend_frames,
            color=cast(ColorMethod, self.color_correction),
            seed=self.seed,
            input_noise=self.input_noise_scale,
            latent_noise=self.latent_noise_scale,
        )


def managed_vae(config: Mapping[str, Any]) -> ManagedVAE:
    """The VAE of a loader node, as it is, or made from a configuration that only names a file."""
    model = config.get("model") if isinstance(config, Mapping) else None
    if isinstance(model, ManagedVAE):
        return model
    if not isinstance(model, str) or "device" not in config:
        raise InvalidArgumentError(
            "vae: expected what a SeedVR2 VAE loader hands on, with `model` and `device`, found something else; "
            "connect (Down)Load VAE Model."
        )
    return cast(ManagedVAE, load_vae_model(VAERequest.of(config))["model"])


def managed_dit(config: Mapping[str, Any]) -> ManagedDiT:
    """The transformer of a loader node, or made from a configuration that only names a file."""
    weights = config.get("weights") if isinstance(config, Mapping) else None
    if isinstance(weights, ManagedDiT):
        return weights
    if not isinstance(config, Mapping) or not isinstance(config.get("model"), str) or "device" not in config:
        raise InvalidArgumentError(
            "dit: expected what a SeedVR2 DiT loader hands on, with `model` and `device`, found something else; "
            "connect (Down)Load DiT Model."
        )
    return find_dit_model(DiTRequest.of(config), NodeProgress(1).on_bytes)


def upscale_image(image: Tensor, dit: ManagedDiT, vae: ManagedVAE, request: UpscaleRequest) -> Tensor:
    """Upscale an IMAGE (N, H, W, 3 or 4) in [0, 1]; returns (N, H', W', 3 or 4), FP32 on the CPU."""
    check_image(image)
    options = request.options()
    dit.resident.ask(request.dit_precision)
    bring([vae.resident, dit.resident], working_bytes=dit.resident.check_bytes)
    text = dit.text(NodeProgress(1).on_bytes)
    transformer = dit.resident.serve(vae.served, text)
    frames, height, width = image.shape[:3]
    upscaler = Upscaler(transformer, vae.served, options, text=text)
    plan = upscaler.plan((height, width))
    limit_engine(upscaler.vae, plan)
    _make_room(dit, vae, plan)
    size, division = plan.resize.output, plan.division
    log.log(
        logging.INFO if request.enable_debug else logging.DEBUG,
        "[SeedVR2] %d frames, %dx%d to %dx%d, chunks of %d that share %d, the VAE sees the %s; about %.2f GB",
        frames, width, height, *size[::-1], division.chunks.chunk_frames, division.chunks.overlap,
        division.vae_span, plan.memory.peak_bytes / 1e9,
    )  # fmt: skip
    progress = NodeProgress(frames, STAGE_SHARES)
    began = time.perf_counter()
    try:
        result = _collect(upscaler, image, size, progress)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise DeviceMemoryError(
            f"Video Upscaler: expected {vae.device} to have memory for {frames} frames of "
            f"{size[1]}x{size[0]} in batches of {options.chunk_frames}, found too little; lower "
            "batch_size or resolution, or set blocks_to_swap in the DiT loader."
        ) from error
    seconds = time.perf_counter() - began
    log.info("[SeedVR2] %d frames in %.1f s (%.2f a second)", frames, seconds, frames / max(seconds, 1e-9))
    return result


def _make_room(dit: ManagedDiT, vae: ManagedVAE, plan: ClipPlan) -> None:
    """Other models leave the GPU as far as this clip needs it."""
    residents: list[Resident[Any]] = [vae.resident, dit.resident]
    taken = sum(resident.loaded_size() for resident in residents if resident.load_device == vae.device)
    make_room(residents, vae.device, max(0, plan.needed_bytes - taken))


def check_image(image: object, *, allows_clips: bool = False) -> None:
    """Raise InvalidArgumentError unless this is an IMAGE with frames in it, or (allows_clips) several clips of them."""
    if (
        not isinstance(image, Tensor)
        or not image.is_floating_point()
        or image.ndim not in ((4, 5) if allows_clips else (4,))
        or image.shape[-1] not in (3, 4)
        or 0 in image.shape
    ):
        raise InvalidArgumentError(
            "image: expected a floating-point batch (frames, height, width, 3 or 4) with at least one frame, got "
            f"{described(image)}; connect an IMAGE."
        )


def described(value: object) -> str:
    """What a node got where something else was expected."""
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    return "nothing" if value is None else type(value).__name__


def frames_of(image: Tensor) -> Iterator[Tensor]:
    """The frames (C, H, W) of an IMAGE."""
    return (frame.movedim(-1, 0).float() for frame in image)


def _collect(upscaler: Upscaler, image: Tensor, size: tuple[int, int], progress: NodeProgress) -> Tensor:
    count, _, _, channels = image.shape
    result = torch.empty(count, *size, channels)

    def on_progress(step: Progress) -> None:
        progress.step(step.frames, step.stage)

    written = 0
    for written, frame in enumerate(upscaler.upscale(frames_of(image), on_progress), start=1):
        result[written - 1] = frame.movedim(0, -1)
        progress.step(written, "color", frame)
    if written != count:
        raise SeedVR2Error(f"Video Upscaler: expected {count} frames, got {written}; please report this.")
    return result
