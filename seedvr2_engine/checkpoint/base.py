"""An open checkpoint: named tensors, read one at a time, whatever the container."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import ClassVar, NamedTuple

import torch

from ..errors import CheckpointError, InvalidArgumentError
from ..models.vae.config import Shape
from .quoting import quoted

CPU = torch.device("cpu")
_INTEGER_TYPES = frozenset({"I64", "I32", "I16", "I8", "U8", "BOOL"})
_PLAIN_TYPES = _INTEGER_TYPES | {"F64", "F32", "F16", "BF16"}


PREFIXES = ("model.diffusion_model.", "first_stage_model.", "vae.")
"""What other programs put before every name of a file."""


class PackedTensor(NamedTuple):
    """A tensor as the file stores it: fewer bytes than its values; on the CPU, in memory of its own.

    What each `type` has in `data`, beside it, and what a value is:

    - GGML's types ("Q8_0", ...): whole blocks, scales included (`quant.ggml`).
    - "F8_E4M3", "F8_E5M2": one byte a value; `scale`: none, one, or one for each row. data * scale (`quant.fp8`).
    - "INT8": a byte a value; `scale`: one, or one for each row; `rotation`. data * scale, rotated back (`quant.int8`).
    - "MXFP8": an E4M3 byte a value, padded to `shape`; `scale`: uint8 codes, tiled. data * 2^(code - 127), and zero for
      the code 0 (`quant.mxfp8`).
    - "NVFP4": two E2M1 values a byte, the first in the high half, padded to `shape`; `scale`: float8_e4m3fn, tiled;
      `tensor_scale`; `pre_scale`. e2m1 * (tensor_scale * scale) (`quant.nvfp4`).

    A field that a type has no use for is None, 0 or False. `unpack.unpack` gives the values of all of them.
    """

    data: torch.Tensor
    """The stored bytes, flat uint8."""
    type: str
    """The format, see `TensorInfo.type`."""
    scale: torch.Tensor | None = None
    """FP8 and INT8: float32, flat. MXFP8 and NVFP4: one for each 32 or 16 values, two axes, see `quant.scale_tiles`."""
    tensor_scale: torch.Tensor | None = None
    """NVFP4: float32 (), a factor of the whole tensor."""
    rotation: int = 0
    """INT8: how many neighbouring columns were rotated together before they were rounded (`quant.rotation`), or 0."""
    pre_scale: torch.Tensor | None = None
    """NVFP4: float32 (columns,), factors of the INPUT's channels, so of the weight's columns too."""
    input_scale: torch.Tensor | None = None
    """float32, flat: the scale that the file proposes for inputs quantised to its format; no part of the weight."""
    full_precision: bool = False
    """Whether the file asks for products with inputs that are not quantised."""
    shape: Shape | None = None
    """(rows, columns) of MXFP8 and NVFP4 as they are stored, multiples of 32 and of 16; else None."""


@dataclass(frozen=True)
class TensorInfo:
    """What a checkpoint says about one tensor, without its values."""

    name: str
    """The name in the file, with any prefix."""
    shape: Shape
    """The stored shape in PyTorch's order, slowest axis first; may be collapsed in a GGUF file."""
    type: str
    """How the values are stored, in the file format's own word: "F16", "BF16", "Q8_0", "F8_E4M3", ...; or INT8, MXFP8,
    NVFP4, which safetensors has no word for."""
    nbytes: int
    """Bytes of the stored values, with the scales of blocks."""
    original_shape: Shape | None = None
    """The shape that the file's metadata says the tensor had before it was collapsed, if it says so."""
    layout: str | None = None
    """What a quantised weight is, in words: "INT8, a scale a row, rotated by 256"; None for other tensors."""
    padded_to: int = 1
    """What both sizes of a matrix were rounded up to a multiple of, before it was stored in `shape`."""

    @property
    def count(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    def was_padded_from(self, shape: Shape) -> bool:
        """Whether a matrix of this shape, padded, is what is stored here."""
        step = self.padded_to
        return step > 1 and tuple(-(-size // step) * step for size in shape) == self.shape

    @property
    def quantisation(self) -> str | None:
        """How a tensor is quantised, in words: its layout, or GGML's type; None for plain ones."""
        return self.layout or (None if self.type in _PLAIN_TYPES else self.type)

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
        self.on_read: Callable[[], object] = lambda: None
        """Called before every tensor is read; raise from it to stop."""
        self._resources = ExitStack()
        self._is_open = True

    def load(
        self,
        name: str,
        *,
        shape: Shape | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device = CPU,
    ) -> torch.Tensor:
        """Return one tensor on `device`, in memory of its own.

        Plain tensors keep their dtype unless `dtype` is given, and are converted on `device`; quantised and FP8 tensors
        are computed in float32 on the CPU and then rounded once to `dtype` (default float32). `shape` gives a collapsed
        tensor its axes back, in row-major order, and takes the padding off a padded one; the default is the original
        shape the metadata names, if any.
        Raises CheckpointError when the tensor is missing, has another element count, or is of a type
        that cannot be read.
        """
        if not self._is_open:
            raise InvalidArgumentError(f"{self.path}: expected an open checkpoint, found a closed one.")
        self.on_read()
        info = self.tensors.get(name)
        if info is None:
            raise CheckpointError(f"{quoted(name)} in {self.path}: expected this tensor, found none of that name.")
        wanted = shape if shape is not None else info.original_shape or info.shape
        if info.was_padded_from(wanted):
            rows, columns = wanted
            return self._read(info, dtype, device).reshape(info.shape)[:rows, :columns].clone()
        if math.prod(wanted) != info.count:
            raise CheckpointError(
                f"{quoted(name)} in {self.path}: expected {wanted} ({math.prod(wanted)} values), "
                f"got {info.shape} ({info.count} values)."
            )
        return self._read(info, dtype, device).reshape(wanted)

    def load_packed(self, name: str) -> PackedTensor | None:
        """Return one quantised or FP8 tensor as it is stored; None for plain types and unknown names."""
        self.on_read()
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
    def _read(self, info: TensorInfo, dtype: torch.dtype | None, device: torch.device) -> torch.Tensor:
        """Return the values in `dtype`, or that of `load`, on `device`, in memory of their own and in any shape."""

    @abstractmethod
    def _read_packed(self, info: TensorInfo) -> PackedTensor | None:
        """Return what is stored, or None for a plain type."""
