"""ICC profiles (ICC.1:2022): what space they describe, their names, and which of them colour tags can say."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

_HEADER_BYTES = 128
_SPACES = {b"RGB ": "RGB", b"GRAY": "grey", b"CMYK": "CMYK", b"Lab ": "Lab"}
# Red, green and blue adapted to D50, as profiles hold them: (X, Y, Z) each.
_PRIMARIES = {
    1: ((0.4361, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141)),
    12: ((0.5151, 0.2412, -0.0011), (0.2920, 0.6922, 0.0419), (0.1571, 0.0666, 0.7841)),
    9: ((0.6735, 0.2790, -0.0019), (0.1657, 0.6753, 0.0300), (0.1251, 0.0456, 0.7969)),
}
_SRGB, _GAMMA22 = 13, 4
# Half a step of 8 bits for the curve; colorants in profiles are rounded, and adapted by slightly different matrices.
_CURVE_TOLERANCE, _COLORANT_TOLERANCE = 0.004, 0.004


def space_of(profile: bytes) -> str | None:
    """Return "RGB", "grey", "CMYK", "Lab" or the signature of another space; None if it is no profile."""
    if len(profile) < _HEADER_BYTES + 4 or profile[36:40] != b"acsp":
        return None
    return _SPACES.get(profile[16:20], profile[16:20].decode("latin-1").strip())


def name_of(profile: bytes) -> str:
    """Return the profile's own description, or "unnamed"."""
    try:
        name = ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(profile)))
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return "unnamed"
    return " ".join(name.split())[:80] or "unnamed"


def tags_of(profile: bytes) -> tuple[int, int] | None:
    """Return (primaries, transfer) as H.273 code points if they say the same as this RGB profile; None otherwise.

    Knows sRGB, Display P3 and BT.2020 primaries with the curve of sRGB or a gamma of 2.2.
    """
    if space_of(profile) != "RGB":
        return None
    tables = _tables(profile)
    if any(name in tables for name in (b"A2B0", b"D2B0")):
        return None
    colorants = [_xyz(tables.get(name, b"")) for name in (b"rXYZ", b"gXYZ", b"bXYZ")]
    curves = [_curve(tables.get(name, b"")) for name in (b"rTRC", b"gTRC", b"bTRC")]
    if any(value is None for value in (*colorants, *curves)):
        return None
    primaries = next(
        (
            code
            for code, known in _PRIMARIES.items()
            if np.abs(np.array(known) - np.array(colorants)).max() < _COLORANT_TOLERANCE
        ),
        None,
    )
    levels = np.linspace(0, 1, 256)
    srgb = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)
    transfer = next(
        (
            code
            for code, known in ((_SRGB, srgb), (_GAMMA22, levels**2.2))
            if max(np.abs(np.asarray(curve) - known).max() for curve in curves) < _CURVE_TOLERANCE
        ),
        None,
    )
    return None if primaries is None or transfer is None else (primaries, transfer)


def grey_levels(profile: bytes) -> NDArray[Any] | None:
    """Return sRGB grey, float64 (256,) in [0,1], for the 256 grey levels of a grey profile; None if it is unusable."""
    ramp = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16))
    try:
        converted = ImageCms.profileToProfile(
            ramp, io.BytesIO(profile), ImageCms.createProfile("sRGB"), outputMode="RGB"
        )
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None
    return None if converted is None else np.asarray(converted, dtype=np.float64).reshape(256, 3)[:, 1] / 255


def to_srgb(picture: Image.Image, profile: bytes) -> Image.Image | None:
    """Return a picture (CMYK, Lab, ...) as 8-bit sRGB by its profile; None if the profile is unusable for it."""
    try:
        return ImageCms.profileToProfile(picture, io.BytesIO(profile), ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None


def lab_to_srgb(picture: Image.Image) -> Image.Image | None:
    """Return a Lab picture (D50) as 8-bit sRGB; None if that fails."""
    try:
        return ImageCms.profileToProfile(
            picture, ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), outputMode="RGB"
        )
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None


def _tables(profile: bytes) -> dict[bytes, bytes]:
    (count,) = struct.unpack_from(">I", profile, _HEADER_BYTES)
    tables = {}
    for index in range(min(count, 200)):
        at = _HEADER_BYTES + 4 + 12 * index
        if at + 12 > len(profile):
            break
        name, offset, length = struct.unpack_from(">4sII", profile, at)
        tables[name] = profile[offset : offset + length]
    return tables


def _xyz(table: bytes) -> list[float] | None:
    if len(table) < 20 or table[:4] != b"XYZ ":
        return None
    return [value / 65536 for value in struct.unpack_from(">3i", table, 8)]


def _seven(kind: int, values: list[float]) -> tuple[float, ...]:
    """The seven numbers of the fullest parametric curve for one of the five kinds. Source: ICC.1:2022, 10.18."""
    if kind == 0:
        return (values[0], 1.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    if kind in (1, 2):
        start = -values[2] / values[1] if values[1] else 0.0
        offset = values[3] if kind == 2 else 0.0
        return (*values[:3], 0.0, start, offset, offset)
    return (*values, 0.0, 0.0) if kind == 3 else tuple(values)


def _curve(table: bytes) -> NDArray[Any] | None:
    """Linear light (256,) for 256 levels."""
    levels: NDArray[Any] = np.linspace(0, 1, 256)
    if len(table) < 12:
        return None
    if table[:4] == b"curv":
        (count,) = struct.unpack_from(">I", table, 8)
        if count == 0:
            return levels
        if len(table) < 12 + 2 * count:
            return None
        points = np.frombuffer(table, ">u2", count, 12).astype(np.float64)
        if count == 1:
            levels = levels ** (points[0] / 256)
        else:
            levels = np.interp(levels, np.linspace(0, 1, count), points / 65535)
        return levels
    if table[:4] == b"para":
        kind = int.from_bytes(table[8:10], "big")
        counts = {0: 1, 1: 3, 2: 4, 3: 5, 4: 7}
        if kind not in counts or len(table) < 12 + 4 * counts[kind]:
            return None
        values = [value / 65536 for value in struct.unpack_from(f">{counts[kind]}i", table, 12)]
        g, a, b, c, d, e, f = _seven(kind, values)
        with np.errstate(all="ignore"):
            curve = np.where(levels >= d, np.maximum(a * levels + b, 0) ** g + e, c * levels + f)
        return curve if np.isfinite(curve).all() else None
    return None
