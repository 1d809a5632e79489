"""Weights that lie in a safetensors file as FP8, INT8, MXFP8 or NVFP4: which they are, from notes and companions.

The layout is that of ComfyUI's files. A layer's note, JSON, is the tensor `LAYER.comfy_quant` or stands in the header
under `_quantization_metadata`; its scales are tensors beside `LAYER.weight`. Older files have FP8, scales and no note.
Everything is checked before a value is read: a layer whose weight could not be recovered exactly is refused.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NoReturn

from ...errors import CheckpointError
from ...models.vae.config import Shape
from ...quant.mxfp8 import BLOCK as MXFP8_BLOCK
from ...quant.nvfp4 import BLOCK as NVFP4_BLOCK
from ...quant.rotation import DEFAULT_GROUP, is_rotation_group
from ...quant.scale_tiles import tiled_shape
from ..base import PREFIXES, TensorInfo
from ..quoting import quoted

HEADER_NOTES = "_quantization_metadata"
"""The metadata key under which a header has the notes of all layers."""
NOTE_SUFFIX = "comfy_quant"
FP8_FORMATS = {"F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2"}
"""The safetensors types, and what notes call them."""

_FORMATS = (*FP8_FORMATS.values(), "int8_tensorwise", "mxfp8", "nvfp4")
_ROLES = {
    "weight_scale": "scale",
    "scale_weight": "scale",
    "weight_scale_2": "tensor_scale",
    "input_scale": "input_scale",
    "scale_input": "input_scale",
    "pre_quant_scale": "pre_scale",
    "weight_scale_inv": "inverse_scale",
    NOTE_SUFFIX: "note",
}
"""What each tensor beside a weight is, by the end of its name; in the words of `PackedTensor`."""
_FP8_MARKER = "scaled_fp8"
"""A tensor of older files; with two elements it asks for products in full precision."""
# They say where a weight came from, or again what the scale's shape says.
_REMARKS = frozenset({"orig_dtype", "orig_shape", "per_row"})
_ROTATION = frozenset({"convrot", "convrot_groupsize"})
FLOAT_TYPES = ("F32", "F16", "BF16")
"""The safetensors types that scales may have."""
_LARGEST_NOTE_BYTES = 4096


@dataclass(frozen=True)
class StoredWeight:
    """One quantised weight of a file and the names of the tensors that it is recovered from."""

    info: TensorInfo
    """The weight as callers see it: its shape, padded; its format; its bytes with block scales."""
    format: str
    """The note's word for it."""
    companions: Mapping[str, str] = field(default_factory=dict)
    """The field of `PackedTensor` -> the tensor of the file that it comes from."""
    rotation: int = 0
    """Columns that were rotated together; 0 if none were."""
    full_precision: bool = False
    """Whether the file asks for products with inputs that are not quantised."""


@dataclass
class _Layer:
    """What was found about one weight."""

    companions: dict[str, str] = field(default_factory=dict)
    """Role -> name in the file."""
    note: object = None
    note_name: str = ""


