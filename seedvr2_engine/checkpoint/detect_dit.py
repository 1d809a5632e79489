"""Recognise a SeedVR2 diffusion transformer strictly, by tensor names and shapes, and load it.

The public files and ComfyUI's repackaging have the same names; the latter adds the two text embeddings.
"""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from ..errors import CheckpointError, InvalidArgumentError
from ..models.dit.config import DiTConfig
from ..models.vae.config import Shape
from .base import CPU, Checkpoint
from .detect import is_dit, is_vae, load_finite, model_names
from .match import listed, match_tensors
from .quoting import quoted

POSITIVE_TEXT = "positive_conditioning"
"""The text embedding (tokens, text width) that upscaling uses, in files that carry it."""
NEGATIVE_TEXT = "negative_conditioning"
"""The embedding of what a picture should not be; nothing reads it, because upscaling runs without guidance."""

_MAX_LAYERS = 256
"""The largest public model has 36."""


def detect_dit(checkpoint: Checkpoint) -> DiTConfig:
    """Derive the configuration of a SeedVR2 transformer; names and shapes are not yet compared with it.

    Only element counts are used, because weights may be stored collapsed. Raises CheckpointError for other models.
    """
    if not is_dit(checkpoint):
        raise CheckpointError(f"{checkpoint.path}: {_refusal(checkpoint)}")
    names = model_names(checkpoint)
    sizes = _Sizes(checkpoint, names)
    blocks = [name.split(".") for name in names if name.startswith("blocks.")]
    layers = len({parts[1] for parts in blocks})
    if layers > _MAX_LAYERS:
        raise CheckpointError(
            f"{checkpoint.path}: expected at most {_MAX_LAYERS} blocks, found {layers}; this is not a SeedVR2 "
            "transformer (DiT)."
        )
    first = "vid" if any(parts[1] == "0" and "vid" in parts for parts in blocks) else "all"
    width, head_width = sizes.count("vid_in.proj.bias"), sizes.count(f"blocks.0.attn.norm_q.{first}.weight")
    positions = DiTConfig.patch_size**2
    try:
        return DiTConfig(
            family="3b" if any("proj_in_gate" in parts for parts in blocks) else "7b",
            width=width,
            layers=layers,
            separate_layers=len({parts[1] for parts in blocks if "vid" in parts}),
            heads=sizes.count(f"blocks.0.attn.proj_qkv.{first}.weight", 3 * width * head_width),
            head_width=head_width,
            mlp_width=sizes.count(f"blocks.0.mlp.{first}.proj_in.weight", width),
            text_width=sizes.count("txt_in.weight", width),
            in_channels=sizes.count("vid_in.proj.weight", positions * width),
            out_channels=sizes.count("vid_out.proj.bias", positions),
        )
    except InvalidArgumentError as error:
        raise CheckpointError(f"{checkpoint.path}: not a SeedVR2 transformer (DiT): {error}") from error


def dit_tensor_names(checkpoint: Checkpoint, config: DiTConfig) -> dict[str, str]:
    """Map every tensor name of the model to the name in the file, and nothing else.

    Text embeddings may be in the file besides. Raises CheckpointError that names what is missing, what is too much,
    and what has another shape.
    """
    names = {
        name: stored for name, stored in model_names(checkpoint).items() if name not in (POSITIVE_TEXT, NEGATIVE_TEXT)
    }
    kind = f"a SeedVR2 transformer ({config.family} family) of {config.layers} layers, {config.width} wide"
    return match_tensors(checkpoint, names, config.tensor_shapes(), kind)


def load_dit_tensors(
    checkpoint: Checkpoint, config: DiTConfig, dtype: torch.dtype, device: torch.device = CPU, threads: int = 1
) -> Iterator[tuple[str, Tensor]]:
    """Load a complete transformer, one tensor after the other on `device` in `dtype`, by its name in the model.

    threads: how many read side by side. Raises CheckpointError for an incomplete one, before the first tensor, and for
    values that are not finite.
    """
    names = dit_tensor_names(checkpoint, config)

    def load(name: str, shape: Shape) -> tuple[str, Tensor]:
        return name, load_finite(checkpoint, names[name], shape, dtype, device)

    shapes = config.tensor_shapes()
    if threads == 1:  # No thread, which would go on to the next tensor before anybody stops it.
        yield from map(load, shapes.keys(), shapes.values())
        return
    readers = ThreadPoolExecutor(threads, "weights")
    try:
        yield from readers.map(load, shapes.keys(), shapes.values())
    finally:
        readers.shutdown(cancel_futures=True)


def load_text(checkpoint: Checkpoint) -> Tensor | None:
    """Load the text embedding (tokens, text width), float32, that the file carries beside the weights, if any."""
    stored = model_names(checkpoint).get(POSITIVE_TEXT)
    if stored is None:
        return None
    info = checkpoint.tensors[stored]
    shape: Shape = info.original_shape or info.shape
    if len(shape) != 2 or 0 in shape:
        raise CheckpointError(
            f"{quoted(stored)} in {checkpoint.path}: expected a text embedding (tokens, channels), got shape {shape}."
        )
    return load_finite(checkpoint, stored, shape, torch.float32)


class _Sizes:
    """Element counts of a checkpoint's tensors."""

    def __init__(self, checkpoint: Checkpoint, names: Mapping[str, str]) -> None:
        self._checkpoint = checkpoint
        self._names = names

    def count(self, name: str, divisor: int = 1) -> int:
        """The elements of a tensor that must be there, divided by `divisor`, which must come out even."""
        path = self._checkpoint.path
        if name not in self._names:
            raise CheckpointError(
                f"{path}: expected the tensor {name} of a SeedVR2 transformer (DiT), found none; "
                "the file is incomplete or holds another model."
            )
        count = self._checkpoint.tensors[self._names[name]].count
        if count == 0 or count % divisor:
            raise CheckpointError(
                f"{name} in {path}: expected a positive multiple of {divisor} values, got {count}; "
                "this is not a SeedVR2 transformer (DiT)."
            )
        return count // divisor


def _refusal(checkpoint: Checkpoint) -> str:
    expected = "expected the tensors of a SeedVR2 transformer (DiT), found"
    if is_vae(checkpoint):
        return f"{expected} a VAE; give this file where the VAE is asked for, and a transformer file here."
    names = sorted(map(quoted, checkpoint.tensors))
    found = f"{len(names)} others, such as {listed(names[:3])}" if names else "no tensors at all"
    return f"{expected} {found}; this is another model."
