"""The GGUF backend: guarded parsing, original shapes, dequantisation.

The layout of the file follows the GGUF specification of ggml, versions 2 and 3. Every length in the file is
checked against the bytes that remain before anything is read or allocated; the limits below bound the rest.
"""

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import gguf
import numpy as np
import numpy.typing as npt
import torch

from ...errors import CheckpointError
from ...models.vae.config import Shape
from ..base import CPU, Checkpoint, PackedTensor, TensorInfo
from ..quoting import quoted
from .stored import StoredBytes

ORIGINAL_SHAPE_KEY = "comfy.gguf.orig_shape."
"""Prefix of the metadata key that names, for one tensor, the shape it had before it was collapsed."""

MAX_DIMENSIONS = 5
"""Axes of a tensor: ggml itself stops at 4, a 3-D convolution has 5."""

# A 7B SeedVR2 file has some 1,000 tensors and a header of 0.1 MB. The limits bound what a hostile header
# costs: 16 MiB of text become at most 64 MiB of Python strings.
_MAX_ENTRIES = 16_384
_MAX_HEADER_BYTES = 16 << 20
_FIRST_BYTES = 1 << 20
"""What is read at first: the whole header of any model of this kind."""
_MAX_NAME_BYTES = 65_535
_MAX_ARRAY_DEPTH = 4
_MAX_SHOWN_VALUES = 64

_SCALAR_FORMATS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9

_PLAIN_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
}
# Dequantisation works on this many values at a time, so that its temporaries stay within a few megabytes.
_CHUNK_VALUES = 1 << 17

MetadataValue: TypeAlias = "bool | int | float | str | tuple[Any, ...]"
"""A scalar, a text, or a short array of scalars; longer arrays are replaced by a text that describes them."""


class GGUFCheckpoint(Checkpoint):
    """A GGUF file; quantised tensors are dequantised in float32 arithmetic."""

    format = "gguf"

    def __init__(self, stored: StoredBytes) -> None:
        header = parse_header(stored)
        super().__init__(
            stored.path,
            {tensor.info.name: tensor.info for tensor in header.tensors},
            {key: _as_text(value) for key, value in header.metadata.items()},
        )
        self._stored = self._resources.enter_context(stored)
        self._offsets = {tensor.info.name: header.data_start + tensor.offset for tensor in header.tensors}

    def _read(self, info: TensorInfo, dtype: torch.dtype | None, device: torch.device) -> torch.Tensor:
        plain = _PLAIN_DTYPES.get(info.type)
        stored = self._stored.read(self._offsets[info.name], info.nbytes, CPU if plain is None else device)
        if plain is not None:
            return stored.view(plain).to(dtype or plain)
        try:
            kind = gguf.GGMLQuantizationType[info.type]
            return dequantise(stored.numpy(), kind, dtype or torch.float32).to(device)
        except NotImplementedError as error:
            raise CheckpointError(
                f"{quoted(info.name)} in {self.path}: expected a type that can be dequantised, got "
                f"{info.type}; convert the model to F16, Q8_0 or another common type."
            ) from error

    def _read_packed(self, info: TensorInfo) -> PackedTensor | None:
        if info.type in _PLAIN_DTYPES:
            return None
        return PackedTensor(self._stored.read(self._offsets[info.name], info.nbytes), info.type)


def dequantise(stored: npt.NDArray[np.uint8], kind: gguf.GGMLQuantizationType, dtype: torch.dtype) -> torch.Tensor:
    """Return the values of whole blocks (a flat byte array), computed in float32 and rounded once to `dtype`.

    A bounded chunk at a time, so that little more than the result is in memory. Raises NotImplementedError for
    the few types that the gguf package cannot dequantise.
    """
    block_values, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    blocks = stored.reshape(-1, block_bytes)
    values = torch.empty(len(blocks), block_values, dtype=dtype)
    step = _CHUNK_VALUES // block_values
    # Damaged blocks hold infinite scales; the caller looks at the values, numpy need not warn.
    with np.errstate(all="ignore"):
        for first in range(0, len(blocks), step):
            # One row per call: the package works through the rows of an array in small groups.
            row = blocks[first : first + step].reshape(1, -1)
            values[first : first + step] = torch.from_numpy(gguf.quants.dequantize(row, kind)).view(-1, block_values)
    return values.view(-1)


@dataclass(frozen=True)
class PlacedTensor:
    """A tensor of the header and where its bytes begin."""

    info: TensorInfo
    offset: int
    """Bytes from the start of the data section."""


