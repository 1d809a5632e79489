"""The Hadamard rotation that spreads outliers over a group of channels before they are rounded to INT8.

H4 = [[1, 1, 1, -1], [1, 1, -1, 1], [1, -1, 1, 1], [-1, 1, 1, 1]]; H = H4 x ... x H4 / sqrt(group), Kronecker products.
H is symmetric and its own inverse, so (x H)(w H)^T = x w^T: whoever rotates weights rotates inputs, or the
weights back.
Source: ConvRot (regular Hadamard matrices), as ComfyUI's INT8 files have it.
"""

from torch import Tensor

from ..errors import InvalidArgumentError

DEFAULT_GROUP = 256
"""The group of files that name none."""


def is_rotation_group(group: int) -> bool:
    """Whether there is an H of this size: 4, 16, 64, ..."""
    return group >= 4 and group & (group - 1) == 0 and group.bit_length() % 2 == 1


def rotate(values: Tensor, group: int) -> Tensor:
    """Values (..., columns), floating point, each `group` of neighbouring columns times H; once more gives them back.

    Raises InvalidArgumentError if `group` is no power of four that divides the columns.
    """
    if not is_rotation_group(group) or values.shape[-1] % group:
        raise InvalidArgumentError(
            f"rotation: expected a power of four that divides {values.shape[-1]} columns, got {group}."
        )
    out, stride = values, 1
    while stride < group:
        four = out.reshape(-1, 4, stride)
        # Each row of H4 is ones but for a minus where the column mirrors the row.
        out = four.sum(1, keepdim=True) - 2 * four.flip(1)
        stride *= 4
    return (out * group**-0.5).reshape(values.shape)
