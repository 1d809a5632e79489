"""Checkpoint files put together byte by byte, so that tests can make each part lie."""

import json
import struct
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

UINT8, INT8, UINT16, INT16, UINT32, INT32, FLOAT32, BOOL, STRING, ARRAY, UINT64, INT64, FLOAT64 = range(13)
INTEGER_CODES = {UINT8: "B", INT8: "b", UINT16: "H", INT16: "h", UINT32: "I", INT32: "i", UINT64: "Q", INT64: "q"}

F32, F16, Q8_0, Q8_1, Q8_K, I32, BF16 = 0, 1, 8, 9, 15, 26, 30


@lru_cache(maxsize=1)
def second() -> float:
    """What takes a second on a usual processor, on this one: seconds of its time, measured with a loop."""
    began = time.process_time()
    for index in range(1_000_000):
        str(index)
    return max(1.0, (time.process_time() - began) / 0.15)


@dataclass(frozen=True)
class ForgedTensor:
    """One tensor of a forged GGUF file."""

    name: str | bytes
    axes: Sequence[int]
    """Fastest axis first, as the file stores them."""
    kind: int
    data: bytes
    offset: int | None = None
    """None puts the data after that of the tensor before."""


def text(value: str | bytes, length: int | None = None) -> bytes:
    """A GGUF string whose length may lie."""
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw) if length is None else length) + raw


def entry(key: str | bytes, kind: int, payload: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + payload


def string_entry(key: str, value: str) -> bytes:
    return entry(key, STRING, text(value))


def array_payload(kind: int, values: Sequence[int], length: int | None = None) -> bytes:
    packed = struct.pack(f"<{len(values)}{INTEGER_CODES[kind]}", *values)
    return struct.pack("<IQ", kind, len(values) if length is None else length) + packed


def shape_entry(tensor: str, sizes: Sequence[int], kind: int = INT32) -> bytes:
    return entry(f"comfy.gguf.orig_shape.{tensor}", ARRAY, array_payload(kind, sizes))


def nested_arrays(depth: int) -> bytes:
    """The payload of an array in an array in an array ..., with one empty array innermost."""
    return struct.pack("<IQ", ARRAY, 1) * depth + struct.pack("<IQ", UINT8, 0)


def gguf_file(
    tensors: Sequence[ForgedTensor] = (),
    metadata: Sequence[bytes] = (),
    *,
    version: int = 3,
    alignment: int = 32,
    counts: tuple[int, int] | None = None,
) -> bytes:
    """A whole file; `counts` replaces the true numbers of tensors and metadata entries."""
    tensor_count, metadata_count = counts or (len(tensors), len(metadata))
    header = b"GGUF" + struct.pack("<IQQ", version, tensor_count, metadata_count) + b"".join(metadata)
    data = b""
    for tensor in tensors:
        data += bytes(-len(data) % alignment)
        offset = len(data) if tensor.offset is None else tensor.offset
        header += text(tensor.name) + struct.pack(f"<I{len(tensor.axes)}Q", len(tensor.axes), *tensor.axes)
        header += struct.pack("<IQ", tensor.kind, offset)
        data += tensor.data
    return header + bytes(-len(header) % alignment) + data if tensors else header


def safetensors_file(
    tensors: Iterable[tuple[str, str, Sequence[int], bytes]], metadata: dict[str, str] | None = None
) -> bytes:
    """A whole file of (name, dtype, shape, data)."""
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    data = b""
    for name, dtype, shape, raw in tensors:
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    return raw_safetensors(json.dumps(header), data)


def raw_safetensors(header: str | bytes, data: bytes = b"", length: int | None = None) -> bytes:
    """A file with this header text, whose length may lie."""
    raw = header.encode() if isinstance(header, str) else header
    return struct.pack("<Q", len(raw) if length is None else length) + raw + data
