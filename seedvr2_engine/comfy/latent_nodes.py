"""VAE Encode and VAE Decode between IMAGE and LATENT, and Convert To GGUF."""

import logging
import os
from collections.abc import Iterable, Iterator
from itertools import islice
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from comfy_api.latest import io
from torch import Tensor

from ..checkpoint.convert import WRITABLE_TYPES, convert_to_gguf
from ..checkpoint.locating.names import is_plain_name
from ..checkpoint.quoting import quoted
from ..errors import InvalidArgumentError, OutputError
from ..models.vae.config import VAEConfig
from ..pipeline.reconstruct import filled_frames, from_model_range
from ..pipeline.to_host import staged
from .loader_nodes import CATEGORY, VaeSocket
from .model_files import DEFAULT_VAE, check_model, download_folder, identity_of, locate, model_names
from .progress import NodeProgress
from .upscaling import check_image, described, frames_of, managed_vae
from .vae_model import ManagedVAE, prepare_for

log = logging.getLogger(__name__)

_LONGEST_NAME_BYTES = 200
_STAGED_FRAMES = 8
"""Pictures on their way from the GPU: two steps of the decoder."""

SOURCE_KEY = "seedvr2_source"
"""Where a LATENT keeps (frames, height, width) of each clip of the IMAGE that it came from."""
SCALING_KEY = "seedvr2_scaling"
"""Where it keeps what the posterior's mean was multiplied by. Latents of this pack's older releases have a source and
no scaling: they are the mean itself. Others, of ComfyUI or from a file, have neither."""
SCALINGS = ("auto", "native", "unscaled")
FILL_PX = 16
"""Pictures are filled up to multiples of it: ComfyUI's transformer joins cells two by two."""


_SCALING_TIP = (
    "auto: as the latents say, and native if they say nothing. unscaled: for latents that an older release of this "
    "pack has saved to a file."
)


