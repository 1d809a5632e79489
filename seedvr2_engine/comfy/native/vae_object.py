"""From ComfyUI's VAE object, or a file, to one that is computed by what serves here."""

import copy
import importlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...checkpoint.detect import detect_vae, load_vae_tensors
from ...checkpoint.in_memory import LoadedTensors
from ...checkpoint.opening import open_checkpoint
from ...device import resolve_dtype
from ...engine.optimize import optimize_3d_vae_for_blackwell
from ...engine.served_vae import ServedVAE
from ...errors import InvalidArgumentError
from ...loading import build_vae, load_vae
from ...models.vae.config import VAEConfig
from ...models.vae.model import VideoVAE
from ..devices import device_of
from ..model_files import OnBytes, locate
from ..vae_model import manage_vae
from .stage import EngineStage, StageWeights

log = logging.getLogger(__name__)

_NATIVE_MODULE = "comfy.ldm.seedvr.vae"
_SIGNS = ("comfy_has_chunked_io", "comfy_format_encoded", "decode_output_shape")
"""Members of ComfyUI's own SeedVR2 VAE, from the release on whose protocol this module follows."""
_ORIGIN = "the connected VAE"


@dataclass(frozen=True)
class Choices:
    """What the node was asked for beside the weights."""

    precision: str = "auto"
    """As `optimize_3d_vae_for_blackwell`; auto: 8 bits for GGUF files, 16 for all else."""
    prefers_whole: bool = False
    """Whether tiles are a matter of memory, not of the node that asks for them."""


def accelerate(native: Any, choices: Choices) -> Any:
    """A VAE object like the given one, which stays as it is, computed by the engine, or by the plain model without one.

    Raises InvalidArgumentError for anything but a VAE object of ComfyUI's own SeedVR2.
    """
    stage = getattr(native, "first_stage_model", None)
    if isinstance(stage, EngineStage):
        return _swapped(native, stage.weights, choices)
    if stage is None or not hasattr(native, "format_encoded") or not all(hasattr(stage, sign) for sign in _SIGNS):
        raise InvalidArgumentError(
            f"vae: expected a VAE of ComfyUI's own SeedVR2, found {type(stage or native).__name__}; connect Load VAE "
            "with a SeedVR2 VAE."
        )
    with LoadedTensors(stage.state_dict(), _ORIGIN) as tensors:
        config = detect_vae(tensors)

    def load(dtype: torch.dtype) -> VideoVAE:
        with LoadedTensors(stage.state_dict(), _ORIGIN) as tensors:
            return build_vae(tensors, dtype=dtype)

    return _swapped(native, StageWeights(config, load, stage.state_dict), choices)


def from_file(name: str, choices: Choices, on_bytes: OnBytes | None = None) -> Any:
    """The same for a file of this name, which is downloaded if need be.

    Raises InvalidArgumentError where this ComfyUI has no SeedVR2 of its own; ModelFileError and CheckpointError.
    """
    shell = _native_shell()
    path = locate(name, "vae", on_bytes)
    with open_checkpoint(path) as checkpoint:
        config, is_gguf = detect_vae(checkpoint), checkpoint.format == "gguf"

    def tensors() -> Mapping[str, Tensor]:
        with open_checkpoint(path) as checkpoint:
            return load_vae_tensors(checkpoint, torch.float16)[1]

    return _swapped(shell, StageWeights(config, lambda dtype: load_vae(path, dtype=dtype), tensors, is_gguf), choices)


def _native_shell() -> Any:
    """A VAE object as this ComfyUI makes it for SeedVR2, whose weights are of no account."""
    try:
        model = importlib.import_module(_NATIVE_MODULE).VideoAutoencoderKLWrapper
        has_native = all(hasattr(model, sign) for sign in _SIGNS)
    except (ImportError, AttributeError):
        has_native = False
    if not has_native:
        raise InvalidArgumentError(
            "SeedVR2 Engine VAE: expected a ComfyUI with SeedVR2 of its own (0.28 or newer), found none; update "
            "ComfyUI, or use SeedVR2 VAE Encode and Decode."
        )
    import comfy.sd

    # One number, seen as every tensor: nothing is read, and next to nothing allocated.
    shapes = VAEConfig().tensor_shapes()
    return comfy.sd.VAE(sd={name: torch.zeros(1).expand(shape) for name, shape in shapes.items()})


def _swapped(native: Any, weights: StageWeights, choices: Choices) -> Any:
    device = device_of(str(native.device))
    # Without the engine numbers are what the user told ComfyUI (--fp16-vae and the like).
    dtype = resolve_dtype("auto", device) if device.type == "cuda" else native.vae_dtype

    def optimize(plain: VideoVAE) -> ServedVAE:
        served = optimize_3d_vae_for_blackwell(
            plain,
            device=device,
            precision=choices.precision,
            enable_fp8=weights.are_quantised or choices.precision != "auto",
            verbose=False,
        )
        log.info("%s", served.report.text())
        return served

    managed = manage_vae(weights.config, device, lambda: weights.load(dtype), optimize)
    stage = EngineStage(managed, weights, prefers_whole=choices.prefers_whole)
    vae = copy.copy(native)
    vae.first_stage_model = stage
    vae.patcher = managed.resident
    vae.memory_used_encode = stage.comfy_memory_used_encode
    vae.memory_used_decode = stage.comfy_memory_used_decode
    vae.format_encoded = stage.comfy_format_encoded
    vae.vae_dtype = dtype
    vae.size = None
    return vae
