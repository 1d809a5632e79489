"""The safetensors backend; scales beside FP8 weights are applied on reading."""

import json
import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from ..errors import CheckpointError
from .base import Checkpoint, PackedTensor, TensorInfo, quoted
from .stored import StoredBytes

# The header of the largest SeedVR2 model takes 0.2 MB; this bounds the memory that parsing JSON takes.
_MAX_HEADER_BYTES = 2 << 20

_FP8_TYPES = frozenset({"F8_E4M3", "F8_E5M2"})
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

_SCALE_SUFFIXES = (".weight_scale", ".scale_weight")
# Activation scales and the format note do not change the value of a weight.
_HARMLESS_SUFFIXES = (".input_scale", ".scale_input", ".comfy_quant")
_REFUSED_SUFFIXES = (".weight_scale_2", ".weight_scale_inv", ".pre_quant_scale")
_FP8_MARKER = "scaled_fp8"


class SafetensorsCheckpoint(Checkpoint):
    """A safetensors file; scales beside FP8 weights are applied on reading."""

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
        tensors, self._scales = _without_companions(path, infos)
        self._infos = infos
        self._begins = {name: 8 + len(text) + entry["data_offsets"][0] for name, entry in header.items()}
        super().__init__(path, tensors, notes)
        self._stored = self._resources.enter_context(stored)
        for name in infos:
            if name not in tensors and name.endswith(".comfy_quant"):
                self._check_quantisation_note(name)

    def _read(self, info: TensorInfo, dtype: torch.dtype | None) -> torch.Tensor:
        if info.type not in _DTYPES:
            raise CheckpointError(
                f"{quoted(info.name)} in {self.path}: expected a plain or FP8 type, got {quoted(info.type)}; "
                "use an F16 file of this model."
            )
        values = self._values(info.name)
        if info.type not in _FP8_TYPES:
            return values.to(dtype or values.dtype)
        values = values.to(torch.float32)
        if (scale := self._scales.get(info.name)) is not None:
            factor = self._values(scale).to(torch.float32)
            # Per tensor, or one factor for each output channel: the first axis.
            values *= factor.reshape(()) if factor.numel() == 1 else factor.reshape(-1, *[1] * (values.ndim - 1))
        return values.to(dtype or torch.float32)

    def _read_packed(self, info: TensorInfo) -> PackedTensor | None:
        if info.type not in _FP8_TYPES:
            return None
        scale = self._scales.get(info.name)
        stored = self._bytes(info.name)
        return PackedTensor(stored, info.type, None if scale is None else self._values(scale).float().flatten())

    def _values(self, name: str) -> torch.Tensor:
        info = self._infos[name]
        return self._bytes(name).view(_DTYPES[info.type]).reshape(info.shape)

    def _bytes(self, name: str) -> torch.Tensor:
        return self._stored.read(self._begins[name], self._infos[name].nbytes)

    def _check_quantisation_note(self, name: str) -> None:
        """Refuse a layer whose note says that more than FP8 and a scale is needed to recover its weight."""
        text = bytes(self._bytes(name).tolist())
        try:
            note = json.loads(text)
            plain = note["format"] in ("float8_e4m3fn", "float8_e5m2") and note.keys() <= {
                "format",
                "full_precision_matrix_mult",
            }
        except (ValueError, RecursionError, TypeError, KeyError, AttributeError):
            plain = False
        if not plain:
            shown = quoted(text[:200].decode("utf-8", "replace"))
            raise CheckpointError(
                f"{quoted(name)} in {self.path}: expected a plain FP8 layer, found {shown}; "
                "use an F16 or FP8 file of this model."
            )


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


def _without_companions(path: Path, infos: Mapping[str, TensorInfo]) -> tuple[dict[str, TensorInfo], dict[str, str]]:
    """Split off what belongs to FP8 weights: (the real tensors, weight name -> name of its scale)."""
    tensors: dict[str, TensorInfo] = {}
    scales: dict[str, str] = {}
    for name, info in infos.items():
        stem, _, ending = name.rpartition(".")
        suffix, weight = f".{ending}", infos.get(f"{stem}.weight")
        if ending == _FP8_MARKER:
            continue
        if weight is None or suffix not in (*_SCALE_SUFFIXES, *_HARMLESS_SUFFIXES, *_REFUSED_SUFFIXES):
            tensors[name] = info
        elif suffix in _SCALE_SUFFIXES:
            _check_scale(path, weight, info)
            if weight.name in scales:
                raise CheckpointError(f"{quoted(weight.name)} in {path}: expected one scale, found two.")
            scales[weight.name] = name
        elif suffix in _REFUSED_SUFFIXES:
            raise CheckpointError(
                f"{quoted(name)} in {path}: expected FP8 weights with at most one scale per output channel, "
                "found a quantisation that cannot be read exactly; use an F16 or GGUF file of this model."
            )
    return tensors, scales


def _check_scale(path: Path, weight: TensorInfo, scale: TensorInfo) -> None:
    channels = weight.shape[:1]
    per_channel = scale.shape[:1] == channels and scale.count == math.prod(channels)
    if weight.type in _FP8_TYPES and scale.type in ("F32", "F16", "BF16") and (scale.count == 1 or per_channel):
        return
    raise CheckpointError(
        f"{quoted(scale.name)} in {path}: expected a float scale for the whole tensor or one per output "
        f"channel of an FP8 weight, found {quoted(scale.type)} {scale.shape} beside {quoted(weight.type)} "
        f"{weight.shape}; use an F16 or GGUF file of this model."
    )