class VAEEncode(io.ComfyNode):
    """IMAGE to LATENT."""

    NODE_ID = "SeedVR2VAEEncode"
    NAME = "SeedVR2 VAE Encode"

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Frames and the VAE."""
        return io.Schema(
            node_id=cls.NODE_ID,
            display_name=cls.NAME,
            category=CATEGORY,
            description="Encodes clips and stills of any size and length to latents as ComfyUI's own SeedVR2 has them.",
            inputs=[
                io.Image.Input("image"),
                VaeSocket.Input("vae"),
                io.Boolean.Input(
                    "stills",
                    default=False,
                    optional=True,
                    tooltip="Every frame is a picture of its own, not part of a clip.",
                ),
            ],
            outputs=[io.Latent.Output(tooltip="(clips, 16, n+1, H/8, W/8), the posterior's mean times 0.9152.")],
        )

    @classmethod
    def execute(cls, image: Tensor, vae: dict[str, Any], stills: bool = False) -> io.NodeOutput:
        """Stream the frames through the encoder."""
        return io.NodeOutput(encode_image(image, managed_vae(vae), stills=stills))


class VAEDecode(io.ComfyNode):
    """LATENT to IMAGE."""

    NODE_ID = "SeedVR2VAEDecode"
    NAME = "SeedVR2 VAE Decode"

    @classmethod
    def define_schema(cls) -> io.Schema:
        """A latent clip and the VAE."""
        return io.Schema(
            node_id=cls.NODE_ID,
            display_name=cls.NAME,
            category=CATEGORY,
            description="Decodes latents of SeedVR2, clip after clip, trimmed to the size that they came from.",
            inputs=[
                io.Latent.Input("samples"),
                VaeSocket.Input("vae"),
                io.Combo.Input("scaling", options=list(SCALINGS), default="auto", optional=True, tooltip=_SCALING_TIP),
            ],
            outputs=[io.Image.Output(tooltip="The frames of all clips.")],
        )

    @classmethod
    def execute(cls, samples: dict[str, Any], vae: dict[str, Any], scaling: str = "auto") -> io.NodeOutput:
        """Stream the latents through the decoder."""
        return io.NodeOutput(decode_latent(samples, managed_vae(vae), scaling))


class ConvertToGGUF(io.ComfyNode):
    """A VAE file to GGUF."""

    NODE_ID = "SeedVR2ConvertToGGUF"
    NAME = "SeedVR2 Convert To GGUF"

    @classmethod
    def define_schema(cls) -> io.Schema:
        """A VAE, a type, a name."""
        return io.Schema(
            node_id=cls.NODE_ID,
            display_name=cls.NAME,
            category=CATEGORY,
            description="Writes a VAE as GGUF into models/SEEDVR2, where the VAE loader offers it.",
            inputs=[
                io.Combo.Input("model", options=model_names("vae"), default=DEFAULT_VAE),
                io.Combo.Input("type", options=list(WRITABLE_TYPES), default="Q8_0"),
                io.String.Input("file_name", default="", tooltip="Empty: the source's name and the type."),
                io.Boolean.Input("overwrite", default=False),
            ],
            outputs=[io.String.Output(display_name="file_name")],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, model: str) -> bool | str:
        """A name that cannot be meant is refused before anything runs."""
        return check_model(model, "vae") or True

    @classmethod
    def fingerprint_inputs(cls, model: str, **_: Any) -> Any:
        """A file that changed is a changed input."""
        return identity_of(model, "vae")

    @classmethod
    def execute(cls, model: str, type: str, file_name: str = "", overwrite: bool = False) -> io.NodeOutput:
        """Convert."""
        progress = NodeProgress(1)
        source = locate(model, "vae", progress.on_bytes)
        target = target_of(file_name or f"{Path(model).stem}_{type.lower()}")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{target.parent}: the folder cannot be made ({error.strerror}).") from error
        report = convert_to_gguf(source, target, type, overwrite=overwrite, on_progress=progress.on_bytes)
        log.info("[SeedVR2] %s: %.1f MB, relative error %.2e", target, report.target_bytes / 1e6, report.relative_rms)
        return io.NodeOutput(target.name)


def target_of(file_name: str) -> Path:
    """The file of this name in the pack's own folder; raises InvalidArgumentError for a name that leaves it."""
    name = file_name if file_name.lower().endswith(".gguf") else f"{file_name}.gguf"
    if not is_plain_name(name) or len(os.fsencode(name)) > _LONGEST_NAME_BYTES:
        raise InvalidArgumentError(
            f"file_name: expected a plain name without folders, of at most {_LONGEST_NAME_BYTES} bytes, that every "
            f"system takes, got {quoted(file_name)}; choose another."
        )
    return download_folder() / name


def encode_image(image: Tensor, vae: ManagedVAE, *, stills: bool = False) -> dict[str, Any]:
    """An IMAGE, any size, to a LATENT whose samples are (B, 16, n+1, h, w), FP32 on the CPU, scaled as natively.

    (T, H, W, 3) is one clip, or T stills; (B, T, H, W, 3) are B clips. Alpha is left out.
    """
    check_image(image, allows_clips=True)
    clips = image[None] if image.ndim == 4 else image
    if stills:
        clips = clips.flatten(0, 1)[:, None]
    count, frames, height, width = clips.shape[:4]
    progress = NodeProgress(count * frames)
    size = (height + -height % FILL_PX, width + -width % FILL_PX)
    served = prepare_for(vae, "encode", size)

    def pictures(clip: Tensor) -> Iterator[Tensor]:
        for frame in filled_frames(frames_of(clip[..., :3]), vae.config, cell=FILL_PX):
            yield frame.to(vae.device)
            progress.advance()

    means = [
        torch.stack([latent[0].float().cpu() for latent in served.stream_encode(pictures(clip))], dim=1)
        for clip in clips
    ]
    scale = vae.config.scaling_factor
    return {"samples": torch.stack(means) * scale, SOURCE_KEY: (frames, height, width), SCALING_KEY: scale}


