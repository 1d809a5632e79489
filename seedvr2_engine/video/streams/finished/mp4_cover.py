"""Put cover art into a finished MP4: FFmpeg's muxer makes a broken track of it in files written in fragments."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from ..attachments import Attachment
from .mp4_boxes import last_box

_CODES = {"mjpeg": 13, "png": 14, "bmp": 27}
_HANDLER = b"\0" * 8 + b"mdirappl" + b"\0" * 9
_FULL_BOX_BYTES = 4


def add_covers(path: Path, covers: list[Attachment]) -> bool:
    """Add pictures to the file's tags (moov/udta/meta/ilst/covr).

    Returns False, having changed nothing, if the index is not the last part of the file, which then could not grow, or
    if the disk has no room. The file is whole at every moment: a new index is put behind the old one, which counts
    until a few bytes say that it is none.
    """
    with path.open("r+b", 0) as file:
        end = file.seek(0, os.SEEK_END)
        start = last_box(file, end)
        if start is None:
            return False
        file.seek(start)
        moov = file.read(end - start)
        if moov[4:8] != b"moov":
            return False
        changed = _with_covers(moov[8:], covers)
        if changed is None:
            return False
        try:
            file.seek(end)
            rest = memoryview(changed)
            while rest:  # A disk that fills up takes a part first and fails then.
                rest = rest[file.write(rest) :]
        except OSError:
            file.truncate(end)
            return False
        file.seek(start + 4)
        file.write(b"free")
    return True


def _with_covers(moov: bytes, covers: list[Attachment]) -> bytes | None:
    pictures = b"".join(
        _box(b"data", _CODES[cover.codec or ""].to_bytes(4, "big") + bytes(4) + cover.data) for cover in covers
    )
    covr = _box(b"covr", pictures)
    meta = bytes(_FULL_BOX_BYTES) + _box(b"hdlr", _HANDLER) + _box(b"ilst", b"")
    body = _in_box(moov, b"udta", b"", lambda udta: _in_box(udta, b"meta", meta, lambda m: _in_meta(m, covr)))
    return None if body is None else _box(b"moov", body)


def _in_meta(meta: bytes, covr: bytes) -> bytes | None:
    boxes = _in_box(meta[_FULL_BOX_BYTES:], b"ilst", b"", lambda ilst: ilst + covr)
    return None if boxes is None else meta[:_FULL_BOX_BYTES] + boxes


def _in_box(boxes: bytes, name: bytes, empty: bytes, change: Callable[[bytes], bytes | None]) -> bytes | None:
    """These boxes with the content of the first called `name` changed; one with `empty` is added if there is none."""
    position = 0
    while position + 8 <= len(boxes):
        size = int.from_bytes(boxes[position : position + 4], "big")
        if size < 8 or position + size > len(boxes):
            return None
        if boxes[position + 4 : position + 8] == name:
            changed = change(boxes[position + 8 : position + size])
            return None if changed is None else boxes[:position] + _box(name, changed) + boxes[position + size :]
        position += size
    changed = change(empty)
    return None if changed is None else boxes[:position] + _box(name, changed) + boxes[position:]


def _box(name: bytes, content: bytes) -> bytes:
    return (8 + len(content)).to_bytes(4, "big") + name + content
