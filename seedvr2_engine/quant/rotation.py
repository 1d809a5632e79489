"""The Hadamard rotation that spreads outliers over a group of channels before they are rounded to INT8.

H4 = [[1, 1, 1, -1], [1, 1, -1, 1], [1, -1, 1, 1], [-1, 1, 1, 1]]; H = H4 x ... x H4 / sqrt(group), Kronecker products.
H is symmetric and its own inverse, so (x H)(w H)^T = x w^T: whoever rotates weights rotates inputs, or the
weights back.
Source: ConvRot (regular Hadamard matrices), as ComfyUI's INT8 files have it.
"""

import torch
from torch import Tensor

from ..errors import InvalidArgumentError

DEFAULT_GROUP = 256
"""The group of files that name none."""


def is_rotation_group(group: int) -> bool:
    """Whether there is an H of this size: 4, 16, 64, ..."""
    return group >= 4 and group & (group - 1) == 0 and group.bit_length() % 2 == 1


def rotate(values: Tensor, group: int) -> Tensor:
    """Values (..., columns), floating point: each `group` of neighbouring columns times H; once more gives them back.

    Raises InvalidArgumentError if `group` is no power of four that divides the columns.
    """
    if not is_rotation_group(group) or values.shape[-1] % group:
        raise InvalidArgumentError(
            f"rotation: expected a power of four that divides {values.shape[-1]} columns, got {group}."
        )
    # Columns first, so that each step adds long rows; sums of two, so that every device gets the same bits.
    out, stride = values.reshape(-1, group).T.contiguous(), values.numel() // group
    while stride < values.numel():
        first, second, third, fourth = out.view(-1, 4, stride).unbind(1)
        total = (first + second).add_(third + fourth)
        turned = torch.empty_like(out)
        # Each row of H4 is ones but for a minus where the column mirrors the row.
        for row, mirrored in zip(turned.view(-1, 4, stride).unbind(1), (fourth, third, second, first), strict=True):
            torch.sub(total, mirrored, alpha=2, out=row)
        out, stride = turned, stride * 4
    return out.mul_(group**-0.5).T.reshape(values.shape)
