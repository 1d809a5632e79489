"""Write a SeedVR2 VAE as GGUF, or a transformer as GGUF or as safetensors in ComfyUI's layouts."""

import os
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import CheckpointError, InvalidArgumentError
from ..models.dit.config import DiTConfig
from ..models.vae.config import VAEConfig
from ..output.unfinished import PartialFile
from .base import Checkpoint
from .detect import detect_vae, is_dit, is_vae, model_names
from .detect_dit import NEGATIVE_TEXT, POSITIVE_TEXT, detect_dit
from .opening import open_checkpoint
from .writing import gguf_writer, safetensors_writer
from .writing.entries import (
    LOSS_PLACE,
    LOSSES_KEY,
    SAFETENSORS_FORMATS,
    SOURCE_HASH_KEY,
    Entry,
    Progress,
    dit_entries,
    metadata_of,
    source_losses,
    vae_entries,
)
from .writing.targets import check_space, check_target, output_errors, sha256_of

__all__ = [
    "LOSSES_KEY",
    "SAFETENSORS_FORMATS",
    "SOURCE_HASH_KEY",
    "WRITABLE_TYPES",
    "ConversionReport",
    "Progress",
    "convert_to_gguf",
    "convert_to_safetensors",
]

WRITABLE_TYPES = ("F32", "F16", "BF16", "Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0")
"""What `convert_to_gguf` writes, from the most to the least exact of each kind.

The gguf package quantises TQ1_0, TQ2_0 and MXFP4 too, but no public loader of these models reads those, and it has no
quantiser for the K and IQ types.
"""

ARCHITECTURE = "seedvr2_vae"
"""The value of `general.architecture` in VAE files that are written here."""
DIT_ARCHITECTURE = "seedvr2"
"""The same in transformers."""

_HEAD_BYTES = 4 << 20
"""Where a new file's metadata ends at the latest."""


@dataclass(frozen=True)
class ConversionReport:
    """What a conversion wrote."""

    target: Path
    """The new file."""
    config: VAEConfig | DiTConfig
    """The model in it."""
    source_bytes: int
    """Size of the file it was made from."""
    target_bytes: int
    """Size of the new file."""
    parameters: int
    """Number of values."""
    tensors_by_type: Mapping[str, int]
    """Type or format -> number of tensors stored in it."""
    relative_rms: float
    """Root mean square of (new - old) over that of old, over all weights; 0 when nothing was lost."""
    source_losses: str = ""
    """What the source had lost already, which no conversion brings back: its quantised types; empty if nothing."""
    lacks_text: bool = False
    """Whether this is a transformer without its two text embeddings, which ComfyUI's own loader asks for."""


def convert_to_gguf(
    source: Path,
    target: Path,
    gguf_type: str,
    *,
    overwrite: bool = False,
    on_progress: Progress | None = None,
) -> ConversionReport:
    """Write the model in `source` (safetensors or GGUF, any type) to `target`, its weights as `gguf_type`.

    Norms and biases are stored as F32. Of a VAE, the two convolutions whose element count is no multiple of 256 are F16
    (beside F32 and BF16 weights F32); of a transformer, the matrices outside the blocks. One tensor at a time is in
    memory. The file appears under its name when it is complete; on any failure `target` is as before. `overwrite`
    replaces an older conversion of the same kind of model and nothing else.
    Raises InvalidArgumentError, CheckpointError, ModelFileError or OutputError.
    """
    if gguf_type not in WRITABLE_TYPES:
        raise InvalidArgumentError(f"type: expected one of {', '.join(WRITABLE_TYPES)}, got {gguf_type!r}.")
    source, target = Path(source), Path(target)
    with open_checkpoint(source) as checkpoint:
        conversion = _Conversion(checkpoint, source, target, overwrite, "gguf")
        entries: tuple[Entry, ...]
        if conversion.is_dit:
            config: VAEConfig | DiTConfig = (dit := detect_dit(checkpoint))
            entries = dit_entries(checkpoint, dit, gguf_type, is_gguf=True)
            names = {"general.architecture": DIT_ARCHITECTURE, "general.name": "SeedVR2 transformer"}
        else:
            config = (vae := detect_vae(checkpoint))
            entries = vae_entries(checkpoint, vae, gguf_type)
            names = {"general.architecture": ARCHITECTURE, "general.name": "SeedVR2 VAE"}

        def write(partial: PartialFile, texts: Mapping[str, str]) -> float:
            return gguf_writer.write_gguf(checkpoint, partial.path, entries, {**names, **texts}, gguf_type, on_progress)

        return conversion.run(config, entries, gguf_type, gguf_writer.nbytes_of, write)


