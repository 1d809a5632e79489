"""Write a SeedVR2 VAE as a GGUF file that ComfyUI-GGUF-style loaders read.

Tensors of more than two axes are stored as rows of 256 values beside metadata that names their shape, for every
type: ggml knows four axes and quantises along the last one, and those loaders put the shape back.
"""

import hashlib
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from math import prod, sqrt
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt
import torch

from ..errors import CheckpointError, InvalidArgumentError, ModelFileError, OutputError
from ..models.vae.config import Shape, VAEConfig
from ..output.unfinished import PartialFile
from .base import Checkpoint
from .detect import detect_vae, is_vae, load_finite, vae_tensor_names
from .gguf import ORIGINAL_SHAPE_KEY
from .locating.registry import MODEL_FILES
from .opening import open_checkpoint

WRITABLE_TYPES = ("F32", "F16", "BF16", "Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0")
"""What `convert_to_gguf` writes, from the most to the least exact of each kind.

The gguf package quantises TQ1_0, TQ2_0 and MXFP4 too, but no public loader of this VAE reads those, and it has no
quantiser for the K and IQ types.
"""

ARCHITECTURE = "seedvr2_vae"
"""The value of `general.architecture` in files that are written here."""

SOURCE_HASH_KEY = "seedvr2.source_sha256"
"""Metadata key of the SHA-256 of the file a conversion started from."""

Progress = Callable[[int, int], None]
"""Called with (values written, values in all); an exception it raises stops the conversion and removes the rest."""

_ROW_VALUES = 256
_CHUNK_VALUES = 1 << 17


@dataclass(frozen=True)
class ConversionReport:
    """What a conversion wrote."""

    target: Path
    """The new file."""
    config: VAEConfig
    """The model in it."""
    source_bytes: int
    """Size of the file it was made from."""
    target_bytes: int
    """Size of the new file."""
    parameters: int
    """Number of values."""
    tensors_by_type: Mapping[str, int]
    """GGML type -> number of tensors stored in it."""
    relative_rms: float
    """Root mean square of (new - old) over that of old, over all values; 0 when nothing was lost."""


@dataclass(frozen=True)
class _Entry:
    """One tensor of the new file."""

    name: str
    source_name: str
    shape: Shape
    stored_shape: Shape
    kind: gguf.GGMLQuantizationType

    @property
    def nbytes(self) -> int:
        block_values, block_bytes = gguf.GGML_QUANT_SIZES[self.kind]
        return prod(self.shape) // block_values * block_bytes


def convert_to_gguf(
    source: Path,
    target: Path,
    gguf_type: str,
    *,
    overwrite: bool = False,
    on_progress: Progress | None = None,
) -> ConversionReport:
    """Write the VAE in `source` (safetensors or GGUF, any type) to `target`, its weights as `gguf_type`.

    Norms and biases are stored as F32, the two convolutions whose element count is no multiple of 256 as F16
    (beside F32 and BF16 weights as F32). One tensor at a time is in memory. The file appears under its name when
    it is complete; on any failure `target` is as before. `overwrite` replaces another VAE in GGUF and nothing else.
    Raises InvalidArgumentError, CheckpointError, ModelFileError or OutputError.
    """
    if gguf_type not in WRITABLE_TYPES:
        raise InvalidArgumentError(f"type: expected one of {', '.join(WRITABLE_TYPES)}, got {gguf_type!r}.")
    source, target = Path(source), Path(target)
    with open_checkpoint(source) as checkpoint:
        _check_target(source, target, overwrite)
        config = detect_vae(checkpoint)
        entries = _entries(config, vae_tensor_names(checkpoint, config), gguf_type)
        _check_space(target, sum(entry.nbytes for entry in entries))
        digest = _sha256(source)
        with _output_errors(target), PartialFile(target, overwrite=overwrite, keeps_ending=False) as partial:
            relative_rms = _write(checkpoint, partial.path, entries, _Notes(gguf_type, digest), on_progress)
            target_bytes = partial.size_bytes
            _check_target(source, target, overwrite)  # Minutes have passed.
    return ConversionReport(
        target=target,
        config=config,
        source_bytes=source.stat().st_size,
        target_bytes=target_bytes,
        parameters=sum(prod(entry.shape) for entry in entries),
        tensors_by_type=dict(Counter(entry.kind.name for entry in entries)),
        relative_rms=relative_rms,
    )


@dataclass(frozen=True)
class _Notes:
    """What the metadata of the new file says about its making."""

    gguf_type: str
    source_sha256: str


def _entries(config: VAEConfig, names: Mapping[str, str], gguf_type: str) -> tuple[_Entry, ...]:
    entries = []
    for name, shape in config.tensor_shapes().items():
        kind = gguf.GGMLQuantizationType[_type_of(shape, gguf_type)]
        entries.append(_Entry(name, names[name], shape, _stored_shape(shape), kind))
    return tuple(entries)


def _type_of(shape: Shape, gguf_type: str) -> str:
    if len(shape) == 1:
        return "F32"
    if prod(shape) % _ROW_VALUES:
        # BF16 values need not fit F16.
        return "F32" if gguf_type in ("F32", "BF16") else "F16"
    return gguf_type


