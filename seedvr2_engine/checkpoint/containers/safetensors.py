"""The safetensors backend; quantised weights (`quantised`) are dequantised on reading."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from ...errors import CheckpointError
from ..base import CPU, Checkpoint, PackedTensor, TensorInfo
from ..quoting import quoted
from .quantised import FLOAT_TYPES, FP8_FORMATS, find_quantised
from .stored import StoredBytes
from .unpack import unpack

# The header of the largest SeedVR2 model takes 0.2 MB; this bounds the memory that parsing JSON takes.
_MAX_HEADER_BYTES = 2 << 20

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""The types that are read, in the format's own words."""

_BLOCK_SCALES = {"MXFP8": torch.uint8, "NVFP4": torch.float8_e4m3fn}
"""What the scales of blocks are handed out as."""


class SafetensorsCheckpoint(Checkpoint):
    """A safetensors file; quantised weights are dequantised in float32 arithmetic."""

    format = "safetensors"

    def __init__(self, stored: StoredBytes) -> None:
        path = stored.path
        text = _header_text(stored)
        try:
            # The package checks every offset and shape, so the JSON may be trusted after this line.
            with safe_open(path, framework="pt"):
                header = json.loads(text, object_pairs_hook=_without_duplicates)
        except (SafetensorError, OSError, ValueError, RecursionError) as error:
            raise _damaged(path, error) from error
        notes = header.pop("__metadata__", None) or {}
        infos = {name: _tensor_info(name, entry) for name, entry in header.items()}
        self._infos = infos
        self._begins = {name: 8 + len(text) + entry["data_offsets"][0] for name, entry in header.items()}
        self._stored = stored
        try:
            tensors, self._quantised = find_quantised(path, infos, notes, lambda name: bytes(self._bytes(name).numpy()))
        except RecursionError as error:
            raise _damaged(path, error) from error
        super().__init__(path, tensors, notes)
        self._resources.enter_context(stored)

    def _read(self, info: TensorInfo, dtype: torch.dtype | None, device: torch.device) -> torch.Tensor:
        packed = self._read_packed(info)
        if packed is not None:
            return unpack(packed, info.shape, dtype or torch.float32).to(device)
        if info.type not in _DTYPES:
            raise CheckpointError(
                f"{quoted(info.name)} in {self.path}: expected a plain or FP8 type, got {quoted(info.type)}; "
                "use an F16 file of this model."
            )
        values = self._values(info.name, device)
        return values.to(dtype or values.dtype)

    def _read_packed(self, info: TensorInfo) -> PackedTensor | None:
        weight = self._quantised.get(info.name)
        if weight is None:
            return PackedTensor(self._bytes(info.name), info.type) if info.type in FP8_FORMATS else None
        floats = {
            role: self._values(name).float().flatten()
            for role, name in weight.companions.items()
            if self._infos[name].type in FLOAT_TYPES
        }
        if (blocks := _BLOCK_SCALES.get(info.type)) is not None:
            name = weight.companions["scale"]
            floats["scale"] = self._bytes(name).view(blocks).reshape(self._infos[name].shape)
        return PackedTensor(
            data=self._bytes(info.name),
            type=info.type,
            scale=floats.get("scale"),
            tensor_scale=floats["tensor_scale"].reshape(()) if "tensor_scale" in floats else None,
            rotation=weight.rotation,
            pre_scale=floats.get("pre_scale"),
            input_scale=floats.get("input_scale"),
            full_precision=weight.full_precision,
            shape=info.shape if info.padded_to > 1 else None,
        )

    def _values(self, name: str, device: torch.device = CPU) -> torch.Tensor:
        info = self._infos[name]
        return self._bytes(name, device).view(_DTYPES[info.type]).reshape(info.shape)

    def _bytes(self, name: str, device: torch.device = CPU) -> torch.Tensor:
        return self._stored.read(self._begins[name], self._infos[name].nbytes, device)


def _header_text(stored: StoredBytes) -> bytes:
    """Read the JSON header, after checking the length that the file claims for it."""
    path = stored.path
    header_bytes = int.from_bytes(stored.head(8), "little")
    if header_bytes > stored.size - 8:
        raise CheckpointError(
            f"{path}: expected a safetensors header of {header_bytes} bytes, found only "
            f"{max(stored.size - 8, 0)} bytes in the file; it is truncated or damaged, download it again."
        )
    if header_bytes > _MAX_HEADER_BYTES:
        raise CheckpointError(
            f"{path}: expected a safetensors header of at most {_MAX_HEADER_BYTES} bytes, found "
            f"{header_bytes}; this is not a SeedVR2 model."
        )
    return stored.head(8 + header_bytes)[8:]


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) != len(pairs):
        [(twice, _)] = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"{quoted(twice)} occurs twice")
    return entries


def _tensor_info(name: str, entry: dict[str, Any]) -> TensorInfo:
    begin, end = entry["data_offsets"]
    return TensorInfo(name, tuple(entry["shape"]), entry["dtype"], end - begin)


def _damaged(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"{path}: expected a complete safetensors file, found one that is truncated or damaged "
        f"({quoted(str(error))}); download it again."
    )
