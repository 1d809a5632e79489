"""VAE Encode and VAE Decode between IMAGE and LATENT, and Convert To GGUF."""

import logging
import os
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from comfy_api.latest import io
from torch import Tensor

from ..checkpoint.convert import WRITABLE_TYPES, convert_to_gguf
from ..checkpoint.locating.names import is_plain_name
from ..checkpoint.quoting import quoted
from ..errors import InvalidArgumentError, OutputError
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
"""Where a LATENT keeps (frames, height, width) of the IMAGE that it came from."""


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
            description="Encodes a clip of any size and length; edges and the last frame are repeated to fill up.",
            inputs=[io.Image.Input("image"), VaeSocket.Input("vae")],
            outputs=[io.Latent.Output(tooltip="(1, 16, n+1, H/8, W/8), the posterior's mean, unscaled.")],
        )

    @classmethod
    def execute(cls, image: Tensor, vae: dict[str, Any]) -> io.NodeOutput:
        """Stream the frames through the encoder."""
        return io.NodeOutput(encode_image(image, managed_vae(vae)))


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
            description="Decodes latents of SeedVR2 VAE Encode, trimmed to the size and length that they came from.",
            inputs=[io.Latent.Input("samples"), VaeSocket.Input("vae")],
            outputs=[io.Image.Output()],
        )

    @classmethod
    def execute(cls, samples: dict[str, Any], vae: dict[str, Any]) -> io.NodeOutput:
        """Stream the latents through the decoder."""
        return io.NodeOutput(decode_latent(samples, managed_vae(vae)))


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


def encode_image(image: Tensor, vae: ManagedVAE) -> dict[str, Any]:
    """An IMAGE (N, H, W, 3), any size, to a LATENT whose samples are (1, 16, n+1, h, w), FP32 on the CPU."""
    check_image(image)
    frames, height, width = image.shape[:3]
    progress = NodeProgress(frames)
    cell = vae.config.spatial_compression
    size = (height + -height % cell, width + -width % cell)
    served = prepare_for(vae, "encode", size)

    def pictures() -> Iterator[Tensor]:
        for done, frame in enumerate(filled_frames(frames_of(image[..., :3]), vae.config)):
            yield frame.to(vae.device)
            progress.step(done)

    latents = [latent.float().cpu() for latent in served.stream_encode(pictures())]
    return {"samples": torch.stack(latents, dim=2), SOURCE_KEY: (frames, height, width)}


def decode_latent(latent: dict[str, Any], vae: ManagedVAE) -> Tensor:
    """A LATENT (1, 16, n+1, h, w) or of a single frame (1, 16, h, w) to an IMAGE (N, H, W, 3), FP32 on the CPU."""
    samples = latent.get("samples") if isinstance(latent, dict) else None
    if not isinstance(samples, Tensor) or not samples.is_floating_point():
        raise InvalidArgumentError(
            f"samples: expected a LATENT with floating-point samples, got {described(samples)}; connect a LATENT of "
            "SeedVR2 VAE Encode."
        )
    samples = samples[:, :, None] if samples.ndim == 4 else samples
    channels = vae.config.latent_channels
    if samples.ndim != 5 or samples.shape[0] != 1 or samples.shape[1] != channels or 0 in samples.shape:
        raise InvalidArgumentError(
            f"samples: expected one clip (1, {channels}, n+1, h, w), got {tuple(samples.shape)}; connect a LATENT of "
            "SeedVR2 VAE Encode."
        )
    cell, steps = vae.config.spatial_compression, samples.shape[2]
    whole = (vae.config.temporal_compression * (steps - 1) + 1, cell * samples.shape[3], cell * samples.shape[4])
    source = latent.get(SOURCE_KEY, whole)
    # Other nodes may have cut or enlarged the latents, and keep what they like in this place.
    whole_numbers = isinstance(source, (tuple, list)) and [type(number) for number in source] == [int] * 3
    fits = whole_numbers and all(
        0 <= length - own < unit
        for length, own, unit in zip(whole, source, (vae.config.temporal_compression, cell, cell), strict=True)
    )
    frames, height, width = source if fits else whole
    progress = NodeProgress(frames)
    served = prepare_for(vae, "decode", whole[1:])
    result = torch.empty(frames, height, width, 3)
    slices = (samples[:, :, step].to(vae.device) for step in range(steps))
    for index in write_frames((picture[0] for picture in served.stream_decode(slices)), result):
        progress.step(index + 1, picture=result[index].movedim(-1, 0))
    return result


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