@dataclass(frozen=True)
class GGUFHeader:
    """Everything a GGUF file says before its data."""

    metadata: Mapping[str, MetadataValue]
    tensors: tuple[PlacedTensor, ...]
    data_start: int
    """Byte offset of the data section in the file."""


class _Cursor:
    """A position in the header; every read is checked against what is left of the file."""

    def __init__(self, stored: StoredBytes) -> None:
        self.path = stored.path
        self.file_bytes = stored.size
        self.data = stored.head(_FIRST_BYTES)
        self.position = 0
        self.arrays = 0
        """Arrays of arrays seen so far."""
        self._stored = stored

    def take(self, size: int, what: str) -> int:
        """Step over `size` bytes, which are then in `data`, and return where they begin."""
        begin = self.position
        if size > self.file_bytes - begin:
            raise self.damaged(f"{size} bytes for {what} at byte {begin}", f"{self.file_bytes - begin} to the end")
        if begin + size > _MAX_HEADER_BYTES:
            raise self.damaged(f"a header of at most {_MAX_HEADER_BYTES} bytes", "a longer one")
        if begin + size > len(self.data):
            self.data = self._stored.head(_MAX_HEADER_BYTES)
        self.position = begin + size
        return begin

    def skip_texts(self, count: int) -> None:
        """Step over `count` texts without looking at them: a language model's vocabulary has a million."""
        if len(self.data) < min(self.file_bytes, _MAX_HEADER_BYTES):
            self.data = self._stored.head(_MAX_HEADER_BYTES)
        data = self.data
        position, end, length_at = self.position, len(data) - 8, struct.Struct("<Q").unpack_from
        for _ in range(count):
            if position > end:
                break
            position += 8 + length_at(data, position)[0]
        else:
            self.take(position - self.position, f"{count} texts")
            return
        raise self.damaged(f"{count} texts", "fewer to the end of the header")

    def scalar(self, code: str, what: str) -> Any:
        begin = self.take(struct.calcsize(f"<{code}"), what)
        return struct.unpack_from(f"<{code}", self.data, begin)[0]

    def text(self, what: str, limit: int = _MAX_HEADER_BYTES) -> str:
        size = self.scalar("Q", f"the length of {what}")
        if size > limit:
            raise self.damaged(f"{what} of at most {limit} bytes", f"a length of {size}")
        begin = self.take(size, what)
        try:
            return str(memoryview(self.data)[begin : begin + size], "utf-8")
        except UnicodeDecodeError as error:
            raise self.damaged(f"{what} in UTF-8", "other bytes") from error

    def count(self, what: str) -> int:
        number: int = self.scalar("Q", f"the number of {what}")
        if number > _MAX_ENTRIES:
            raise self.damaged(f"at most {_MAX_ENTRIES} {what}", str(number))
        return number

    def damaged(self, expected: str, found: str) -> CheckpointError:
        return CheckpointError(
            f"{self.path}: expected {expected}, found {found}; the GGUF file is truncated or damaged, "
            "download it again."
        )


