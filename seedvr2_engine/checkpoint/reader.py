"""Named tensors of a checkpoint file, read one at a time; the safetensors backend."""

import json
import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, NamedTuple

import torch
from safetensors import SafetensorError, safe_open

from ..errors import CheckpointError, InvalidArgumentError
from ..models.vae.config import Shape
from .stored import StoredBytes

_INTEGER_TYPES = frozenset({"I64", "I32", "I16", "I8", "U8", "BOOL"})


class PackedTensor(NamedTuple):
    """A tensor as the file stores it: fewer bytes than its values."""

    data: torch.Tensor
    """The stored bytes, flat uint8 on the CPU, in memory of their own."""
    type: str
    """The file format's own word, see `TensorInfo.type`."""
    scale: torch.Tensor | None = None
    """The factor of FP8 values, float32: one, or one for each row."""


@dataclass(frozen=True)
class TensorInfo:
    """What a checkpoint says about one tensor, without its values."""

    name: str
    """The name in the file, with any prefix."""
    shape: Shape
    """The stored shape in PyTorch's order, slowest axis first; may be collapsed in a GGUF file."""
    type: str
    """How the values are stored, in the file format's own word: "F16", "BF16", "Q8_0", "F8_E4M3", ..."""
    nbytes: int
    """Bytes of the stored values."""
    original_shape: Shape | None = None
    """The shape that the file's metadata says the tensor had before it was collapsed, if it says so."""

    @property
    def count(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def is_integer(self) -> bool:
        """Whether the values are whole numbers, which no weight is."""
        return self.type in _INTEGER_TYPES


class Checkpoint(ABC):
    """An open checkpoint file; use it in a `with` statement, because it keeps the file open.

    A file that changes while it is open is refused at the next read (CheckpointError).
    """

    format: ClassVar[str]
    """The container: "safetensors" or "gguf"."""

    def __init__(self, path: Path, tensors: Mapping[str, TensorInfo], metadata: Mapping[str, str]) -> None:
        self.path = path
        self.tensors = tensors
        """Every tensor of the file by name, in the file's order; scales of FP8 tensors are not listed."""
        self.metadata = metadata
        """The file's own remarks as text."""
        self._resources = ExitStack()
        self._is_open = True

    def load(self, name: str, *, shape: Shape | None = None, dtype: torch.dtype | None = None) -> torch.Tensor:
        """Return one tensor on the CPU, in memory of its own.

        Plain tensors keep their dtype unless `dtype` is given; quantised and FP8 tensors are computed in
        float32 and then rounded once to `dtype` (default float32). `shape` gives a collapsed tensor its
        axes back, in row-major order; the default is the original shape the metadata names, if any.
        Raises CheckpointError when the tensor is missing, has another element count, or is of a type
        that cannot be read.
        """
        if not self._is_open:
            raise InvalidArgumentError(f"{self.path}: expected an open checkpoint, found a closed one.")
        info = self.tensors.get(name)
        if info is None:
            raise CheckpointError(f"{quoted(name)} in {self.path}: expected this tensor, found none of that name.")
        wanted = shape if shape is not None else info.original_shape or info.shape
        if math.prod(wanted) != info.count:
            raise CheckpointError(
                f"{quoted(name)} in {self.path}: expected {wanted} ({math.prod(wanted)} values), "
                f"got {info.shape} ({info.count} values)."
            )
        return self._read(info, dtype).reshape(wanted)

    def load_packed(self, name: str) -> PackedTensor | None:
        """Return one quantised or FP8 tensor as it is stored; None for plain types and unknown names."""
        info = self.tensors.get(name)
        return None if info is None or not self._is_open else self._read_packed(info)

    def close(self) -> None:
        """Release the file; tensors that were loaded stay valid."""
        self._is_open = False
        self._resources.close()

    def __enter__(self) -> "Checkpoint":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @abstractmethod
    def _read(self, info: TensorInfo, dtype: torch.dtype | None) -> torch.Tensor:
        """Return the values in `dtype`, or that of `load`, in memory of their own and in any shape."""

    @abstractmethod
    def _read_packed(self, info: TensorInfo) -> PackedTensor | None:
        """Return what is stored, or None for a plain type."""


def open_checkpoint(path: Path | str) -> Checkpoint:
    """Open a safetensors or GGUF file, told apart by the first bytes and never by the file's name.

    Raises ModelFileError if there is no such readable file, CheckpointError if it is of another kind or
    damaged.
    """
    path = Path(path)
    with ExitStack() as opened:
        stored = opened.enter_context(StoredBytes(path))
        head = stored.head(16)
        checkpoint: Checkpoint
        if head.startswith(b"GGUF"):
            # Here and not above: that module needs this one, and the gguf package is not needed for safetensors.
            from .gguf import GGUFCheckpoint

            checkpoint = GGUFCheckpoint(stored)
        elif head[8:9] == b"{":
            checkpoint = SafetensorsCheckpoint(stored)
        else:
            raise CheckpointError(f"{path}: {_refusal(head)}")
        opened.pop_all()  # It is the checkpoint's from here on.
        return checkpoint


def quoted(name: str) -> str:
    """Return a name from a file so that it fits a one-line message: printable and at most 200 characters."""
    return name if len(name) <= 200 and name.isprintable() else ascii(name[:200])


def _refusal(head: bytes) -> str:
    """Say why a file that begins with `head` is neither of the two formats, and what to do."""
    expected = "expected a safetensors or GGUF checkpoint"
    # A zip archive is how torch.save has written since 1.6; before, it was a bare pickle of protocol 2 to 5.
    if head.startswith(b"PK\x03\x04") or (head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")):
        return (
            f"{expected}, found a PyTorch pickle, which can run code when it is loaded; convert it in an "
            "environment you trust with "
            "safetensors.torch.save_file(torch.load(path, weights_only=True), new_path)."
        )
    if not head:
        return f"{expected}, found an empty file; download it again."
    if head.startswith(b"version https://"):
        return f"{expected}, found a Git LFS pointer; fetch the file itself with `git lfs pull`."
    if head.lstrip().lower().startswith((b"<!doctype", b"<html")):
        return f"{expected}, found a web page; download the file itself."
    return f"{expected}, found neither; download it again or convert it to safetensors."


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