def find_quantised(
    path: Path, infos: Mapping[str, TensorInfo], metadata: Mapping[str, str], content: Callable[[str], bytes]
) -> tuple[dict[str, TensorInfo], dict[str, StoredWeight]]:
    """Split a file's tensors: (all but companions, by name, as callers see them; the quantised ones).

    infos: every tensor of the file. content: the bytes of one, for notes. Raises CheckpointError for notes without
    their weights, formats that are not known, and scales that are missing, not needed, or of another type or shape.
    """
    layers: dict[str, _Layer] = {}
    tensors: dict[str, TensorInfo] = {}
    for name, info in infos.items():
        stem, _, ending = name.rpartition(".")
        weight = f"{stem}.weight"
        if ending == _FP8_MARKER:
            continue
        if ending not in _ROLES or weight not in infos:
            tensors[name] = info
            continue
        found = layers.setdefault(weight, _Layer())
        if found.companions.setdefault(_ROLES[ending], name) != name:
            raise CheckpointError(f"{quoted(weight)} in {path}: expected one scale, found two.")
        if ending == NOTE_SUFFIX:
            found.note, found.note_name = _parsed(path, info, content), name
    for weight, note in _header_notes(path, infos, metadata):
        found = layers.setdefault(weight, _Layer())
        if found.note_name and found.note != note:
            raise CheckpointError(
                f"{quoted(weight)} in {path}: expected one note of its format, found another one in the header than in "
                f"{quoted(found.note_name)}; download the file again."
            )
        found.note, found.note_name = note, found.note_name or HEADER_NOTES
    for name, info in tensors.items():
        if info.type in FP8_FORMATS:
            layers.setdefault(name, _Layer())
    stored = {weight: _stored(path, infos, weight, found) for weight, found in layers.items()}
    if any(name.rpartition(".")[2] == _FP8_MARKER and info.count == 2 for name, info in infos.items()):
        stored = {weight: replace(kept, full_precision=True) for weight, kept in stored.items()}
    seen = {name: stored[name].info if name in stored else info for name, info in tensors.items()}
    return seen, {weight: kept for weight, kept in stored.items() if kept.format}


def _parsed(path: Path, info: TensorInfo, content: Callable[[str], bytes]) -> object:
    if info.type != "U8" or info.nbytes > _LARGEST_NOTE_BYTES:
        raise CheckpointError(
            f"{quoted(info.name)} in {path}: expected a note of at most {_LARGEST_NOTE_BYTES} bytes, found "
            f"{quoted(info.type)} {info.shape}; use an F16 or FP8 file of this model."
        )
    text = content(info.name)
    try:
        note: object = json.loads(text)
    except (ValueError, RecursionError):
        _refuse_note(path, info.name, text.decode("utf-8", "replace"))
    return note


