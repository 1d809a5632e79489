"""Layers in every quantised layout, put together byte by byte."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tests.quant import definitions

Entry = tuple[str, str, tuple[int, ...], bytes]
FINITE = np.arange(256, dtype=np.uint8)[np.isfinite(definitions.E4M3)]


def note(layer: str, **options: Any) -> Entry:
    """The tensor that names a layer's format."""
    raw = json.dumps(options).encode()
    return (f"{layer}.comfy_quant", "U8", (len(raw),), raw)


def floats(name: str, values: Sequence[float] | np.ndarray, shape: tuple[int, ...]) -> Entry:
    """A float32 tensor."""
    return (name, "F32", shape, np.asarray(values, np.float32).tobytes())


def fp8_layer(layer: str, rows: int, columns: int, seed: int = 0) -> list[Entry]:
    """One scale, a scale for inputs, and the wish for full precision."""
    data = np.random.default_rng(seed).choice(FINITE, (rows, columns))
    return [
        (f"{layer}.weight", "F8_E4M3", (rows, columns), data.tobytes()),
        floats(f"{layer}.weight_scale", [0.013], ()),
        floats(f"{layer}.input_scale", [7], ()),
        note(layer, format="float8_e4m3fn", full_precision_matrix_mult=True),
    ]


def int8_layer(layer: str, rows: int, columns: int, seed: int = 0, **options: Any) -> list[Entry]:
    """A scale a row; options go into the note."""
    rng = np.random.default_rng(seed)
    data = rng.integers(-127, 128, (rows, columns), dtype=np.int8)
    return [
        (f"{layer}.weight", "I8", (rows, columns), data.tobytes()),
        floats(f"{layer}.weight_scale", rng.uniform(1e-3, 1e-2, rows), (rows, 1)),
        note(layer, format="int8_tensorwise", **options),
    ]


def mxfp8_layer(layer: str, rows: int, columns: int, seed: int = 0, scale_type: str = "U8") -> list[Entry]:
    """A matrix of stored size (rows, columns), with a block of zeros."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(110, 125, (rows, columns // 32)).astype(np.uint8)
    codes[0, 0] = 0
    tiles = definitions.tiles(codes)
    return [
        (f"{layer}.weight", "F8_E4M3", (rows, columns), rng.choice(FINITE, (rows, columns)).tobytes()),
        (f"{layer}.weight_scale", scale_type, tiles.shape, tiles.tobytes()),
        note(layer, format="mxfp8"),
    ]


def nvfp4_layer(layer: str, rows: int, columns: int, seed: int = 0, scale_type: str = "F8_E4M3") -> list[Entry]:
    """A matrix of stored size (rows, columns / 2), with factors for the input's channels."""
    rng = np.random.default_rng(seed)
    tiles = definitions.tiles(rng.choice(FINITE[FINITE < 128], (rows, columns // 16)))
    return [
        (f"{layer}.weight", "U8", (rows, columns // 2), rng.integers(0, 256, (rows, columns // 2), np.uint8).tobytes()),
        (f"{layer}.weight_scale", scale_type, tiles.shape, tiles.tobytes()),
        floats(f"{layer}.weight_scale_2", [0.0044], ()),
        floats(f"{layer}.pre_quant_scale", rng.uniform(0.5, 2, columns), (columns,)),
        note(layer, format="nvfp4"),
    ]


def without_notes(entries: Sequence[Entry], prefix: str = "") -> tuple[list[Entry], Mapping[str, str]]:
    """The same layers with their notes in the header's metadata, under names without the prefix."""
    notes = {
        name.removeprefix(prefix).removesuffix(".comfy_quant"): json.loads(raw)
        for name, _, _, raw in entries
        if name.endswith(".comfy_quant")
    }
    metadata = {"_quantization_metadata": json.dumps({"format_version": "1.0", "layers": notes})}
    return [entry for entry in entries if not entry[0].endswith(".comfy_quant")], metadata


def all_layers(prefix: str = "") -> list[Entry]:
    """One layer of each layout, small."""
    return [
        *fp8_layer(f"{prefix}a", 4, 24),
        *int8_layer(f"{prefix}b", 6, 32),
        *int8_layer(f"{prefix}c", 6, 32, convrot=True, convrot_groupsize=16),
        *int8_layer(f"{prefix}d", 3, 512, params={"convrot": True}),
        *mxfp8_layer(f"{prefix}e", 160, 160),
        *mxfp8_layer(f"{prefix}f", 32, 64, scale_type="F8_E8M0"),
        *nvfp4_layer(f"{prefix}g", 144, 80),
        *nvfp4_layer(f"{prefix}h", 16, 32, scale_type="U8"),
        (f"{prefix}i.weight", "F16", (2, 2), bytes(8)),
        (f"{prefix}j.weight", "F8_E4M3", (2, 4), bytes(range(8))),
    ]
