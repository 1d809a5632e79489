"""Find out from a file's outer structure whether something is missing, without decoding anything."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from .matroska import EBML_ID, walk_matroska
from .riff import walk_avi

_ISO_BOXES = frozenset({b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"moof", b"styp", b"sidx", b"pnot"})
_FLV_TAGS = frozenset((8, 9, 18))
_ASF_HEADER = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_ASF_FILE = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_ASF_DATA = bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c")
_TS_PACKETS = (188, 192, 204)
_TS_SYNC = 0x47


@dataclass(frozen=True)
class Structure:
    """A file by its own account."""

    missing_bytes: int = 0
    """Bytes that it lacks at its end."""
    fault: str | None = None
    """The first thing that is out of order, as a clause: "something is out of order at byte 123"."""
    pictures: tuple[int, ...] = ()
    """Coded pictures of each video stream, in the order of the streams; empty where the format does not say."""
    slots: tuple[int, ...] = ()
    """Places for pictures, which AVI leaves empty where a picture is shown again."""


def inspect(path: Path) -> Structure:
    """Walk through the file's outermost parts; nothing is out of order where its format does not say.

    Knows MP4/MOV boxes (ISO/IEC 14496-12), Matroska/WebM elements (RFC 8794), RIFF chunks (AVI, WebP), FLV tags
    (Adobe's specification, annex E), ASF objects and MPEG transport packets. The number of parts that are looked at
    is bounded by the file's size, so that a forged file of many tiny parts costs no time.
    """
    size_bytes = path.stat().st_size
    budget = 50_000 + size_bytes // 128
    with path.open("rb") as file:
        head = file.read(16)
        if head[4:8] in _ISO_BOXES:
            return Structure(_lacking(_iso_end(file, size_bytes, budget), size_bytes))
        if int.from_bytes(head[:4], "big") == EBML_ID:
            walk = walk_matroska(file, size_bytes, budget)
            counted = walk.is_whole or walk.fault is not None
            pictures = tuple(walk.blocks.get(track, 0) for track in walk.video_tracks) if counted else ()
            return Structure(_lacking(walk.end, size_bytes), walk.fault, pictures)
        if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
            return _avi(file, size_bytes, budget)
        if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
            return Structure(_lacking(8 + int.from_bytes(head[4:8], "little"), size_bytes))
        if head[:3] == b"FLV":
            return _flv(file, size_bytes, budget)
        if head == _ASF_HEADER:
            return _asf(file, size_bytes, budget)
        return _transport_stream(file, size_bytes)


def missing_bytes(path: Path) -> int:
    """Return how many bytes the file lacks by its own account; 0 if complete, or if its format does not say."""
    return inspect(path).missing_bytes


def _lacking(end: int, size_bytes: int) -> int:
    return max(0, end - size_bytes)


def _iso_end(file: BinaryIO, size_bytes: int, budget: int) -> int:
    """Walk the top-level boxes to the end that the last one claims."""
    position = 0
    while position + 8 <= size_bytes and budget > 0:
        budget -= 1
        file.seek(position)
        header = file.read(16)
        length = int.from_bytes(header[:4], "big")
        if length == 0:
            return size_bytes
        if length == 1:
            length = int.from_bytes(header[8:16], "big")
        if length < 8 or not header[4:8].isascii():
            # Bytes after the last box; FFmpeg ignores them too.
            return position
        position += length
    return position


def _avi(file: BinaryIO, size_bytes: int, budget: int) -> Structure:
    walk = walk_avi(file, size_bytes, budget)
    if not walk.is_whole and walk.fault is None:
        return Structure(_lacking(walk.end, size_bytes))
    return Structure(
        _lacking(walk.end, size_bytes),
        walk.fault,
        tuple(walk.pictures.get(number, 0) for number in walk.videos),
        tuple(walk.slots.get(number, 0) for number in walk.videos),
    )


def _flv(file: BinaryIO, size_bytes: int, budget: int) -> Structure:
    """Walk the tags, and count those that hold a picture: no codec header, end of sequence, or command."""
    file.seek(5)
    position = int.from_bytes(file.read(4), "big") + 4
    pictures = 0
    while position < size_bytes and budget > 0:
        budget -= 1
        file.seek(position)
        tag = file.read(16)
        if len(tag) < 11:
            return Structure(11 - len(tag), None, (pictures,))
        kind, length = tag[0] & 0x1F, int.from_bytes(tag[1:4], "big")
        if kind not in _FLV_TAGS:
            return Structure(0, f"something is out of order at byte {position}", (pictures,))
        end = position + 11 + length
        if kind == 9 and length > 5 and _flv_holds_picture(tag[11:]):
            pictures += 1
        if end > size_bytes:
            return Structure(end + 4 - size_bytes, None, (pictures,))
        position = end + 4
    return Structure(0, None, (pictures,) if budget > 0 and pictures else ())


def _flv_holds_picture(data: bytes) -> bool:
    if data[0] & 0x80:
        # Enhanced FLV: coded frames are packet types 1 and 3.
        return data[0] & 0x0F in (1, 3)
    frame, codec = data[0] >> 4, data[0] & 0x0F
    return frame != 5 and (codec not in (7, 12) or data[1] == 1)


def _asf(file: BinaryIO, size_bytes: int, budget: int) -> Structure:
    """Walk the objects; the data object must be as long as the packets that the header promises."""
    position, packets_bytes = 0, 0
    while position + 24 <= size_bytes and budget > 0:
        budget -= 1
        file.seek(position)
        head = file.read(24)
        kind, length = head[:16], int.from_bytes(head[16:], "little")
        if kind == _ASF_HEADER:
            packets_bytes = _asf_packets_bytes(file.read(min(length, 1 << 20)))
        elif kind == _ASF_DATA:
            if length <= 50:
                return Structure()  # A live recording, which never came back to fill this in.
            if packets_bytes and packets_bytes != length - 50:
                return Structure(0, "its header and its data disagree about how long it is")
        elif not position or length < 24 or position + length > size_bytes:
            return Structure(0, f"something is out of order at byte {position}")
        position += length
    return Structure(_lacking(position, size_bytes))


def _asf_packets_bytes(header: bytes) -> int:
    """Bytes of all data packets by the file properties object; 0 for a broadcast, or if it is not there."""
    at = header.find(_ASF_FILE)
    if at < 0 or len(header) < at + 104:
        return 0
    packets = int.from_bytes(header[at + 56 : at + 64], "little")
    flags = int.from_bytes(header[at + 88 : at + 92], "little")
    packet_bytes = int.from_bytes(header[at + 92 : at + 96], "little")
    return 0 if flags & 1 else packets * packet_bytes


def _transport_stream(file: BinaryIO, size_bytes: int) -> Structure:
    """Packets are of one length, so that the last one tells whether any byte between is missing."""
    file.seek(0)
    start = file.read(4 * max(_TS_PACKETS))
    for length in _TS_PACKETS:
        offset = 4 if length == 192 else 0
        if len(start) >= 3 * length and all(start[offset + n * length] == _TS_SYNC for n in range(3)):
            break
    else:
        return Structure()
    whole = size_bytes // length
    count = min(whole, 5)
    file.seek((whole - count) * length)
    tail = file.read(size_bytes)
    if any(tail[offset + n * length] != _TS_SYNC for n in range(count)):
        return Structure(0, "its packets are out of step at its end")
    rest = size_bytes - whole * length
    return Structure(length - rest if rest else 0)