def decode_latent(latent: dict[str, Any], vae: ManagedVAE, scaling: str = "auto") -> Tensor:
    """A LATENT (B, 16, n+1, h, w), or of stills (B, 16, h, w), to an IMAGE (N, H, W, 3), FP32 on the CPU."""
    samples = _clips_of(latent, vae.config) / _scale_of(latent, vae.config, scaling)
    cell, steps = vae.config.spatial_compression, samples.shape[2]
    whole = (vae.config.temporal_compression * (steps - 1) + 1, cell * samples.shape[3], cell * samples.shape[4])
    source = latent.get(SOURCE_KEY, whole)
    # Other nodes may have cut or enlarged the latents, and keep what they like in this place.
    whole_numbers = isinstance(source, (tuple, list)) and [type(number) for number in source] == [int] * 3
    fits = whole_numbers and all(
        0 <= length - own < unit
        for length, own, unit in zip(whole, source, (vae.config.temporal_compression, FILL_PX, FILL_PX), strict=True)
    )
    frames, height, width = source if fits else whole
    progress = NodeProgress(len(samples) * frames)
    served = prepare_for(vae, "decode", whole[1:])
    result = torch.empty(len(samples), frames, height, width, 3)
    for clip, target in zip(samples, result, strict=True):
        slices = (step[None].to(vae.device) for step in clip.unbind(1))
        for index in write_frames((picture[0] for picture in served.stream_decode(slices)), target):
            progress.advance(target[index].movedim(-1, 0))
    return result.flatten(0, 1)


def _clips_of(latent: object, config: VAEConfig) -> Tensor:
    """The samples, (B, 16, n+1, h, w); raises InvalidArgumentError for what is no latent of SeedVR2."""
    samples = latent.get("samples") if isinstance(latent, dict) else None
    if not isinstance(samples, Tensor) or not samples.is_floating_point():
        raise InvalidArgumentError(
            f"samples: expected a LATENT with floating-point samples, got {described(samples)}; connect a LATENT of "
            "SeedVR2 VAE Encode."
        )
    samples = samples[:, :, None] if samples.ndim == 4 else samples
    channels = config.latent_channels
    if samples.ndim != 5 or samples.shape[1] != channels or 0 in samples.shape:
        raise InvalidArgumentError(
            f"samples: expected clips (B, {channels}, n+1, h, w) or stills (B, {channels}, h, w), got "
            f"{tuple(samples.shape)}; connect a LATENT of SeedVR2 VAE Encode."
        )
    return samples.float()


def _scale_of(latent: dict[str, Any], config: VAEConfig, scaling: str) -> float:
    if scaling not in SCALINGS:
        raise InvalidArgumentError(f"scaling: expected one of {', '.join(SCALINGS)}, got {scaling!r}.")
    is_old = SOURCE_KEY in latent and SCALING_KEY not in latent
    if scaling == "unscaled" or (scaling == "auto" and is_old):
        return 1.0
    said = latent.get(SCALING_KEY)
    if scaling == "auto" and isinstance(said, float) and isfinite(said) and said > 0:
        return said
    return config.scaling_factor


def write_frames(pictures: Iterable[Tensor], image: Tensor) -> Iterator[int]:
    """Write pictures (3, H, W) in [-1, 1], any dtype, into `image` (N, h, w, 3), FP32 in [0, 1], trimmed to its size.

    NaN becomes 0. Yields the index of each frame that is written; stops after N pictures.
    """
    count, height, width, _ = image.shape
    written = 0

    def touch(before: int) -> None:
        # New memory has its pages only once it is written to. For the last pictures that is better done while the GPU
        # still works on them; the others are copied while it works on the next.
        image[written + before].zero_()

    shown = (from_model_range(picture[:, :height, :width]).movedim(0, -1) for picture in islice(pictures, count))
    for frame in staged(shown, _STAGED_FRAMES, while_waiting=touch):
        image[written] = frame
        written += 1
        yield written - 1
