"""EXIF blocks as bytes: what no longer holds once a picture is upright and larger is set right in place.

In place, because a directory that is written anew moves, and the makers' own notes hold absolute offsets.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

PREFIX = b"Exif\0\0"
"""What stands before the TIFF structure in JPEG files, and in what Pillow takes."""
_ORIENTATION, _X_RESOLUTION, _Y_RESOLUTION, _RESOLUTION_UNIT, _EXIF_IFD = 0x0112, 0x011A, 0x011B, 0x0128, 0x8769
_PIXEL_X, _PIXEL_Y, _WIDTH, _HEIGHT = 0xA002, 0xA003, 0x0100, 0x0101
_BYTES = {3: 2, 4: 4}
_Order = Literal["little", "big"]


class _Entry(NamedTuple):
    tag: int
    type: int
    position: int
    """Of its value field, counted from the start of the TIFF structure."""


def bare(exif: bytes) -> bytes:
    """Return the TIFF structure alone."""
    return exif[len(PREFIX) :] if exif.startswith(PREFIX) else exif


def without_turn(exif: bytes) -> bytes | None:
    """Return the TIFF structure with orientation 1 and without its thumbnail; None if it is no such structure."""
    data = bytearray(bare(exif))
    order = _order(data)
    if order is None:
        return None
    for entry in _entries(data, order, _number(data, 4, 4, order)):
        if entry.tag == _ORIENTATION and entry.type in _BYTES:
            data[entry.position : entry.position + 4] = (1).to_bytes(_BYTES[entry.type], order).ljust(4, b"\0")
    # The second directory is the thumbnail, which was made of the picture as stored.
    first = _number(data, 4, 4, order)
    link = first + 2 + 12 * _number(data, first, 2, order)
    if link + 4 <= len(data):
        data[link : link + 4] = bytes(4)
    return bytes(data)


def with_size(exif: bytes, width: int, height: int) -> bytes:
    """Return the structure with the picture's width and height in pixels, where it names them."""
    data = bytearray(exif)
    order = _order(data)
    if order is None:
        return exif
    values = {_PIXEL_X: width, _WIDTH: width, _PIXEL_Y: height, _HEIGHT: height}
    main = list(_entries(data, order, _number(data, 4, 4, order)))
    nested = [
        inner
        for entry in main
        if entry.tag == _EXIF_IFD
        for inner in _entries(data, order, _number(data, entry.position, 4, order))
    ]
    for entry in (*main, *nested):
        if entry.tag in values and entry.type in _BYTES:
            length = _BYTES[entry.type]
            value = min(values[entry.tag], (1 << 8 * length) - 1)
            data[entry.position : entry.position + 4] = value.to_bytes(length, order).ljust(4, b"\0")
    return bytes(data)


def resolution_of(exif: bytes) -> tuple[tuple[float, float], str] | None:
    """Return (horizontal, vertical) pixels per unit and "inch" or "none"; None where the block does not say."""
    order = _order(exif)
    if order is None:
        return None
    found: dict[int, float] = {}
    unit = 2
    for entry in _entries(exif, order, _number(exif, 4, 4, order)):
        if entry.tag in (_X_RESOLUTION, _Y_RESOLUTION) and entry.type == 5:
            at = _number(exif, entry.position, 4, order)
            below = _number(exif, at + 4, 4, order)
            found[entry.tag] = _number(exif, at, 4, order) / below if below else 0.0
        elif entry.tag == _RESOLUTION_UNIT and entry.type == 3:
            unit = _number(exif, entry.position, 2, order)
    if len(found) < 2:
        return None
    factor = 2.54 if unit == 3 else 1.0
    return (found[_X_RESOLUTION] * factor, found[_Y_RESOLUTION] * factor), "none" if unit == 1 else "inch"


def _order(data: bytes | bytearray) -> _Order | None:
    orders: dict[bytes, _Order] = {b"II*\0": "little", b"MM\0*": "big"}
    return orders.get(bytes(data[:4])) if len(data) >= 8 else None


def _number(data: bytes | bytearray, position: int, length: int, order: _Order) -> int:
    """0 beyond the end of the data."""
    return int.from_bytes(data[position : position + length], order)


def _entries(data: bytes | bytearray, order: _Order, position: int) -> Iterator[_Entry]:
    """The entries of the directory at `position`; those that lie within the data."""
    if not 8 <= position <= len(data) - 2:
        return
    for index in range(_number(data, position, 2, order)):
        at = position + 2 + 12 * index
        if at + 12 > len(data):
            return
        yield _Entry(_number(data, at, 2, order), _number(data, at + 2, 2, order), at + 8)
