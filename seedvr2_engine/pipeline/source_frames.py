"""Frames of a source as they come: tensors, or code values that become R'G'B' where they are needed."""

from typing import Protocol

import torch
from torch import Tensor


class CodedPicture(Protocol):
    """A picture as code values, such as `video.coded.CodedFrame`."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(3, or 4 with alpha, H, W)."""

    def on(self, device: torch.device | str) -> Tensor:
        """FP32 R'G'B' and alpha in [0, 1] of that shape on a device; no NaN, no infinities."""


SourceFrame = Tensor | CodedPicture
"""Floating point (3, H, W), or (4, H, W) with alpha, in [0, 1]; or code values that stand for it."""


def colors_on(frame: SourceFrame, device: torch.device) -> Tensor:
    """R'G'B' (3, H, W) of a source frame on a device."""
    return frame[:3].to(device, non_blocking=True) if isinstance(frame, Tensor) else frame.on(device)[:3]


def alpha_on(frame: SourceFrame, device: torch.device) -> Tensor:
    """Alpha (1, H, W) of a source frame that has it, on a device."""
    return frame[3:].to(device) if isinstance(frame, Tensor) else frame.on(device)[3:]


def whole(frame: SourceFrame, device: torch.device) -> Tensor:
    """A source frame (3 or 4, H, W) on the host; device: where code values are converted."""
    return frame if isinstance(frame, Tensor) else frame.on(device).cpu()
