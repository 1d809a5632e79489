"""H.264 whose two fields are coded as pictures of their own (PAFF): transport streams hand each out as a packet."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import av

_HEAD_BYTES = 4096
"""Parameter sets and messages lie before the first slice of a picture; this is room enough for them."""
_SLICE_BYTES, _SETS_BYTES = 32, 512
_START = re.compile(rb"\x00\x00\x01")
_SLICES, _SEQUENCE, _PICTURE = (1, 2, 5), 7, 8
# Profiles whose sequence parameter sets say the chroma format (ITU-T H.264, 7.3.2.1.1).
_HIGH = frozenset({100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135})
_MOST_ZEROS = 32


@dataclass(frozen=True)
class _Sequence:
    may_have_fields: bool
    frame_number_bits: int
    has_planes_apart: bool


@dataclass(frozen=True)
class _Field:
    frame_number: int
    is_bottom: bool


class FieldPairs:
    """Looks at the packets of one stream, in the order of the file."""

    def __init__(self, stream: av.VideoStream, codec: str) -> None:
        """Start with a stream and FFmpeg's name of its codec; all but H.264 keep fields together."""
        extra = bytes(stream.codec_context.extradata or b"") if codec == "h264" else b""
        self._is_h264 = codec == "h264"
        # MP4 and Matroska put a length before each unit, and what all pictures share beside the stream.
        self._length_bytes = (extra[4] & 3) + 1 if len(extra) > 6 and extra[0] == 1 else 0
        self._sequences: dict[int, _Sequence] = {}
        self._pictures: dict[int, int] = {}
        self._first: _Field | None = None
        self.found = False
        """Whether there was any pair."""
        if self._length_bytes:
            self._note_sets(_described_units(extra))
        else:
            self._note_sets(_started_units(extra))

    def is_second(self, packet: av.Packet[Any]) -> bool:
        """Whether this packet is the second field of the frame that the packet before began."""
        if not self._is_h264 or not (packet.is_keyframe or self._may_have_fields()):
            return False
        head = bytes(memoryview(packet)[:_HEAD_BYTES])
        units = _counted_units(head, self._length_bytes) if self._length_bytes else _started_units(head)
        self._note_sets(units)
        unit = next((unit for unit in units if unit and unit[0] & 31 in _SLICES), None)
        field = self._field(unit) if unit is not None else None
        first, self._first = self._first, field
        if field is None or first is None or first.is_bottom == field.is_bottom:
            return False
        if first.frame_number != field.frame_number:
            return False
        self._first, self.found = None, True
        return True

    def _may_have_fields(self) -> bool:
        return any(sequence.may_have_fields for sequence in self._sequences.values())

    def _note_sets(self, units: list[bytes]) -> None:
        for unit in units:
            kind = unit[0] & 31 if unit else 0
            try:
                if kind == _SEQUENCE:
                    number, sequence = _sequence(_Bits(unit[1:_SETS_BYTES]))
                    self._sequences[number] = sequence
                elif kind == _PICTURE:
                    bits = _Bits(unit[1:_SLICE_BYTES])
                    self._pictures[bits.ue()] = bits.ue()
            except ValueError:
                continue  # Damaged, which decoding reports with its place.

    def _field(self, unit: bytes) -> _Field | None:
        """What a slice says of the field it belongs to; None for a whole frame, or where it cannot be read."""
        try:
            bits = _Bits(unit[1:_SLICE_BYTES])
            bits.ue(), bits.ue()  # The first block, the kind of slice.
            sequence = self._sequences.get(self._pictures.get(bits.ue(), -1))
            if sequence is None or not sequence.may_have_fields:
                return None
            if sequence.has_planes_apart:
                bits.u(2)
            frame_number = bits.u(sequence.frame_number_bits)
            return _Field(frame_number, is_bottom=bool(bits.u(1))) if bits.u(1) else None
        except ValueError:
            return None


class _Bits:
    """Reads the numbers of a unit; ValueError at its end."""

    def __init__(self, data: bytes) -> None:
        self._data = data.replace(b"\0\0\3", b"\0\0")
        self._count = 8 * len(self._data)
        self._value = int.from_bytes(self._data, "big")
        self._at = 0

    def u(self, count: int) -> int:
        self._at += count
        if self._at > self._count:
            raise ValueError("the unit ends early")
        return (self._value >> (self._count - self._at)) & ((1 << count) - 1)

    def ue(self) -> int:
        zeros = 0
        while not self.u(1):
            zeros += 1
            if zeros > _MOST_ZEROS:
                raise ValueError("no number is this long")
        return (1 << zeros) - 1 + self.u(zeros)

    def se(self) -> int:
        code = self.ue()
        return (code + 1) // 2 if code % 2 else -(code // 2)


def _sequence(bits: _Bits) -> tuple[int, _Sequence]:
    profile = bits.u(8)
    bits.u(16)
    number, planes_apart = bits.ue(), False
    if profile in _HIGH:
        chroma = bits.ue()
        planes_apart = chroma == 3 and bool(bits.u(1))
        bits.ue(), bits.ue(), bits.u(1)
        if bits.u(1):
            for index in range(12 if chroma == 3 else 8):
                if bits.u(1):
                    _skip_scaling(bits, 16 if index < 6 else 64)
    frame_number_bits = bits.ue() + 4
    order = bits.ue()
    if order == 0:
        bits.ue()
    elif order == 1:
        bits.u(1), bits.se(), bits.se()
        for _ in range(bits.ue()):
            bits.se()
    bits.ue(), bits.u(1), bits.ue(), bits.ue()  # References, gaps, columns, rows.
    return number, _Sequence(not bits.u(1), frame_number_bits, planes_apart)


def _skip_scaling(bits: _Bits, count: int) -> None:
    last = following = 8
    for _ in range(count):
        if following:
            following = (last + bits.se()) % 256
        last = following or last


def _started_units(data: bytes) -> list[bytes]:
    """Units that each begin with a start code."""
    starts = [match.end() for match in _START.finditer(data)]
    return (
        [data[start:end] for start, end in zip(starts, [*(start - 3 for start in starts[1:]), None], strict=True)]
        if starts
        else []
    )


def _counted_units(data: bytes, length_bytes: int) -> list[bytes]:
    """Units that each begin with their length."""
    units, at = [], 0
    while at + length_bytes < len(data):
        length = int.from_bytes(data[at : at + length_bytes], "big")
        units.append(data[at + length_bytes : at + length_bytes + length])
        at += length_bytes + length
    return units


def _described_units(extra: bytes) -> list[bytes]:
    """The parameter sets of an MP4 or Matroska stream's description (ISO/IEC 14496-15, 5.3.3.1)."""
    units, at = [], 5
    for mask in (31, 255):
        if at >= len(extra):
            break
        count, at = extra[at] & mask, at + 1
        for _ in range(count):
            length = int.from_bytes(extra[at : at + 2], "big")
            units.append(extra[at + 2 : at + 2 + length])
            at += 2 + length
    return units
