"""Decoded pictures from the GPU into an IMAGE on the host, while the GPU goes on."""

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice

import torch
from torch import Tensor

STAGED_FRAMES = 8
"""Pictures on their way: two steps of the decoder."""


def write_frames(pictures: Iterable[Tensor], image: Tensor) -> Iterator[int]:
    """Write pictures (3, H, W) in [-1, 1], any dtype, into `image` (N, h, w, 3), FP32 in [0, 1], trimmed to its size.

    NaN becomes 0.

    Yields the index of each frame that is written. From a GPU a picture goes through page-locked memory, and the host
    waits for it only when the next ones have been launched. Stops after N pictures.
    """
    count, height, width, _ = image.shape
    waiting: deque[tuple[int, Tensor, torch.cuda.Event]] = deque()
    free: list[Tensor] = []
    for index, picture in enumerate(islice(pictures, count)):
        shown = (picture[:, :height, :width].movedim(0, -1).float() * 0.5 + 0.5).nan_to_num_(0).clamp_(0, 1)
        if shown.device.type != "cuda":
            image[index] = shown.cpu()
            yield index
            continue
        staged = free.pop() if free else torch.empty(image.shape[1:], pin_memory=True)
        staged.copy_(shown, non_blocking=True)
        arrived = torch.cuda.Event()
        arrived.record(torch.cuda.current_stream(shown.device))
        waiting.append((index, staged, arrived))
        if len(waiting) == STAGED_FRAMES:
            yield _take(waiting, image, free)
    for index, _, arrived in waiting:
        # New memory has its pages only once it is written to. For the last pictures that is better done while the GPU
        # still works on them; the others are copied while it works on the next.
        if not arrived.query():
            image[index].zero_()
    while waiting:
        yield _take(waiting, image, free)


def _take(waiting: deque[tuple[int, Tensor, torch.cuda.Event]], image: Tensor, free: list[Tensor]) -> int:
    index, staged, arrived = waiting.popleft()
    arrived.synchronize()
    image[index] = staged
    free.append(staged)
    return index
