"""What each tensor of a model becomes in a new file, and what that loses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod, sqrt

import torch

from ...errors import CheckpointError
from ...models.dit.config import DiTConfig
from ...models.vae.config import Shape, VAEConfig
from ..base import Checkpoint
from ..detect import load_finite, model_names, vae_tensor_names
from ..detect_dit import NEGATIVE_TEXT, POSITIVE_TEXT, dit_tensor_names
from ..quoting import quoted

SOURCE_HASH_KEY = "seedvr2.source_sha256"
"""Metadata key of the SHA-256 of the file a conversion started from."""
LOSSES_KEY = "seedvr2.losses"
"""Metadata key of what conversions lost, the oldest first: each type and its relative RMS error."""
LOSS_PLACE = "#.##e-##"
"""Stands in a new file's metadata until all is written and the last loss is known."""

SAFETENSORS_FORMATS = ("F32", "F16", "BF16", "FP8", "INT8", "INT8_CONVROT", "MXFP8", "NVFP4")
"""What transformers can become in safetensors: plain types, and the layouts of ComfyUI's quantised files."""

Progress = Callable[[int, int], None]
"""Called with (values written, values in all); an exception it raises stops the conversion and removes the rest."""

_PLAIN = ("F32", "F16", "BF16")
_WHOLE_BLOCKS = 32
ROTATION_GROUP = 256
"""Columns that are rotated together in what is written as INT8_CONVROT."""
_ROW_VALUES = 256


@dataclass(frozen=True)
class Entry:
    """One tensor of the new file."""

    name: str
    source_name: str
    shape: Shape
    kind: str
    """GGML's type, or one of `SAFETENSORS_FORMATS`."""

    @property
    def count(self) -> int:
        """Number of values."""
        return prod(self.shape)

    @property
    def is_weight(self) -> bool:
        """Whether it is the model's, and no text embedding beside it, whose values are far larger."""
        return self.name not in (POSITIVE_TEXT, NEGATIVE_TEXT)

    def load(self, checkpoint: Checkpoint) -> torch.Tensor:
        """The source's values, float32, finite."""
        return load_finite(checkpoint, self.source_name, self.shape, torch.float32)

    def too_large(self, checkpoint: Checkpoint, values: torch.Tensor) -> CheckpointError:
        """Why its values cannot be written."""
        return CheckpointError(
            f"{self.name} in {checkpoint.path}: expected values within the range of {self.kind}, "
            f"found {values.abs().max().item():.4g}; convert to F32."
        )


class Loss:
    """The relative RMS error of the weights that were written."""

    def __init__(self) -> None:
        self._lost = self._energy = 0.0

    def add(self, entry: Entry, squared_error: float, energy: float) -> None:
        """Count an entry's values if they are weights: the sum of their squared errors, and of their squares."""
        if entry.is_weight:
            self._lost += squared_error
            self._energy += energy

    @property
    def relative_rms(self) -> float:
        """Root mean square of (new - old) over that of old; 0 when nothing was lost."""
        return sqrt(self._lost / self._energy) if self._energy else 0.0


def vae_entries(checkpoint: Checkpoint, config: VAEConfig, gguf_type: str) -> tuple[Entry, ...]:
    """Every tensor of a VAE in GGUF; raises CheckpointError for an incomplete one."""
    names = vae_tensor_names(checkpoint, config)
    return tuple(
        Entry(name, names[name], shape, _vae_type(shape, gguf_type)) for name, shape in config.tensor_shapes().items()
    )


def _vae_type(shape: Shape, gguf_type: str) -> str:
    if len(shape) == 1:
        return "F32"
    if prod(shape) % _ROW_VALUES:
        # BF16 values need not fit F16.
        return "F32" if gguf_type in ("F32", "BF16") else "F16"
    return gguf_type


def dit_entries(checkpoint: Checkpoint, config: DiTConfig, kind: str, *, is_gguf: bool) -> tuple[Entry, ...]:
    """Every tensor of a transformer and the text embeddings beside it; raises CheckpointError for an incomplete one.

    What is quantised are the matrices of the blocks, as in the public files: those at the model's ends are small and
    matter more. In GGUF vectors and text are F32; in safetensors vectors have the plain type, or F16, and text has BF16
    where that loses nothing.
    """
    names = dit_tensor_names(checkpoint, config)
    entries = [
        Entry(name, names[name], shape, _dit_kind(name, shape, kind, is_gguf=is_gguf))
        for name, shape in config.tensor_shapes().items()
    ]
    if kind not in _PLAIN and not any(entry.kind == kind for entry in entries):
        raise CheckpointError(
            f"{checkpoint.path}: expected matrices whose sizes suit {kind}, found none; convert to another type."
        )
    stored = model_names(checkpoint)
    for name in (POSITIVE_TEXT, NEGATIVE_TEXT):
        if name in stored:
            info = checkpoint.tensors[stored[name]]
            text = Entry(name, stored[name], info.original_shape or info.shape, "F32")
            entries.append(text if is_gguf or not _fits_bf16(checkpoint, text) else _as_bf16(text))
    return tuple(entries)


def _dit_kind(name: str, shape: Shape, kind: str, *, is_gguf: bool) -> str:
    if len(shape) == 1 and is_gguf:
        return "F32"
    if kind in _PLAIN:
        return kind
    if len(shape) != 2 or not name.startswith("blocks."):
        return "F16"
    if is_gguf:
        return kind if shape[1] % _WHOLE_BLOCKS == 0 else "F16"
    if kind in ("MXFP8", "NVFP4") and any(size % _WHOLE_BLOCKS for size in shape):
        return "F16"
    return "INT8" if kind == "INT8_CONVROT" and shape[1] % ROTATION_GROUP else kind


def _fits_bf16(checkpoint: Checkpoint, text: Entry) -> bool:
    values = text.load(checkpoint)
    return torch.equal(values.bfloat16().float(), values)


def _as_bf16(text: Entry) -> Entry:
    return Entry(text.name, text.source_name, text.shape, "BF16")


def source_losses(checkpoint: Checkpoint) -> str:
    """What the source's values had lost before, as its metadata says or its types give away; empty if nothing."""
    if (known := checkpoint.metadata.get(LOSSES_KEY)) is not None and len(known) <= 1000:
        return "; ".join(loss for loss in quoted(known).split("; ") if not loss.endswith(" 0.00e+00"))
    found = {info.quantisation for info in checkpoint.tensors.values() if info.quantisation}
    return "; ".join(f"{quantisation} (not known how much)" for quantisation in sorted(found))


def metadata_of(source_sha256: str, losses: str, kind: str) -> Mapping[str, str]:
    """What a converted transformer says of itself."""
    return {SOURCE_HASH_KEY: source_sha256, LOSSES_KEY: f"{losses}; {kind} {LOSS_PLACE}".removeprefix("; ")}
