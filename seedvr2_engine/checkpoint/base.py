"""An open checkpoint: named tensors, read one at a time, whatever the container."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import ClassVar, NamedTuple

import torch

from ..errors import CheckpointError, InvalidArgumentError
from ..models.vae.config import Shape
from .quoting import quoted as quoted

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
