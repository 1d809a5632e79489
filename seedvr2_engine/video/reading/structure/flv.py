"""Walk through an FLV file's tags (Adobe's specification, annex E)."""

from __future__ import annotations

import struct
from typing import BinaryIO

from .parts import Budget, Structure, disorder

_TAGS = frozenset((8, 9, 18))
_WRAPPING = (6, 7)
_METADATA_BYTES = 1 << 14
_FILE_SIZE = b"\0\x08filesize\0"
_LONGEST_FILE = 1 << 50


def walk_flv(file: BinaryIO, size_bytes: int, budget: Budget) -> Structure:
    """Walk the tags, and count those that hold a picture: no codec header, end of sequence, or command."""
    file.seek(5)
    position = int.from_bytes(file.read(4), "big") + 4
    pictures = 0
    length_before, is_followed = None, False
    while position < size_bytes:
        budget.spend()
        file.seek(position)
        tag = file.read(16)
        if length_before is not None:
            # Each tag is followed by its length; some writers leave that out everywhere.
            file.seek(position - 4)
            follows = int.from_bytes(file.read(4), "big") == length_before
            if is_followed and not follows:
                return Structure(0, disorder(position - 4), (pictures,))
            is_followed = is_followed or follows
        if len(tag) < 11:
            return Structure(11 - len(tag), None, (pictures,))
        kind, length = tag[0] & 0x1F, int.from_bytes(tag[1:4], "big")
        if kind not in _TAGS:
            return Structure(0, disorder(position), (pictures,))
        end = position + 11 + length
        if kind == 9 and length > 5 and _holds_picture(tag[11:]):
            pictures += 1
        if end > size_bytes:
            return Structure(end + 4 - size_bytes, None, (pictures,))
        position, length_before = end + 4, 11 + length
    # A file that is cut between two tags looks whole but for the length that its writer noted.
    missing = max(0, _noted_bytes(file) - size_bytes)
    return Structure(missing, None, (pictures,) if pictures else ())


def _noted_bytes(file: BinaryIO) -> int:
    """The length of the file by its first tag's `filesize`, a number in eight bytes; 0 if it is not there."""
    file.seek(0)
    head = file.read(_METADATA_BYTES)
    at = head.find(_FILE_SIZE)
    data = head[at + len(_FILE_SIZE) : at + len(_FILE_SIZE) + 8]
    if at < 0 or len(data) < 8:
        return 0
    (noted,) = struct.unpack(">d", data)
    return int(noted) if 0 < noted < _LONGEST_FILE else 0


def _holds_picture(data: bytes) -> bool:
    if data[0] & 0x80:
        # Enhanced FLV: coded frames are packet types 1 and 3. All but the last two, which are put before others, go on
        # with the letters of a codec; what does not is a picture that something was written over.
        kind = data[0] & 0x0F
        return kind in (1, 3) or (kind not in _WRAPPING and not data[1:5].isalnum())
    frame, codec = data[0] >> 4, data[0] & 0x0F
    return frame != 5 and (codec not in (7, 12) or data[1] == 1)
