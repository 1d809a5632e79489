"""A second reader of safetensors files that are right: the values of every tensor by definition, in NumPy."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.quant import definitions

PREFIXES = ("", "model.diffusion_model.", "first_stage_model.", "vae.")
Values = npt.NDArray[Any]


def plain(dtype: str, raw: bytes) -> Values:
    """The values of a safetensors type, flat."""
    formats = {"F64": "f8", "F32": "f4", "F16": "f2", "I64": "i8", "I32": "i4", "I16": "i2", "I8": "i1", "U8": "u1"}
    if dtype in formats:
        return np.frombuffer(raw, f"<{formats[dtype]}")
    if dtype == "BF16":
        return (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32)
    codes = np.frombuffer(raw, np.uint8)
    if dtype == "BOOL":
        return codes != 0
    if dtype == "F8_E5M2":  # the upper half of a float16
        return (codes.astype(np.uint16) << 8).view(np.float16)
    return definitions.E4M3.astype(np.float32)[codes]


class DefinedFile:
    """A file's header and bytes, trusted."""

    def __init__(self, content: bytes) -> None:
        size = int.from_bytes(content[:8], "little")
        self.header = json.loads(content[8 : 8 + size])
        self.metadata = self.header.pop("__metadata__", None) or {}
        self._data = content[8 + size :]

    def raw(self, name: str) -> bytes:
        """The bytes of a tensor."""
        return self._data[slice(*self.header[name]["data_offsets"])]

    def values(self, name: str) -> Values:
        """A tensor's values, padded ones included, flat, as float32 arithmetic gives them but for rotations."""
        entry, note = self.header[name], self.note(name)
        kind = note.get("format", "")
        stem = name.removesuffix(".weight")
        scale_name = next((n for n in (f"{stem}.weight_scale", f"{stem}.scale_weight") if n in self.header), None)
        if kind in ("mxfp8", "nvfp4"):
            return self._blocks(stem, kind).astype(np.float32).reshape(-1)
        values = plain(entry["dtype"], self.raw(name))
        is_weight = name.endswith(".weight") and (kind or entry["dtype"].startswith("F8"))
        if scale_name is None or not is_weight:
            return values
        factors = plain(self.header[scale_name]["dtype"], self.raw(scale_name)).astype(np.float32)
        values = (values.reshape(len(factors), -1).astype(np.float32) * factors[:, None]).reshape(entry["shape"])
        options = {**note.get("params", {}), **note}
        group = options.get("convrot_groupsize", 256) if options.get("convrot") else 0
        return (definitions.rotated(values.astype(np.float64), group) if group else values).reshape(-1)

    def note(self, weight: str) -> Mapping[str, Any]:
        """What the file says about a weight's format."""
        stem = weight.removesuffix(".weight")
        if f"{stem}.comfy_quant" in self.header and weight.endswith(".weight"):
            note: Mapping[str, Any] = json.loads(self.raw(f"{stem}.comfy_quant"))
            return note
        layers = json.loads(self.metadata.get("_quantization_metadata", '{"layers": {}}'))["layers"]
        return next((layers[layer] for layer in layers for p in PREFIXES if f"{p}{layer}.weight" == weight), {})

    def _blocks(self, stem: str, kind: str) -> Values:
        rows, stored = self.header[f"{stem}.weight"]["shape"]
        data = np.frombuffer(self.raw(f"{stem}.weight"), np.uint8).reshape(rows, stored)
        columns = stored // 32 if kind == "mxfp8" else stored // 8
        tiles = np.frombuffer(self.raw(f"{stem}.weight_scale"), np.uint8)
        codes = np.array([[tiles[definitions.tile_index(i, j, columns)] for j in range(columns)] for i in range(rows)])
        if kind == "mxfp8":
            return definitions.mxfp8(data, codes)
        [factor] = plain(self.header[f"{stem}.weight_scale_2"]["dtype"], self.raw(f"{stem}.weight_scale_2"))
        values = definitions.nvfp4(data, codes, float(factor))
        if (pre := f"{stem}.pre_quant_scale") in self.header:
            factors = plain(self.header[pre]["dtype"], self.raw(pre)).astype(np.float64)
            values[:, : len(factors)] *= factors
        return values
