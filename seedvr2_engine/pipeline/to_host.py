"""Results from the GPU to the host while the GPU goes on."""

from collections import deque
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

STAGED_FRAMES = 2
"""Frames on their way: the host waits for one when the next one's work has been launched."""


def on_host(frames: Iterable[Tensor]) -> Iterator[Tensor]:
    """Frames of any shape and dtype as they come, on the CPU, in memory of their own.

    From a GPU a frame goes through page-locked memory, which a copy does not wait for, and is given out one frame
    late; what is on the CPU already is given out as it is.
    """
    waiting: deque[tuple[Tensor, torch.cuda.Event]] = deque()
    free: list[Tensor] = []

    def take() -> Tensor:
        staged, arrived = waiting.popleft()
        arrived.synchronize()
        free.append(staged)
        # Page-locked memory is scarce, and a caller may keep every frame.
        return staged.clone()

    for frame in frames:
        if frame.device.type != "cuda":
            yield frame.cpu()
            continue
        staged = free.pop() if free else None
        if staged is None or (staged.shape, staged.dtype) != (frame.shape, frame.dtype):
            staged = torch.empty(frame.shape, dtype=frame.dtype, pin_memory=True)
        staged.copy_(frame, non_blocking=True)
        arrived = torch.cuda.Event()
        arrived.record(torch.cuda.current_stream(frame.device))
        waiting.append((staged, arrived))
        if len(waiting) == STAGED_FRAMES:
            yield take()
    while waiting:
        yield take()
