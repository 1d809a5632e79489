"""A model that another program has loaded, read as if it were a checkpoint file."""

from collections.abc import Mapping
from pathlib import Path

import torch

from .base import Checkpoint, PackedTensor, TensorInfo

_TYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2",
}  # fmt: skip


class LoadedTensors(Checkpoint):
    """Tensors by name, on any device; they are read, not kept."""

    format = "memory"

    def __init__(self, tensors: Mapping[str, torch.Tensor], origin: str) -> None:
        """origin: what messages call it in place of a file's name."""
        infos = {
            # What is no weight gets an integer's type, which is refused where a weight is expected.
            name: TensorInfo(name, tuple(tensor.shape), _TYPES.get(tensor.dtype, "U8"), tensor.nbytes)
            for name, tensor in tensors.items()
        }
        super().__init__(Path(origin), infos, {})
        self._values = tensors
        self._resources.callback(lambda: setattr(self, "_values", {}))

    def _read(self, info: TensorInfo, dtype: torch.dtype | None, device: torch.device) -> torch.Tensor:
        values = self._values[info.name].detach()
        return torch.empty(values.shape, dtype=dtype or values.dtype, device=device).copy_(values)

    def _read_packed(self, info: TensorInfo) -> PackedTensor | None:
        return None
