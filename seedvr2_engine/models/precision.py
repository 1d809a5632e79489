"""Which arithmetic PyTorch may use for FP32 on a GPU."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_lock = threading.Lock()
_inside = 0
_before = False, False


@contextmanager
def exact_float32() -> Iterator[None]:
    """Keep FP32 convolutions and matrix products in FP32 on GPUs that would use TF32, then put the switches back.

    The switches are the whole process's: they stay off as long as any thread is inside, and the last one to leave puts
    them back to what the first one found.
    """
    global _inside, _before
    with _lock:
        if _inside == 0:
            _before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
            torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = _before