def convert_to_safetensors(
    source: Path,
    target: Path,
    format: str,
    *,
    overwrite: bool = False,
    on_progress: Progress | None = None,
) -> ConversionReport:
    """Write the transformer in `source` (safetensors or GGUF, any type) to `target`, one of `SAFETENSORS_FORMATS`.

    FP8: E4M3 with a scale a matrix. INT8: a scale a row; INT8_CONVROT rotates 256 columns together first. Matrices
    whose sizes do not suit the format, all others outside the blocks, and vectors are F16. Else as `convert_to_gguf`.
    """
    if format not in SAFETENSORS_FORMATS:
        raise InvalidArgumentError(f"type: expected one of {', '.join(SAFETENSORS_FORMATS)}, got {format!r}.")
    source, target = Path(source), Path(target)
    with open_checkpoint(source) as checkpoint:
        if is_vae(checkpoint) and not is_dit(checkpoint):
            raise CheckpointError(
                f"{source}: expected a transformer (DiT) to write as safetensors, found a VAE; choose a name ending in "
                ".gguf."
            )
        conversion = _Conversion(checkpoint, source, target, overwrite, "safetensors")
        config = detect_dit(checkpoint)
        entries = dit_entries(checkpoint, config, format, is_gguf=False)

        def write(partial: PartialFile, texts: Mapping[str, str]) -> float:
            return safetensors_writer.write_safetensors(checkpoint, partial, entries, texts, on_progress)

        return conversion.run(config, entries, format, safetensors_writer.nbytes_of, write)


class _Conversion:
    """What is the same for every model and container."""

    def __init__(self, checkpoint: Checkpoint, source: Path, target: Path, overwrite: bool, container: str) -> None:
        self.is_dit = is_dit(checkpoint)
        self._checkpoint, self._source, self._target = checkpoint, source, target
        self._overwrite, self._container = overwrite, container
        self._check_target()

    def run(
        self,
        config: VAEConfig | DiTConfig,
        entries: tuple[Entry, ...],
        kind: str,
        nbytes_of: Callable[[Entry], int],
        write: Callable[[PartialFile, Mapping[str, str]], float],
    ) -> ConversionReport:
        """Write the file with `write(file, metadata)`, which returns the loss; nothing is left of it on any failure."""
        check_space(self._target, sum(map(nbytes_of, entries)))
        losses = source_losses(self._checkpoint)
        texts = metadata_of(sha256_of(self._source), losses, kind)
        if not self.is_dit:
            texts = {SOURCE_HASH_KEY: texts[SOURCE_HASH_KEY]}
        with (
            output_errors(self._target),
            PartialFile(self._target, overwrite=self._overwrite, keeps_ending=False) as partial,
        ):
            relative_rms = write(partial, texts)
            if self.is_dit:
                _put_loss(partial, relative_rms)
            target_bytes = partial.size_bytes
            self._check_target()  # Minutes have passed.
        stored = model_names(self._checkpoint)
        return ConversionReport(
            target=self._target,
            config=config,
            source_bytes=self._source.stat().st_size,
            target_bytes=target_bytes,
            parameters=sum(entry.count for entry in entries),
            tensors_by_type=dict(Counter(entry.kind for entry in entries)),
            relative_rms=relative_rms,
            source_losses=losses,
            lacks_text=self.is_dit and not {POSITIVE_TEXT, NEGATIVE_TEXT} <= stored.keys(),
        )

    def _check_target(self) -> None:
        container = "GGUF" if self._container == "gguf" else self._container
        what = f"an older conversion of a transformer to {container}" if self.is_dit else f"a VAE in {container}"
        check_target(self._source, self._target, self._overwrite, what, self._is_replaceable)

    def _is_replaceable(self, existing: Checkpoint) -> bool:
        if existing.format != self._container:
            return False
        # Where a transformer came from is not known, so only what was written here is replaced.
        return is_dit(existing) and SOURCE_HASH_KEY in existing.metadata if self.is_dit else is_vae(existing)


def _put_loss(partial: PartialFile, relative_rms: float) -> None:
    """Write the loss into its place in the metadata, which is as long."""
    with partial.path.open("r+b") as file:
        place = file.read(_HEAD_BYTES).index(LOSS_PLACE.encode())
        text = f"{relative_rms:.2e}".encode()
        assert len(text) == len(LOSS_PLACE)
        file.seek(place)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