def parse_header(stored: StoredBytes) -> GGUFHeader:
    """Parse and check the header of a GGUF file; raises CheckpointError."""
    path, cursor = stored.path, _Cursor(stored)
    cursor.take(4, "the magic")
    version = cursor.scalar("I", "the version")
    if version and version & 0xFFFF == 0:
        raise CheckpointError(
            f"{path}: expected a little-endian GGUF file, found a big-endian one; use the little-endian file."
        )
    if version not in (2, 3):
        raise CheckpointError(f"{path}: expected GGUF version 2 or 3, found {version}; convert the model again.")
    tensor_count = cursor.count("tensors")
    metadata_count = cursor.count("metadata entries")
    metadata: dict[str, MetadataValue] = {}
    for _ in range(metadata_count):
        key = cursor.text("a metadata key", _MAX_NAME_BYTES)
        if key in metadata:
            raise cursor.damaged("metadata keys that differ", f"{quoted(key)} twice")
        metadata[key] = _read_value(cursor, cursor.scalar("I", "a metadata type"), depth=0)
    alignment = metadata.get("general.alignment", gguf.GGUF_DEFAULT_ALIGNMENT)
    if type(alignment) is not int or alignment <= 0 or alignment & (alignment - 1):
        raise cursor.damaged("an alignment that is a power of two", quoted(_as_text(alignment)))
    tensors = tuple(_read_tensor(cursor, metadata) for _ in range(tensor_count))
    data_start = -(-cursor.position // alignment) * alignment
    _check_places(cursor, tensors, data_start, alignment)
    return GGUFHeader(metadata, tensors, data_start)


def _read_value(cursor: _Cursor, kind: int, depth: int) -> MetadataValue:
    if kind == _STRING:
        return cursor.text("a metadata text")
    if kind in _SCALAR_FORMATS:
        value: MetadataValue = cursor.scalar(_SCALAR_FORMATS[kind], "a metadata value")
        return value
    if kind != _ARRAY:
        raise cursor.damaged("a metadata type from 0 to 12", str(kind))
    if depth == _MAX_ARRAY_DEPTH:
        raise cursor.damaged(f"arrays nested at most {_MAX_ARRAY_DEPTH} deep", "deeper ones")
    inner = cursor.scalar("I", "an array's type")
    length = cursor.scalar("Q", "an array's length")
    if inner in _SCALAR_FORMATS:
        code = _SCALAR_FORMATS[inner]
        begin = cursor.take(length * struct.calcsize(f"<{code}"), f"an array of {length} values")
        if length <= _MAX_SHOWN_VALUES:
            return struct.unpack_from(f"<{length}{code}", cursor.data, begin)
    elif inner == _STRING:
        cursor.skip_texts(length)
    else:
        # Each takes at least 12 bytes, so a lying length ends at the end of the file, if not before.
        cursor.arrays += length
        if cursor.arrays > _MAX_ENTRIES:
            raise cursor.damaged(f"at most {_MAX_ENTRIES} arrays inside others", f"{cursor.arrays}")
        for _ in range(length):
            _read_value(cursor, inner, depth + 1)
    return f"array of {length} values"


def _as_text(value: MetadataValue) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _read_tensor(cursor: _Cursor, metadata: Mapping[str, MetadataValue]) -> PlacedTensor:
    name = cursor.text("a tensor name", _MAX_NAME_BYTES)
    shown = quoted(name)
    axes = cursor.scalar("I", "the number of axes")
    if axes > MAX_DIMENSIONS:
        raise cursor.damaged(f"at most {MAX_DIMENSIONS} axes for {shown}", str(axes))
    begin = cursor.take(8 * axes, f"the shape of {shown}")
    # The file counts axes from the fastest one, PyTorch from the slowest.
    shape: Shape = struct.unpack_from(f"<{axes}Q", cursor.data, begin)[::-1]
    number = cursor.scalar("I", f"the type of {shown}")
    offset = cursor.scalar("Q", f"the offset of {shown}")
    try:
        kind = gguf.GGMLQuantizationType(number)
    except ValueError as error:
        raise CheckpointError(
            f"{shown} in {cursor.path}: expected a known GGML type, found number {number}; the file "
            "is damaged or needs a newer gguf package."
        ) from error
    block_values, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    if 0 in shape or (shape[-1] if shape else 1) % block_values:
        raise cursor.damaged(f"axes for {shown} with whole blocks of {block_values} {kind.name} values", f"{shape}")
    nbytes = math.prod(shape) // block_values * block_bytes
    original = _original_shape(cursor, name, shape, metadata)
    return PlacedTensor(TensorInfo(name, shape, kind.name, nbytes, original), offset)


def _original_shape(cursor: _Cursor, name: str, shape: Shape, metadata: Mapping[str, MetadataValue]) -> Shape | None:
    value = metadata.get(ORIGINAL_SHAPE_KEY + name)
    if value is None:
        return None
    if (
        not isinstance(value, tuple)
        or not 0 < len(value) <= MAX_DIMENSIONS
        or not all(type(size) is int and size > 0 for size in value)
        or math.prod(value) != math.prod(shape)
    ):
        raise cursor.damaged(
            f"an original shape of {math.prod(shape)} values for {quoted(name)}", quoted(_as_text(value))
        )
    return value


def _check_places(cursor: _Cursor, tensors: tuple[PlacedTensor, ...], data_start: int, alignment: int) -> None:
    """Refuse tensors that share a name, are misaligned, overlap, or reach beyond the end of the file."""
    names = set()
    end = 0
    for tensor in sorted(tensors, key=lambda placed: placed.offset):
        name = quoted(tensor.info.name)
        if tensor.info.name in names:
            raise cursor.damaged("tensor names that differ", f"{name} twice")
        names.add(tensor.info.name)
        if tensor.offset % alignment:
            raise cursor.damaged(f"an offset of {name} that is a multiple of {alignment}", str(tensor.offset))
        if tensor.offset < end:
            raise cursor.damaged("tensors that do not overlap", f"{name} inside another one")
        end = tensor.offset + tensor.info.nbytes
        if data_start + end > cursor.file_bytes:
            raise cursor.damaged(f"{name} to end at byte {data_start + end}", f"a file of {cursor.file_bytes} bytes")
