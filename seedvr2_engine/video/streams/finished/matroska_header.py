"""Write the pixel aspect into a finished Matroska header, in a field that PyAV does not reach."""

from __future__ import annotations

import zlib
from fractions import Fraction
from pathlib import Path

from ...reading.container.matroska import (
    TRACK_ENTRY,
    TRACK_TYPE,
    VIDEO,
    VIDEO_TRACK,
    Element,
    elements,
    find_tracks,
    number,
)

_NAME, _VOID, _CRC = 0x536E, 0xEC, 0xBF
_DISPLAY_WIDTH, _DISPLAY_HEIGHT, _DISPLAY_UNIT = 0x54B0, 0x54BA, 0x54B2
_ROOM = 32


def with_room(title: str | None) -> str:
    """A title for the video track that leaves room for the fields; `set_display_size` takes the blanks away."""
    return (title or "") + " " * _ROOM


def display_size(size: tuple[int, int], aspect: Fraction) -> tuple[int, int]:
    """(width, height) in square pixels of a picture of `size`: exact if one side can be, else within half a pixel."""
    width, height = size
    if (width * aspect).denominator != 1 and (height / aspect).denominator == 1:
        return width, int(height / aspect)
    return max(1, round(width * aspect)), height


def set_display_size(path: Path, shown: tuple[int, int]) -> bool:
    """Set the width and height at which the first video track is shown; the file keeps its length.

    Returns False, having changed nothing, if the header is not as `with_room` had it made.
    """
    with path.open("r+b", 0) as file:  # One write, or none; a buffer would try again when it is closed.
        place = find_tracks(file)
        if place is None:
            return False
        file.seek(place[0])
        tracks = file.read(place[1] - place[0])
        changed = _changed(tracks, shown)
        if changed is None or len(changed) != len(tracks):
            return False
        file.seek(place[0])
        file.write(changed)
    return True


def _changed(tracks: bytes, shown: tuple[int, int]) -> bytes | None:
    parts: list[bytes] = []
    crc: int | None = None
    is_done = False
    for element in elements(tracks, 0, len(tracks)):
        part = tracks[element.start : element.end]
        if element.id == _CRC:
            crc = len(parts)
        elif element.id == TRACK_ENTRY and not is_done and _is_video(tracks, element):
            entry = _changed_entry(tracks, element, shown)
            if entry is None:
                return None
            part, is_done = entry, True
        parts.append(part)
    if not is_done:
        return None
    if crc is not None:
        rest = b"".join(parts[crc + 1 :])
        parts[crc] = _element(_CRC, zlib.crc32(rest).to_bytes(4, "little"))
    return b"".join(parts)


def _is_video(data: bytes, entry: Element) -> bool:
    fields = {field.id: field for field in elements(data, entry.data, entry.end)}
    return number(data, fields.get(TRACK_TYPE)) == VIDEO_TRACK and VIDEO in fields


def _changed_entry(data: bytes, entry: Element, shown: tuple[int, int]) -> bytes | None:
    parts: list[bytes] = []
    for field in elements(data, entry.data, entry.end):
        content = data[field.data : field.end]
        if field.id == _NAME:
            title = content.rstrip(b" \0")
            parts += [_element(_NAME, title)] if title else []
        elif field.id == VIDEO:
            inner = [data[part.start : part.end] for part in elements(data, field.data, field.end) if not _shows(part)]
            inner += [
                _element(identity, value.to_bytes(4, "big"))
                for identity, value in zip((_DISPLAY_WIDTH, _DISPLAY_HEIGHT), shown, strict=True)
            ]
            parts.append(_element(VIDEO, b"".join(inner)))
        else:
            parts.append(data[field.start : field.end])
    body = b"".join(parts)
    room = entry.end - entry.data - len(body)
    if room < 2 or room > 100:
        return None
    return data[entry.start : entry.data] + body + _element(_VOID, bytes(room - 2))


def _shows(field: Element) -> bool:
    return field.id in (_DISPLAY_WIDTH, _DISPLAY_HEIGHT, _DISPLAY_UNIT)


def _element(identity: int, content: bytes) -> bytes:
    size = len(content)
    width = 1 if size < 0x7F else 2 if size < 0x3FFF else 4
    coded = (size | 1 << (7 * width)).to_bytes(width, "big")
    return identity.to_bytes((identity.bit_length() + 7) // 8, "big") + coded + content
