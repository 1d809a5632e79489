"""The way of bytes from a file to a GPU: through page-locked memory, read and copied side by side."""

import threading
from collections.abc import Callable

import torch

_STAGE_BYTES = 8 << 20
"""Of one of a thread's two buffers: a few milliseconds of reading, so that the copies start early."""

_local = threading.local()


def to_gpu(read: Callable[[memoryview, int], None], count: int, device: torch.device) -> torch.Tensor:
    """`count` bytes, flat uint8 on a CUDA `device`; `read` fills a buffer with what begins at an offset.

    One buffer is read into while the other is copied. Whatever is queued on the device's current stream afterwards sees
    all bytes; the buffers belong to the thread.
    """
    with torch.cuda.device(device):
        out = torch.empty(count, dtype=torch.uint8, device=device)
        stages: list[_Stage] | None = getattr(_local, "stages", None)
        if stages is None:
            stages = _local.stages = [_Stage(), _Stage()]
        for turn, begin in enumerate(range(0, count, _STAGE_BYTES)):
            stages[turn % len(stages)].pass_on(read, begin, out[begin : begin + _STAGE_BYTES])
    return out


class _Stage:
    """One buffer, and when the GPU has what was in it."""

    def __init__(self) -> None:
        self._buffer = torch.empty(_STAGE_BYTES, dtype=torch.uint8, pin_memory=True)
        self._is_copied = torch.cuda.Event()

    def pass_on(self, read: Callable[[memoryview, int], None], begin: int, target: torch.Tensor) -> None:
        self._is_copied.synchronize()
        part = self._buffer[: len(target)]
        read(part.numpy().data, begin)
        target.copy_(part, non_blocking=True)
        self._is_copied = torch.cuda.Event()
        self._is_copied.record()
