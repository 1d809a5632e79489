"""Recognise a SeedVR2 VAE strictly, by tensor names and shapes, and load it."""

import math
import re
from collections.abc import Mapping, Sequence

import torch

from ..errors import CheckpointError
from ..models.vae.config import Shape, VAEConfig
from .base import CPU, PREFIXES, Checkpoint, TensorInfo
from .match import listed, match_tensors
from .quoting import quoted

_MAX_LAYERS = 64
"""Of a level; the public model has two. What follows from a forged file's number is written out, layer by layer."""

_DIT_NAME = re.compile(r"(blocks\.\d+\.(attn|mlp|ada)\.|vid_in\.|vid_out|txt_in\.|emb_in\.)")
_VAE_NAME = re.compile(r"(encoder\.down_blocks|decoder\.up_blocks)\.\d+\.resnets\.")
# The names that diffusers gave the attention layers before release 0.15.
_OLD_ATTENTION = re.compile(r"(?<=\.attentions\.0\.)(query|key|value|proj_attn)(?=\.(?:weight|bias)$)")
_NEW_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def is_dit(checkpoint: Checkpoint) -> bool:
    """Whether the file looks like the SeedVR2 diffusion transformer."""
    return any(_DIT_NAME.match(name) for name in model_names(checkpoint))


def is_vae(checkpoint: Checkpoint) -> bool:
    """Whether the file looks like a VAE of the family, complete or not."""
    return any(_VAE_NAME.match(name) for name in model_names(checkpoint))


def model_names(checkpoint: Checkpoint) -> dict[str, str]:
    """Map each tensor's name in today's models to its name in the file.

    A prefix is dropped if every tensor carries it; old attention names become the new ones. Raises
    CheckpointError when two tensors would get one name.
    """
    prefix = next((p for p in PREFIXES if all(name.startswith(p) for name in checkpoint.tensors)), "")
    names: dict[str, str] = {}
    for stored in checkpoint.tensors:
        name = _OLD_ATTENTION.sub(lambda old: _NEW_ATTENTION[old[1]], stored[len(prefix) :])
        if name in names:
            raise CheckpointError(
                f"{checkpoint.path}: expected one tensor for {quoted(name)}, found {quoted(names[name])} and "
                f"{quoted(stored)}."
            )
        names[name] = stored
    return names


def detect_vae(checkpoint: Checkpoint) -> VAEConfig:
    """Derive the configuration of a SeedVR2 VAE; the names and shapes are not yet compared with it.

    Only element counts are used, because weights may be stored collapsed. Raises CheckpointError for other
    models.
    """
    if is_dit(checkpoint):
        raise CheckpointError(
            f"{checkpoint.path}: expected a SeedVR2 VAE, found a diffusion transformer (DiT); give this file "
            "where the DiT is asked for, and a VAE file here."
        )
    names = model_names(checkpoint)
    if not is_vae(checkpoint):
        found = f"{len(names)} others, such as {listed(sorted(names)[:3])}" if names else "no tensors at all"
        raise CheckpointError(
            f"{checkpoint.path}: expected the tensors of a SeedVR2 VAE, found {found}; this is another model."
        )
    infos = {name: checkpoint.tensors[stored] for name, stored in names.items()}
    levels = [f"encoder.down_blocks.{level}.resnets.0" for level in range(4)]
    wide, high, middle, low = (
        _count_of(checkpoint, infos, [f"{level}.{part}" for part in ("conv1.bias", "norm2.weight", "conv2.bias")])
        for level in levels
    )
    moments = _count_of(checkpoint, infos, ["encoder.conv_out.bias"])
    numbered = {name.split(".")[4] for name in names if name.startswith("encoder.down_blocks.0.resnets.")}
    layers = next(layer for layer in range(len(numbered) + 1) if str(layer) not in numbered)
    if layers > _MAX_LAYERS:
        raise CheckpointError(
            f"{checkpoint.path}: expected at most {_MAX_LAYERS} layers a level, found {layers}; this is not a SeedVR2 "
            "VAE."
        )
    config = VAEConfig(
        block_out_channels=(wide, high, middle, low),
        layers_per_block=layers,
        image_channels=_count_of(checkpoint, infos, ["decoder.conv_out.bias"]),
        latent_channels=moments // 2,
    )
    if moments % 2 or any(width % config.norm_groups for width in config.block_out_channels):
        raise CheckpointError(
            f"{checkpoint.path}: expected widths that are multiples of {config.norm_groups} and an even number "
            f"of encoder outputs, found {config.block_out_channels} and {moments}; this is not a SeedVR2 VAE."
        )
    return config


def vae_tensor_names(checkpoint: Checkpoint, config: VAEConfig) -> dict[str, str]:
    """Map every tensor name of the model to the name in the file, and nothing else; see `match_tensors`."""
    model = f"a SeedVR2 VAE of widths {config.block_out_channels}"
    return match_tensors(checkpoint, model_names(checkpoint), config.tensor_shapes(), model)


def load_vae_tensors(checkpoint: Checkpoint, dtype: torch.dtype) -> tuple[VAEConfig, dict[str, torch.Tensor]]:
    """Load a complete VAE: its configuration, and every tensor on the CPU in `dtype` by its name in the model.

    Raises CheckpointError for another model, an incomplete one, and values that are not finite in `dtype`.
    """
    config = detect_vae(checkpoint)
    names = vae_tensor_names(checkpoint, config)
    shapes = config.tensor_shapes()
    return config, {name: load_finite(checkpoint, stored, shapes[name], dtype) for name, stored in names.items()}


def load_finite(
    checkpoint: Checkpoint, name: str, shape: Shape, dtype: torch.dtype, device: torch.device = CPU
) -> torch.Tensor:
    """Load one floating-point tensor; refuse it if a value is NaN or infinite, or becomes so in `dtype`."""
    where = f"{quoted(name)} in {checkpoint.path}"
    if checkpoint.tensors[name].is_integer:
        raise CheckpointError(
            f"{where}: expected floating-point weights, got {checkpoint.tensors[name].type}; use an F16 file."
        )
    values = checkpoint.load(name, shape=shape, dtype=dtype, device=device)
    if _is_finite(values):
        return values
    before = checkpoint.load(name, shape=shape)
    if _is_finite(before):
        raise CheckpointError(
            f"{where}: expected weights within the range of {dtype}, found {before.abs().max():.4g}; use float32."
        )
    raise CheckpointError(f"{where}: expected finite weights, found NaN or infinity; the file is damaged.")


def _is_finite(values: torch.Tensor) -> bool:
    # The extremes are NaN if any value is; unlike isfinite() this allocates nothing of the tensor's size.
    return all(math.isfinite(extreme) for extreme in torch.stack(torch.aminmax(values)).tolist())


def _count_of(checkpoint: Checkpoint, infos: Mapping[str, TensorInfo], candidates: Sequence[str]) -> int:
    """Return the element count of the first tensor that is there."""
    for name in candidates:
        if name in infos:
            return infos[name].count
    raise CheckpointError(
        f"{checkpoint.path}: expected the tensor {candidates[0]} of a SeedVR2 VAE, found none; "
        "the file is incomplete or holds another model."
    )
