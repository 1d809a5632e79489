"""A transformer as a safetensors file in the layout that ComfyUI reads, written tensor by tensor."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from ...models.vae.config import Shape
from ...output.unfinished import PartialFile
from ...quant import fp8, int8, mxfp8, nvfp4
from ...quant.scale_tiles import tiled_shape
from ..base import Checkpoint
from .entries import ROTATION_GROUP, Entry, Loss, Progress

_DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_ITEM_BYTES = {"F32": 4, "F16": 2, "BF16": 2}
_ORDER = ("F32", "BF16", "F16", "F8_E4M3", "I8", "U8")
_NOTES: Mapping[str, Mapping[str, object]] = {
    "FP8": {"format": "float8_e4m3fn"},
    "INT8": {"format": "int8_tensorwise"},
    "INT8_CONVROT": {"format": "int8_tensorwise", "convrot": True, "convrot_groupsize": ROTATION_GROUP},
    "MXFP8": {"format": "mxfp8"},
    "NVFP4": {"format": "nvfp4"},
}


@dataclass(frozen=True)
class _Part:
    """One tensor of the file: an entry's own, or one beside it."""

    name: str
    type: str
    shape: Shape

    @property
    def item_bytes(self) -> int:
        return _ITEM_BYTES.get(self.type, 1)

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * self.item_bytes


def nbytes_of(entry: Entry) -> int:
    """Bytes of a tensor in the file, with what stands beside it."""
    return sum(part.nbytes for part in _parts(entry))


def layout_of(entries: Sequence[Entry], texts: Mapping[str, str]) -> tuple[bytes, Mapping[str, int]]:
    """The header's text, and where each tensor begins, counted from the header's end."""
    # The widest types first, so that all tensors are aligned; the order is that of the safetensors package.
    parts = sorted((p for entry in entries for p in _parts(entry)), key=lambda p: (_ORDER.index(p.type), p.name))
    places: dict[str, int] = {}
    header: dict[str, object] = {"__metadata__": dict(texts)} if texts else {}
    end = 0
    for part in parts:
        places[part.name], begin = end, end
        end += part.nbytes
        header[part.name] = {"dtype": part.type, "shape": list(part.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    return text + b" " * (-len(text) % 8), places


def write_safetensors(
    checkpoint: Checkpoint,
    partial: PartialFile,
    entries: Sequence[Entry],
    texts: Mapping[str, str],
    on_progress: Progress | None,
) -> float:
    """Write the whole file; return the relative RMS of what the new types lose.

    texts: the metadata. Raises CheckpointError for values that a type cannot hold.
    """
    text, places = layout_of(entries, texts)
    partial.write(len(text).to_bytes(8, "little") + text)
    total, done, loss = sum(entry.count for entry in entries), 0, Loss()
    for entry in entries:
        values = entry.load(checkpoint)
        stored, read = _encode(values, entry.kind)
        error = (read - values).square().sum(dtype=torch.float64).item()
        if not torch.isfinite(read).all():
            raise entry.too_large(checkpoint, values)
        loss.add(entry, error, values.square().sum(dtype=torch.float64).item())
        for part, tensor in zip(_parts(entry), stored, strict=True):
            assert (tensor.shape, tensor.nbytes) == (part.shape, part.nbytes), part
            partial.seek(8 + len(text) + places[part.name])
            partial.write(tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        done += entry.count
        if on_progress is not None:
            on_progress(done, total)
    return loss.relative_rms


def _parts(entry: Entry) -> list[_Part]:
    """The tensors that an entry becomes, in the order of `_encode`."""
    rows, columns = entry.shape if len(entry.shape) == 2 else (1, 1)
    layer = entry.name.removesuffix(".weight")
    scale = f"{layer}.weight_scale"
    parts: dict[str, list[_Part]] = {
        "FP8": [_Part(entry.name, "F8_E4M3", entry.shape), _Part(scale, "F32", ())],
        "INT8": [_Part(entry.name, "I8", entry.shape), _Part(scale, "F32", (rows, 1))],
        "MXFP8": [_Part(entry.name, "F8_E4M3", entry.shape), _Part(scale, "U8", tiled_shape(rows, columns // 32))],
        "NVFP4": [
            _Part(entry.name, "U8", (rows, columns // 2)),
            _Part(scale, "F8_E4M3", tiled_shape(rows, columns // 16)),
            _Part(f"{layer}.weight_scale_2", "F32", ()),
        ],
    }
    if entry.kind not in _NOTES:
        return [_Part(entry.name, entry.kind, entry.shape)]
    return [
        *parts[entry.kind.removesuffix("_CONVROT")],
        _Part(f"{layer}.comfy_quant", "U8", (len(_note(entry.kind)),)),
    ]


def _note(kind: str) -> bytes:
    return json.dumps(_NOTES[kind]).encode()


def _encode(values: Tensor, kind: str) -> tuple[list[Tensor], Tensor]:
    """The stored tensors, and the values that they stand for."""
    if kind not in _NOTES:
        stored = values.to(_DTYPES[kind])
        return [stored], stored.float()
    note = torch.tensor(list(_note(kind)), dtype=torch.uint8)
    if kind == "NVFP4":
        four = nvfp4.quantize(values)
        return [*four, note], nvfp4.dequantize(*four)
    if kind == "MXFP8":
        data, scale = mxfp8.quantize(values)
        return [data, scale, note], mxfp8.dequantize(data, scale)
    if kind == "FP8":
        data, scale = fp8.quantize(values)
        return [data, scale, note], fp8.dequantize(data, scale)
    rotation = ROTATION_GROUP if kind == "INT8_CONVROT" else 0
    data, scale = int8.quantize(values, rotation=rotation)
    return [data, scale[:, None], note], int8.dequantize(data, scale, rotation)
