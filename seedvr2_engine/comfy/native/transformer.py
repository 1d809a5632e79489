"""ComfyUI's MODEL of its own SeedVR2, sampled by this pack's transformer.

Source of the protocol: ComfyUI's `comfy/model_patcher.py` and `comfy/samplers.py`. Only hooks that it offers are used:
a wrapper around the model's call, and an additional model that is loaded with it.
"""

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ...errors import InvalidArgumentError
from ..dit_model import DiTRequest, ManagedDiT, find_dit_model
from ..model_files import OnBytes
from ..residency import bring

log = logging.getLogger(__name__)

_KEY = "seedvr2_engine"
"""Of the additional model."""


def accelerate_model(native: Any, file: str, on_bytes: OnBytes | None = None) -> Any:
    """A MODEL like the given one, which stays as it is, that samples with the transformer of a file.

    Raises InvalidArgumentError for a MODEL of another kind or with patches, ModelFileError and CheckpointError.
    """
    inner = getattr(getattr(native, "model", None), "diffusion_model", None)
    if not all(hasattr(inner, name) for name in ("positive_conditioning", "negative_conditioning")):
        raise InvalidArgumentError(
            f"model: expected ComfyUI's own SeedVR2, found {type(inner or native).__name__}; connect Load Diffusion "
            "Model with a SeedVR2 transformer."
        )
    _refuse_patches(native)
    dit = find_dit_model(DiTRequest(file, str(native.load_device)), on_bytes)
    model = native.clone()
    model.set_additional_models(_KEY, [dit.resident])
    model.set_model_unet_function_wrapper(Sampled(dit))
    return model


class Sampled:
    """What ComfyUI calls in place of its model."""

    def __init__(self, dit: ManagedDiT) -> None:
        self._dit = dit

    def __call__(self, apply_model: Callable[..., Tensor], arguments: dict[str, Any]) -> Tensor:
        """Latents (B, 16, T, h, w) at `timestep` (B,) -> clean ones, float32, as `apply_model` would give them.

        `c` has the texts, `c_crossattn` (B, L, text width), and `condition` (B, 17, T, h, w): low-quality latents and a
        mask of ones.
        """
        noisy, sigma, conditions = arguments["input"], arguments["timestep"], arguments["c"]
        native = getattr(apply_model, "__self__", None)
        _refuse_patches(getattr(native, "current_patcher", None))
        condition, text = conditions.get("condition"), conditions.get("c_crossattn")
        channels = noisy.shape[1]
        if text is None or condition is None or condition.shape != (len(noisy), channels + 1, *noisy.shape[2:]):
            found = "none" if condition is None or text is None else tuple(condition.shape)
            raise InvalidArgumentError(
                f"positive: expected the text and the condition of SeedVR2 Conditioning for latents "
                f"{tuple(noisy.shape)}, found {found}; connect SeedVR2 Conditioning."
            )
        if self._dit.resident.built is None:
            bring([self._dit.resident])
        transformer = self._dit.resident.built
        assert transformer is not None
        assert native is not None
        sampling = native.model_sampling
        times = sampling.timestep(sigma).float().flatten().tolist()
        video = torch.cat([sampling.calculate_input(sigma, noisy), condition.to(noisy)], dim=1).movedim(1, -1)
        calls = zip(video, text, times, strict=True)
        velocity = torch.stack([transformer(clip, words.float(), time) for clip, words, time in calls])
        velocity = velocity.movedim(-1, 1).float().to(noisy.device)
        denoised: Tensor = sampling.calculate_denoised(sigma, velocity, noisy)
        return denoised


def _refuse_patches(patcher: Any) -> None:
    if getattr(patcher, "patches", None):
        raise InvalidArgumentError(
            "model: expected a SeedVR2 without LoRA and other patches of its weights, found some; the engine has "
            "weights of its own, so take off either the patches or SeedVR2 Engine Model."
        )