def _header_notes(
    path: Path, infos: Mapping[str, TensorInfo], metadata: Mapping[str, str]
) -> Iterator[tuple[str, object]]:
    if HEADER_NOTES not in metadata:
        return
    try:
        layers = json.loads(metadata[HEADER_NOTES])["layers"].items()
    except (ValueError, RecursionError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(
            f"{HEADER_NOTES} in {path}: expected JSON with a note for each of the quantised layers, found something "
            "else; use an F16 or FP8 file of this model."
        ) from error
    for layer, note in layers:
        names = [name for prefix in ("", *PREFIXES) if (name := f"{prefix}{layer}.weight") in infos]
        if len(names) != 1:
            raise CheckpointError(
                f"{HEADER_NOTES} in {path}: expected one weight of the layer {quoted(layer)}, found {len(names)}; "
                "download the file again."
            )
        yield names[0], note


def _stored(path: Path, infos: Mapping[str, TensorInfo], weight: str, found: _Layer) -> StoredWeight:
    """Check one weight against its note and its companions."""
    info = infos[weight]
    names = {role: name for role, name in found.companions.items() if role != "note"}
    if not found.note_name:
        return _without_note(path, infos, info, names)
    layer = _read_note(path, info, found)
    needed, allowed = _COMPANIONS[layer.format]
    for role in needed - names.keys():
        raise CheckpointError(
            f"{quoted(weight)} in {path}: expected {' and '.join(sorted(_NAMES[role] for role in needed))} beside this "
            f"{layer.format} weight, found no {_NAMES[role]}; the file is incomplete."
        )
    for role in names.keys() - needed - allowed:
        raise CheckpointError(
            f"{quoted(names[role])} in {path}: expected no such tensor beside a weight in {layer.format}, found one; "
            "use an F16 or GGUF file of this model."
        )
    check = {"mxfp8": _check_mxfp8, "nvfp4": _check_nvfp4, "int8_tensorwise": _check_int8}.get(layer.format, _check_fp8)
    return replace(check(path, infos, layer, names), companions=names)


_COMPANIONS: dict[str, tuple[set[str], set[str]]] = {
    **{name: ({"scale"}, {"input_scale"}) for name in FP8_FORMATS.values()},
    "int8_tensorwise": ({"scale"}, {"input_scale"}),
    "mxfp8": ({"scale"}, {"input_scale"}),
    "nvfp4": ({"scale", "tensor_scale"}, {"input_scale", "pre_scale"}),
}
"""What a format needs beside the weight, and what it may have."""
_NAMES = {"scale": "weight_scale", "tensor_scale": "weight_scale_2"}


def _without_note(path: Path, infos: Mapping[str, TensorInfo], info: TensorInfo, names: dict[str, str]) -> StoredWeight:
    """FP8 as older files have it; nothing else can be told without a note."""
    for role in ("tensor_scale", "pre_scale", "inverse_scale"):
        if role in names:
            raise CheckpointError(
                f"{quoted(names[role])} in {path}: expected FP8 weights with at most one scale per output channel, "
                "found a quantisation that cannot be read exactly; use an F16 or GGUF file of this model."
            )
    if "scale" in names:
        _check_scale(path, info, infos[names["scale"]], info.type in FP8_FORMATS, "an FP8 weight")
    format = FP8_FORMATS.get(info.type, "")
    layout = _scaled_layout(info, infos, names) if format else None
    return StoredWeight(replace(info, layout=layout), format, names)


def _read_note(path: Path, info: TensorInfo, found: _Layer) -> StoredWeight:
    """The format and its options; the weight's shape and companions are not yet looked at."""
    note = found.note
    if not isinstance(note, dict) or note.get("format") not in _FORMATS:
        _refuse_note(path, found.note_name, note)
    options = {key: value for key, value in note.items() if key not in {"format", "params", *_REMARKS}}
    params = note.get("params", {})
    if not isinstance(params, dict):
        _refuse_note(path, found.note_name, note)
    options = {**params, **options}
    known = {"full_precision_matrix_mult", *(_ROTATION if note["format"] == "int8_tensorwise" else ())}
    full_precision, rotated = options.get("full_precision_matrix_mult", False), options.get("convrot", False)
    group = options.get("convrot_groupsize", DEFAULT_GROUP)
    if not (options.keys() <= known and isinstance(full_precision, bool) and isinstance(rotated, bool)):
        _refuse_note(path, found.note_name, note)
    if rotated and not (type(group) is int and is_rotation_group(group)):
        raise CheckpointError(
            f"{quoted(found.note_name)} in {path}: expected a rotation of 4, 16, 64, ... columns, found "
            f"{quoted(repr(group))}; use an F16 file of this model."
        )
    return StoredWeight(info, note["format"], rotation=group if rotated else 0, full_precision=full_precision)


def _refuse_note(path: Path, name: str, note: object) -> NoReturn:
    try:
        shown = quoted(note if isinstance(note, str) else json.dumps(note))
    except RecursionError:
        shown = "something else"
    raise CheckpointError(
        f"{quoted(name)} in {path}: expected a note of {', '.join(_FORMATS[:-1])} or {_FORMATS[-1]} and its known "
        f"options, found {shown}; use an F16 or GGUF file of this model."
    )


def _check_fp8(
    path: Path, infos: Mapping[str, TensorInfo], layer: StoredWeight, names: Mapping[str, str]
) -> StoredWeight:
    matches = FP8_FORMATS.get(layer.info.type) == layer.format
    _check_scale(path, layer.info, infos[names["scale"]], matches, f"a {layer.format} weight")
    return replace(layer, info=replace(layer.info, layout=_scaled_layout(layer.info, infos, names)))


def _check_int8(
    path: Path, infos: Mapping[str, TensorInfo], layer: StoredWeight, names: Mapping[str, str]
) -> StoredWeight:
    info, scale = layer.info, infos[names["scale"]]
    _check_scale(path, info, scale, info.type == "I8" and len(info.shape) == 2, "an INT8 matrix")
    if layer.rotation and info.shape[1] % layer.rotation:
        raise CheckpointError(
            f"{quoted(info.name)} in {path}: expected columns in groups of {layer.rotation}, which are rotated "
            f"together, found {info.shape[1]}; the file is damaged."
        )
    layout = f"INT8, {_granularity(scale)}" + (f", rotated by {layer.rotation}" if layer.rotation else "")
    return replace(layer, info=replace(info, type="INT8", layout=layout))


def _check_mxfp8(
    path: Path, infos: Mapping[str, TensorInfo], layer: StoredWeight, names: Mapping[str, str]
) -> StoredWeight:
    return _check_blocks(path, layer, infos[names["scale"]], "MXFP8", MXFP8_BLOCK, "F8_E4M3", ("U8", "F8_E8M0"))


def _check_nvfp4(
    path: Path, infos: Mapping[str, TensorInfo], layer: StoredWeight, names: Mapping[str, str]
) -> StoredWeight:
    layer = _check_blocks(path, layer, infos[names["scale"]], "NVFP4", NVFP4_BLOCK, "U8", ("F8_E4M3", "U8"))
    _check_floats(path, layer.info, infos[names["tensor_scale"]], [()])
    if "pre_scale" in names:
        # Shorter where the columns were padded.
        columns = layer.info.shape[1]
        _check_floats(path, layer.info, infos[names["pre_scale"]], [(columns - pad,) for pad in range(NVFP4_BLOCK)])
    return layer


def _check_blocks(
    path: Path, layer: StoredWeight, scale: TensorInfo, kind: str, block: int, type: str, scale_types: tuple[str, ...]
) -> StoredWeight:
    """Check a padded matrix and its tiled scales, one for `block` values of a row."""
    info, halves = layer.info, 2 if kind == "NVFP4" else 1
    shape = (info.shape[0], info.shape[-1] * halves) if len(info.shape) == 2 else ()
    if info.type != type or not shape or 0 in shape or any(size % block for size in shape):
        raise CheckpointError(
            f"{quoted(info.name)} in {path}: expected a matrix of {type} whose sizes are multiples of {block} "
            f"({kind}), found {quoted(info.type)} {info.shape}; the file is damaged."
        )
    tiles = tiled_shape(shape[0], shape[1] // block)
    if scale.type not in scale_types or scale.shape != tiles:
        raise CheckpointError(
            f"{quoted(scale.name)} in {path}: expected {kind} scales {tiles} of {' or '.join(scale_types)}, found "
            f"{quoted(scale.type)} {scale.shape}; the file is damaged."
        )
    return replace(
        layer,
        info=replace(info, shape=shape, type=kind, nbytes=info.nbytes + scale.nbytes, layout=kind, padded_to=block),
    )


def _check_scale(path: Path, weight: TensorInfo, scale: TensorInfo, fits: bool, what: str) -> None:
    channels: Shape = weight.shape[:1]
    per_channel = scale.shape[:1] == channels and scale.count == math.prod(channels)
    if fits and scale.type in FLOAT_TYPES and (scale.count == 1 or per_channel):
        return
    raise CheckpointError(
        f"{quoted(scale.name)} in {path}: expected a float scale for the whole tensor or one per output channel of "
        f"{what}, found {quoted(scale.type)} {scale.shape} beside {quoted(weight.type)} {weight.shape}; use an F16 or "
        "GGUF file of this model."
    )


def _check_floats(path: Path, weight: TensorInfo, scale: TensorInfo, shapes: list[Shape]) -> None:
    if scale.type not in FLOAT_TYPES or (scale.shape not in shapes and not (shapes == [()] and scale.count == 1)):
        raise CheckpointError(
            f"{quoted(scale.name)} in {path}: expected float factors {shapes[0]} of {quoted(weight.name)}, found "
            f"{quoted(scale.type)} {scale.shape}; the file is damaged."
        )


def _scaled_layout(info: TensorInfo, infos: Mapping[str, TensorInfo], names: Mapping[str, str]) -> str:
    granularity = f", {_granularity(infos[names['scale']])}" if "scale" in names else ""
    return f"FP8 {info.type.removeprefix('F8_')}{granularity}"


def _granularity(scale: TensorInfo) -> str:
    return "a scale a tensor" if scale.count == 1 else "a scale a row"
