"""Results from the GPU to the host while the GPU goes on."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

STAGED_FRAMES = 2
"""Frames on their way: the host waits for one when the next one's work has been launched."""


def on_host(frames: Iterable[Tensor], *, is_pinned: bool = False) -> Iterator[Tensor]:
    """Frames of any shape and dtype as they come, on the CPU, in memory of their own.

    From a GPU a frame is given out one frame late; what is on the CPU already is given out as it is. is_pinned: frames
    from a GPU stay in page-locked memory, which is scarce: for a caller who keeps a few. torch gives it out again.
    """
    if is_pinned:
        return staged(frames, STAGED_FRAMES, is_reused=False)
    # A caller may keep every frame.
    return staged(frames, STAGED_FRAMES, kept=Tensor.clone)


def staged(
    frames: Iterable[Tensor],
    depth: int,
    *,
    kept: Callable[[Tensor], Tensor] = lambda memory: memory,
    while_waiting: Callable[[int], None] = lambda _: None,
    is_reused: bool = True,
) -> Iterator[Tensor]:
    """Frames of any shape and dtype on the CPU; those from a GPU are overwritten once the next one is asked for.

    From a GPU a frame goes through page-locked memory, which a copy does not wait for, and is given out when `depth`
    are on their way. kept: makes of that memory what is given out. while_waiting: called when all are on their way,
    for each that has not arrived, with how many are before it. is_reused: False gives every frame memory of its own.
    """
    waiting: deque[tuple[Tensor, torch.cuda.Event]] = deque()
    free: list[Tensor] = []

    def taken() -> Iterator[Tensor]:
        memory, arrived = waiting.popleft()
        arrived.synchronize()
        yield kept(memory)
        if is_reused:
            free.append(memory)

    for frame in frames:
        if frame.device.type != "cuda":
            yield frame.cpu()
            continue
        memory = free.pop() if free else None
        if memory is None or (memory.shape, memory.dtype) != (frame.shape, frame.dtype):
            memory = torch.empty(frame.shape, dtype=frame.dtype, pin_memory=True)
        memory.copy_(frame, non_blocking=True)
        arrived = torch.cuda.Event()
        arrived.record(torch.cuda.current_stream(frame.device))
        waiting.append((memory, arrived))
        if len(waiting) == depth:
            yield from taken()
    for before, (_, arrived) in enumerate(waiting):
        if not arrived.query():
            while_waiting(before)
    while waiting:
        yield from taken()
