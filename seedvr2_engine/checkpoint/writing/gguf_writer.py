"""A model as a GGUF file that ComfyUI-GGUF-style loaders read.

Tensors of more than two axes are stored as rows of 256 values beside metadata that names their shape, for every
type: ggml knows four axes and quantises along the last one, and those loaders put the shape back.
"""

import os
from collections.abc import Mapping, Sequence
from contextlib import closing
from math import prod
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt

from ...models.vae.config import Shape
from ..base import Checkpoint
from ..containers.gguf import ORIGINAL_SHAPE_KEY
from .entries import Entry, Loss, Progress

_ROW_VALUES = 256
_CHUNK_VALUES = 1 << 17


def nbytes_of(entry: Entry) -> int:
    """Bytes of a tensor in the file."""
    block_values, block_bytes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[entry.kind]]
    return prod(entry.shape) // block_values * block_bytes


def write_gguf(
    checkpoint: Checkpoint,
    path: Path,
    entries: Sequence[Entry],
    texts: Mapping[str, str],
    gguf_type: str,
    on_progress: Progress | None,
) -> float:
    """Write and flush the whole file; return the relative RMS of what the new types lose.

    texts: the metadata, of which `general.architecture` and `general.name` must be part. Raises CheckpointError for
    values that a type cannot hold.
    """
    total = sum(entry.count for entry in entries)
    done, loss = 0, Loss()
    with closing(gguf.GGUFWriter(path, texts["general.architecture"])) as writer:
        _add_header(writer, entries, texts, gguf_type)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for entry in entries:
            loaded = entry.load(checkpoint)
            values = loaded.numpy().reshape(-1)
            encoded, squared_error = _encode(values, gguf.GGMLQuantizationType[entry.kind])
            if not np.isfinite(squared_error):
                raise entry.too_large(checkpoint, loaded)
            writer.write_tensor_data(encoded)
            loss.add(entry, squared_error, float(np.dot(values, values)))
            done += values.size
            if on_progress is not None:
                on_progress(done, total)
        writer.flush()
        assert writer.fout is not None
        os.fsync(writer.fout[0].fileno())
    return loss.relative_rms


def _add_header(writer: gguf.GGUFWriter, entries: Sequence[Entry], texts: Mapping[str, str], gguf_type: str) -> None:
    file_type = "ALL_F32" if gguf_type == "F32" else f"MOSTLY_{gguf_type}"
    writer.add_name(texts["general.name"])
    writer.add_quantized_by("SeedVR2 Engine")
    writer.add_file_type(gguf.LlamaFileType[file_type])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    for key, text in texts.items():
        if not key.startswith("general."):
            writer.add_string(key, text)
    stored = {entry.name: _stored_shape(entry.shape) for entry in entries}
    for entry in entries:
        if stored[entry.name] != entry.shape:
            # Python integers become INT32, the only type that the public loaders accept here.
            writer.add_array(ORIGINAL_SHAPE_KEY + entry.name, list(entry.shape))
    for entry in entries:
        # With a dtype other than uint8 the writer takes the shape as counted in values.
        kind = gguf.GGMLQuantizationType[entry.kind]
        writer.add_tensor_info(entry.name, stored[entry.name], np.dtype(np.float32), nbytes_of(entry), raw_dtype=kind)


def _stored_shape(shape: Shape) -> Shape:
    if len(shape) <= 2:
        return shape  # quantised widths are multiples of 32, the longest block written here
    count = prod(shape)
    return (shape[0], count // shape[0]) if count % _ROW_VALUES else (count // _ROW_VALUES, _ROW_VALUES)


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