def _stored_shape(shape: Shape) -> Shape:
    if len(shape) <= 2:
        return shape  # widths are multiples of 32, the longest block written here
    count = prod(shape)
    return (shape[0], count // shape[0]) if count % _ROW_VALUES else (count // _ROW_VALUES, _ROW_VALUES)


def _write(
    checkpoint: Checkpoint, path: Path, entries: tuple[_Entry, ...], notes: _Notes, on_progress: Progress | None
) -> float:
    """Write and flush the whole file; return the relative RMS of what the new types lose."""
    total = sum(prod(entry.shape) for entry in entries)
    done, lost, energy = 0, 0.0, 0.0
    with closing(gguf.GGUFWriter(path, ARCHITECTURE)) as writer:
        _add_header(writer, entries, notes)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for entry in entries:
            loaded = load_finite(checkpoint, entry.source_name, entry.shape, torch.float32)
            values = loaded.numpy().reshape(-1)
            encoded, squared_error = _encode(values, entry.kind)
            if not np.isfinite(squared_error):
                raise CheckpointError(
                    f"{entry.name} in {checkpoint.path}: expected values within the range of {entry.kind.name}, "
                    f"found {np.abs(values).max():.4g}; convert to F32."
                )
            writer.write_tensor_data(encoded)
            lost += squared_error
            energy += float(np.dot(values, values))
            done += values.size
            if on_progress is not None:
                on_progress(done, total)
        writer.flush()
        assert writer.fout is not None
        os.fsync(writer.fout[0].fileno())
    return sqrt(lost / energy) if energy else 0.0


def _add_header(writer: gguf.GGUFWriter, entries: tuple[_Entry, ...], notes: _Notes) -> None:
    file_type = "ALL_F32" if notes.gguf_type == "F32" else f"MOSTLY_{notes.gguf_type}"
    writer.add_name("SeedVR2 VAE")
    writer.add_quantized_by("SeedVR2 Engine")
    writer.add_file_type(gguf.LlamaFileType[file_type])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_string(SOURCE_HASH_KEY, notes.source_sha256)
    for entry in entries:
        if entry.stored_shape != entry.shape:
            # Python integers become INT32, the only type that the public loaders accept here.
            writer.add_array(ORIGINAL_SHAPE_KEY + entry.name, list(entry.shape))
    for entry in entries:
        # With a dtype other than uint8 the writer takes the shape as counted in values.
        writer.add_tensor_info(entry.name, entry.stored_shape, np.dtype(np.float32), entry.nbytes, raw_dtype=entry.kind)


def _encode(values: npt.NDArray[np.float32], kind: gguf.GGMLQuantizationType) -> tuple[npt.NDArray[np.uint8], float]:
    """Return the stored bytes and the sum of squared errors; the sum is not finite if a value does not fit."""
    block_values, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    encoded = np.empty(values.size // block_values * block_bytes, np.uint8)
    squared_error = 0.0
    position = 0
    with np.errstate(all="ignore"):
        for first in range(0, values.size, _CHUNK_VALUES):
            # One row per call: the package works through the rows of an array in small groups.
            chunk = values[np.newaxis, first : first + _CHUNK_VALUES]
            stored = gguf.quants.quantize(chunk, kind).view(np.uint8)
            encoded[position : position + stored.size] = stored[0]
            position += stored.size
            error = gguf.quants.dequantize(stored, kind)[0] - chunk[0]
            squared_error += float(np.dot(error, error))
    return encoded, squared_error


def _check_target(source: Path, target: Path, overwrite: bool) -> None:
    if not target.parent.is_dir():
        raise OutputError(f"{target}: expected an existing folder, found none; create {target.parent} first.")
    if target.is_dir():
        raise OutputError(f"{target}: expected the name of a file, found a folder; add a file name.")
    if target.name.casefold() in {model.name.casefold() for model in MODEL_FILES}:
        raise OutputError(
            f"{target}: expected a name of your own, got that of a public file, which promises other content; choose "
            "another name."
        )
    if not os.path.lexists(target):
        return
    # By the file and not by its name: hard links, and names that differ in case alone.
    if target.exists() and target.samefile(source):
        raise OutputError(f"{target}: expected another file than the source; choose another name.")
    if not overwrite:
        raise OutputError(
            f"{target}: expected no such file, found one; choose another name or ask to overwrite it (--overwrite)."
        )
    _check_replaceable(target)


def _check_replaceable(target: Path) -> None:
    """Whoever asks to overwrite means an older conversion: a transformer of 16 GB is never replaced by a VAE."""
    try:
        with open_checkpoint(target) as existing:
            found = "" if existing.format == "gguf" and is_vae(existing) else "another model"
    except (CheckpointError, ModelFileError):
        found = "a file that is no model"
    if found:
        raise OutputError(
            f"{target}: expected a VAE in GGUF to overwrite, found {found}; choose another name, or remove it yourself."
        )


def _check_space(target: Path, data_bytes: int) -> None:
    free_bytes = shutil.disk_usage(target.parent).free
    if free_bytes < data_bytes:
        raise OutputError(
            f"{target}: expected {data_bytes / 1e6:.0f} MB of free space, found {free_bytes / 1e6:.0f} MB; "
            "make room or choose another folder."
        )


@contextmanager
def _output_errors(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        # numpy reports a full disk without an error number, in words only.
        raise OutputError(
            f"{target}: the file could not be written ({error.strerror or error}) and nothing was left behind; "
            "make room or choose another folder."
        ) from error


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
