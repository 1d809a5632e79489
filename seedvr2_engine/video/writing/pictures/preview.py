"""Pictures for browsers: small ones as JPEG, whole ones as PNG, in 8 bits and without anything but pixels."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from PIL import Image
from torch import Tensor

from .picture_bytes import png_of


def jpeg_of(rgb: Tensor, quality: int = 80) -> bytes:
    """The bytes of a JPEG file of float (3,H,W) in [0,1]."""
    target = BytesIO()
    Image.fromarray(_codes(rgb)).save(target, "JPEG", quality=quality)
    return target.getvalue()


def png_8bit(rgb: Tensor) -> bytes:
    """The bytes of a PNG file of float (3,H,W) in [0,1], each value rounded to the nearest code."""
    return png_of(_codes(rgb))


def _codes(rgb: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    codes: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]
    codes = (rgb.detach().float().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).contiguous().cpu().numpy()
    return codes
