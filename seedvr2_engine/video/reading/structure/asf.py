"""Walk through the objects of an ASF file (WMV) and the payloads of its data packets."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import BinaryIO

from .parts import Budget, Structure, disorder, lacking

ASF_HEADER = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_FILE = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_DATA = bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c")
_STREAM = bytes.fromhex("9107dcb7b7a9cf118ee600c00c205365")
_VIDEO = bytes.fromhex("c0ef19bc4d5bcf11a8fd00805f5c442b")
_HEADER_BYTES = 1 << 20
_LONGEST_FILE = 1 << 50
# Lengths of fields whose type is given by two bits.
_WIDTHS = (0, 1, 2, 4)


@dataclass
class _Header:
    """What the header says of the data."""

    file_bytes: int = 0
    packets: int = 0
    packet_bytes: int = 0
    is_broadcast: bool = False
    largest_bytes: int = 0
    streams: set[int] = field(default_factory=set)
    videos: list[int] = field(default_factory=list)


@dataclass
class _Pictures:
    """What was counted; an object is one picture, whose numbers go on by one from 255 to 0."""

    streams: set[int]
    """The numbers that the header gives."""
    counts: dict[int, int] = field(default_factory=dict)
    last: dict[int, int] = field(default_factory=dict)
    has_gap: bool = False
    packets: int = 0
    unfilled: list[int] = field(default_factory=list)
    """Packets that hold something beside their payloads and padding, by number."""


def walk_asf(file: BinaryIO, size_bytes: int, budget: Budget) -> Structure:
    """Walk the objects; the data must be as long as the header promises, and its pictures are counted."""
    position = 0
    header = _Header()
    structure = Structure()
    while position + 24 <= size_bytes:
        budget.spend()
        file.seek(position)
        head = file.read(24)
        kind, length = head[:16], int.from_bytes(head[16:], "little")
        if kind == ASF_HEADER:
            header = _read_header(file.read(min(length, _HEADER_BYTES)))
        elif kind == _DATA:
            if length <= 50:
                return Structure()  # A live recording, which never came back to fill this in.
            promised = header.packets * header.packet_bytes
            if not header.is_broadcast and promised and promised != length - 50:
                return Structure(0, "its header and its data disagree about how long it is")
            structure = _walk_packets(file, position + 50, min(position + length, size_bytes), header, budget)
            if structure.fault is not None:
                return structure
        elif not position or length < 24 or position + length > size_bytes:
            return Structure(0, disorder(position))
        position += length
    # What comes after the data, an index say, may be cut off at its first bytes.
    promised = header.file_bytes if not header.is_broadcast and header.file_bytes < _LONGEST_FILE else 0
    return Structure(lacking(max(position, promised), size_bytes), None, structure.pictures)


def _read_header(data: bytes) -> _Header:
    header = _Header()
    at = data.find(_FILE)
    if at >= 0 and len(data) >= at + 104:
        header.file_bytes = int.from_bytes(data[at + 40 : at + 48], "little")
        header.packets = int.from_bytes(data[at + 56 : at + 64], "little")
        header.is_broadcast = bool(data[at + 88] & 1)
        header.packet_bytes = int.from_bytes(data[at + 92 : at + 96], "little")
        header.largest_bytes = int.from_bytes(data[at + 96 : at + 100], "little")
    at = data.find(_STREAM)
    while at >= 0 and len(data) >= at + 74:
        header.streams.add(data[at + 72] & 0x7F)
        if data[at + 24 : at + 40] == _VIDEO:
            header.videos.append(data[at + 72] & 0x7F)
        at = data.find(_STREAM, at + 16)
    return header


def _walk_packets(file: BinaryIO, position: int, end: int, header: _Header, budget: Budget) -> Structure:
    if not 16 <= header.packet_bytes == header.largest_bytes <= 1 << 20:
        return Structure(0, "its header is damaged")
    found, begin = _Pictures(header.streams), position
    while position + header.packet_bytes <= end:
        file.seek(position)
        budget.spend(_note_packet(file.read(header.packet_bytes), found))
        if found.has_gap:
            return Structure(0, disorder(position))
        position += header.packet_bytes
    if found.unfilled and len(found.unfilled) * 2 <= found.packets:
        # Some program may never count right; this one did elsewhere.
        return Structure(0, disorder(begin + found.unfilled[0] * header.packet_bytes))
    return Structure(0, None, tuple(found.counts.get(number, 0) for number in header.videos))


def _note_packet(packet: bytes, found: _Pictures) -> int:
    """Count the pictures that begin in a packet; returns how many payloads there are."""
    at = 1 + (packet[0] & 0x0F) if packet[0] & 0x80 else 0
    if (packet[0] & 0x80 and packet[0] & 0x70) or at + 2 > len(packet):
        found.has_gap = True
        return 1
    lengths, properties = packet[at], packet[at + 1]
    at += 2
    packet_bytes, at = _field(packet, at, lengths >> 5, len(packet))
    _, at = _field(packet, at, lengths >> 1, 0)
    padding, at = _field(packet, at, lengths >> 3, 0)
    at += 6
    end = (packet_bytes or len(packet)) - padding
    payloads, width = 1, 0
    if lengths & 1:
        if at >= len(packet):
            found.has_gap = True
            return 1
        payloads, width = packet[at] & 0x3F, packet[at] >> 6
        at += 1
    for _ in range(payloads):
        if at >= end or end > len(packet):
            found.has_gap = True
            break
        stream = packet[at] & 0x7F
        number, at = _field(packet, at + 1, properties >> 4, 0)
        offset, at = _field(packet, at, properties >> 2, 0)
        replicated, at = _field(packet, at, properties, 0)
        at += replicated
        length = end - at
        if lengths & 1:
            length, at = _field(packet, at, width, 0)
        # One byte of replicated data says that whole small objects follow, which is for sound.
        if replicated != 1:
            _note_payload(found, stream, number, offset)
        at += length
    # Zeros that no field counts do no harm, as long as something was put in.
    if at < end and (not payloads or any(packet[at:end])):
        found.unfilled.append(found.packets)
    found.packets += 1
    return payloads


def _note_payload(found: _Pictures, stream: int, number: int, offset: int) -> None:
    last = found.last.get(stream)
    found.has_gap = found.has_gap or stream not in found.streams
    if offset == 0:
        found.has_gap = found.has_gap or (last is not None and number != (last + 1) & 0xFF)
        found.counts[stream] = found.counts.get(stream, 0) + 1
    elif number != last:
        found.has_gap = True
    found.last[stream] = number


def _field(packet: bytes, at: int, kind: int, default: int) -> tuple[int, int]:
    width = _WIDTHS[kind & 3]
    return int.from_bytes(packet[at : at + width], "little") if width else default, at + width
