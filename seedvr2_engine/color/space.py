"""Lab and HSV of sRGB pictures, and the models' range.

Pictures are (..., 3, H, W); RGB is in [0, 1], gamma-encoded as in files.

Source of Lab: CIE 1976 with the white D65, and IEC 61966-2-1 for sRGB.
"""

import torch
from torch import Tensor

RGB_TO_XYZ = (
    (0.4124564, 0.3575761, 0.1804375),
    (0.2126729, 0.7151522, 0.0721750),
    (0.0193339, 0.1191920, 0.9503041),
)
XYZ_TO_RGB = (
    (3.2404542, -1.5371385, -0.4985314),
    (-0.9692660, 1.8760108, 0.0415560),
    (0.0556434, -0.2040259, 1.0572252),
)
WHITE_X, WHITE_Z = 0.95047, 1.08883
KNEE = 6 / 29
"""Below this value Lab's cube root is a line."""
SLOPE = (29 / 3) ** 3
"""116 times the slope of that line."""


def to_rgb(picture: Tensor) -> Tensor:
    """From the models' range, [-1, 1], to [0, 1], clamped; in the picture's dtype, and NaN stays."""
    return (picture * 0.5 + 0.5).clamp_(0, 1)


def from_rgb(rgb: Tensor) -> Tensor:
    """From [0, 1] to the models' range, [-1, 1]."""
    return rgb * 2 - 1


def rgb_to_lab(rgb: Tensor) -> Tensor:
    """RGB -> Lab: L in [0, 100], a in [-87, 99], b in [-108, 95]."""
    linear = torch.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    x, y, z = _product(RGB_TO_XYZ, linear).unbind(-3)
    fx, fy, fz = (_root(v) for v in (x / WHITE_X, y, z / WHITE_Z))
    return torch.stack([116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)], dim=-3)


def lab_to_rgb(lab: Tensor) -> Tensor:
    """Lab -> RGB, clamped to [0, 1]."""
    lightness, a, b = lab.unbind(-3)
    fy = (lightness + 16) / 116
    x, y, z = (_power(f) for f in (fy + a / 500, fy, fy - b / 200))
    linear = _product(XYZ_TO_RGB, torch.stack([x * WHITE_X, y, z * WHITE_Z], dim=-3))
    encoded = 1.055 * linear.clamp(min=0.0031308) ** (1 / 2.4) - 0.055
    return torch.where(linear > 0.0031308, encoded, 12.92 * linear).clamp(0, 1)


def rgb_to_hsv(rgb: Tensor) -> Tensor:
    """RGB -> hue in [0, 1], saturation in [0, 1], value in [0, 1]; grey has hue 0, black saturation 0."""
    red, green, blue = rgb.unbind(-3)
    value, least = rgb.amax(-3), rgb.amin(-3)
    chroma = value - least
    divisor = torch.where(chroma > 0, chroma, 1)
    hue = ((green - blue) / divisor) % 6
    hue = torch.where(value == green, (blue - red) / divisor + 2, hue)
    hue = torch.where(value == blue, (red - green) / divisor + 4, hue)
    hue = torch.where(chroma > 0, hue / 6, 0)
    return torch.stack([hue, saturation(rgb), value], dim=-3)


def hsv_to_rgb(hsv: Tensor) -> Tensor:
    """Hue, saturation, value -> RGB, clamped to [0, 1]."""
    hue, chroma_share, value = hsv.unbind(-3)
    channels = []
    for offset in (5, 3, 1):
        sector = (offset + hue * 6) % 6
        ramp = torch.minimum(sector, 4 - sector).clamp(0, 1)
        channels.append(value - value * chroma_share * ramp)
    return torch.stack(channels, dim=-3).clamp(0, 1)


def saturation(rgb: Tensor) -> Tensor:
    """(max - min) / max of the three channels, 0 for black: (..., H, W)."""
    value = rgb.amax(-3)
    return torch.where(value > 1e-10, (value - rgb.amin(-3)) / value.clamp(min=1e-10), 0)


def _product(matrix: tuple[tuple[float, ...], ...], channels: Tensor) -> Tensor:
    # Sums of products, not a matrix product: that may run in TF32 or in another order from device to device.
    first, second, third = channels.unbind(-3)
    return torch.stack([first * m[0] + second * m[1] + third * m[2] for m in matrix], dim=-3)


def _root(v: Tensor) -> Tensor:
    return torch.where(v > KNEE**3, v.clamp(min=0) ** (1 / 3), (SLOPE * v + 16) / 116)


def _power(f: Tensor) -> Tensor:
    return torch.where(f > KNEE, f**3, (116 * f - 16) / SLOPE)
