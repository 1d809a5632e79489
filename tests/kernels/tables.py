"""Tables and padding that tests make for kernels; the engine makes its own, step by step, in `plan.tables`."""

import torch
from torch import Tensor

from seedvr2_engine.kernels.conv.upsample import SET_OF_SECOND


def clip_table(frames: int, kernel_t: int, *, stride: int = 1, first: int = 0) -> Tensor:
    """The table of a whole clip of `frames` frames at buffer index `first`: the first frame repeated as the past."""
    output = torch.arange(0, frames, stride)[:, None]
    taps = torch.arange(1 - kernel_t, 1)[None, :]
    seen = first + (output + taps).clamp(min=0)
    return torch.cat([seen, torch.zeros_like(output)], dim=1).to(torch.int32)


def upsample_table(frames: range, *, previous: int, first: int, step: int = 1) -> Tensor:
    """Table of the `later` launch of an upsampler with time, (2 * len(frames), 3) int32.

    frames: indices of the low-resolution frames within the clip, from 1 on. Frame i of them stands at buffer index
    `first + i * step`, and the one before the first of them at `previous`.
    """
    rows = []
    for i, frame in enumerate(frames):
        place = first + i * step
        before = previous if i == 0 else place - step
        base = SET_OF_SECOND if frame == 1 else 0
        rows += [[before, place, base], [before, place, base + 1]]
    return torch.tensor(rows, dtype=torch.int32)


def pad_channels(weight: Tensor, multiple_in: int, multiple_out: int) -> Tensor:
    """Append zero channels to (Co, Ci, kt, kh, kw) until both are multiples."""
    outputs, inputs = weight.shape[:2]
    padding = (0, 0, 0, 0, 0, 0, 0, -inputs % multiple_in, 0, -outputs % multiple_out)
    return torch.nn.functional.pad(weight, padding)
