"""The numbers that the colour kernels are compiled with."""

from typing import NamedTuple

Matrix = tuple[tuple[float, ...], ...]


class LabMatching(NamedTuple):
    """Between RGB in linear light and Lab, and what is done in Lab."""

    to_xyz: Matrix
    """Rows of 3x3: linear RGB -> X, Y and Z, each as a share of the white's."""
    from_xyz: Matrix
    """The inverse."""
    knee: float
    """The value of Lab's cube root below which it is a line."""
    slope: float
    """116 times the slope of that line."""
    ranges: tuple[tuple[float, float], ...]
    """Of L, a and b: the lowest value, and levels a unit."""
    levels: int
    """Levels of each."""
    lightness_share: float
    """Share of the matched lightness in the result."""
