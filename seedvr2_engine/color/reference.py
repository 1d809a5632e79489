"""The steps of `lab` and `wavelet` in PyTorch: what a CPU runs, and the references of `kernels.color.correction`.

Pictures are (3, H, W) in [-1, 1], of any floating dtype.
"""

import torch
from torch import Tensor

from .rank import LEVELS, ValueRange, add_levels, look_up, to_levels
from .space import from_rgb, lab_to_rgb, rgb_to_lab, to_rgb

BLUR_RADII_PX = (1, 2, 4, 8, 16)
LAB_RANGES = (ValueRange(0, 100), ValueRange(-87, 99), ValueRange(-108, 95))
"""The colours of sRGB lie within these."""
MATCHED_LIGHTNESS = 0.2
"""Share of the matched lightness in the result of `lab`; the chroma is matched in full."""


def wavelet(content: Tensor, style: Tensor) -> Tensor:
    """The fine detail of the content on the coarse colours of the style, (..., C, H, W) FP32, clamped to [-1, 1].

    Detail is what low frequencies leave of a picture, and the filter is linear, so that one filtering, of the
    difference of the two, does for both.
    """
    content = content.float()
    return (content + low_frequencies(style.float() - content)).clamp(-1, 1)


def low_frequencies(picture: Tensor) -> Tensor:
    """What blurs of `blur_radii` in turn leave of (..., C, H, W), each [1, 2, 1] / 4 along both edges with gaps."""
    for radius in blur_radii(picture):
        picture = _blur(_blur(picture, -1, radius), -2, radius)
    return picture


def blur_radii(picture: Tensor) -> tuple[int, ...]:
    """1, 2, 4, 8 and 16 px, but at most an eighth of the picture's shorter edge."""
    limit = max(1, min(picture.shape[-2:]) // 8)
    return tuple(min(radius, limit) for radius in BLUR_RADII_PX)


def count_lab(picture: Tensor, counts: Tensor) -> None:
    """Add how often each level of L, a and b occurs to counts (3, LEVELS), int32."""
    add_levels(_lab_levels(_to_lab(picture.float())), counts)


def match_lab(picture: Tensor, curves: Tensor) -> Tensor:
    """Give L, a and b the values of the curves (3, LEVELS); FP32."""
    lab = _to_lab(picture.float())
    matched = look_up(_lab_levels(lab), curves)
    matched[0].lerp_(lab[0], 1 - MATCHED_LIGHTNESS)
    return from_rgb(lab_to_rgb(matched))


def _blur(picture: Tensor, axis: int, radius: int) -> Tensor:
    """[1, 2, 1] / 4 along an axis, with gaps of `radius`, the edge repeated."""
    size = picture.shape[axis]
    first, last = (picture.narrow(axis, i, 1).repeat_interleave(radius, axis) for i in (0, size - 1))
    wide = torch.cat([first, picture, last], dim=axis)
    return (wide.narrow(axis, 0, size) + wide.narrow(axis, 2 * radius, size)) * 0.25 + picture * 0.5


def _to_lab(picture: Tensor) -> Tensor:
    return rgb_to_lab(to_rgb(picture))


def _lab_levels(lab: Tensor) -> Tensor:
    return torch.stack([to_levels(lab[i], LAB_RANGES[i]) + i * LEVELS for i in range(3)])
