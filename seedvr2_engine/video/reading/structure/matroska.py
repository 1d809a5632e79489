"""Walk through a Matroska or WebM file's elements (RFC 8794, RFC 9559) and count its pictures, decoding nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import BinaryIO

from .parts import Budget, Structure, disorder, lacking

EBML_ID = 0x1A45DFA3
_SEGMENT, _CLUSTER, _TRACKS, _TRACK = 0x18538067, 0x1F43B675, 0x1654AE6B, 0xAE
_SIMPLE_BLOCK, _GROUP, _BLOCK, _NUMBER, _KIND = 0xA3, 0xA0, 0xA1, 0xD7, 0x83
_ANYWHERE = frozenset((0xEC, 0xBF))  # Void, CRC-32
_TOP = _ANYWHERE | {0x114D9B74, 0x1549A966, _TRACKS, _CLUSTER, 0x1C53BB6B, 0x1941A469, 0x1043A770, 0x1254C367}
_IN_CLUSTER = _ANYWHERE | {0xE7, 0x5854, 0xA7, 0xAB, 0xAF, _SIMPLE_BLOCK, _GROUP}
_IN_GROUP = _ANYWHERE | {_BLOCK, 0x75A1, 0x9B, 0xFA, 0xFB, 0xFD, 0xA4, 0x75A2, 0x8E, 0xC8, 0xA2}
_VIDEO = 1


_Visit = Callable[[int, int, int | None], int]
"""What is done with an element: given its identifier, where its data begin and their length, gives where they end."""


class _OutOfOrderError(Exception):
    """Something that no writer writes; the message says what and where."""


@dataclass
class _MatroskaWalk:
    """What a walk found."""

    end: int = 0
    """Where the file must end by its own account; 0 where the segment is of unknown size (a live file)."""
    fault: str | None = None
    """The first thing that is out of order."""
    video_tracks: list[int] = field(default_factory=list)
    """Numbers of the video tracks, in the order of the file."""
    blocks: dict[int, int] = field(default_factory=dict)
    """Frames by the number of the track."""


def walk_matroska(file: BinaryIO, size_bytes: int, budget: Budget) -> Structure:
    """Walk from the start; gives up, without a fault, after `budget` elements."""
    walk = _MatroskaWalk()
    walker = _Walker(file, size_bytes, budget, walk)
    is_counted = True
    try:
        walker.file_level()
    except _OutOfOrderError as error:
        walk.fault = str(error)
    except EOFError:
        # Missing bytes at the end are said by `end`, if the segment has one and they are missing.
        is_counted = False
        if not walk.end:
            walk.fault = "its last part is cut off"
        elif walk.end <= size_bytes:
            walk.fault = "a part is longer than the file, whose end is there"
    pictures = tuple(walk.blocks.get(track, 0) for track in walk.video_tracks) if is_counted else ()
    return Structure(lacking(walk.end, size_bytes), walk.fault, pictures)


class _Walker:
    def __init__(self, file: BinaryIO, size_bytes: int, budget: Budget, walk: _MatroskaWalk) -> None:
        self.file = file
        self.size = size_bytes
        self.budget = budget
        self.walk = walk

    def file_level(self) -> None:
        identifier, length, begin = self._header(0)
        if identifier != EBML_ID or length is None:
            raise _OutOfOrderError("its header is damaged")
        position = begin + length
        identifier, length, begin = self._header(position)
        if identifier in _ANYWHERE and length is not None:
            identifier, length, begin = self._header(begin + length)
        if identifier != _SEGMENT:
            raise _OutOfOrderError(disorder(position))
        end = self.size if length is None else begin + length
        self.walk.end = 0 if length is None else end
        self._children(begin, min(end, self.size), _TOP, self._top, is_open=length is None)

    def _header(self, position: int) -> tuple[int, int | None, int]:
        """(identifier, length or None if unknown, where the data begin) of the element at a position."""
        self.file.seek(position)
        head = self.file.read(12)
        if len(head) < 2:
            raise EOFError
        first = head[0]
        id_width = 9 - first.bit_length()
        if id_width > 4:
            raise _OutOfOrderError(disorder(position))
        if len(head) <= id_width:
            raise EOFError
        mark = head[id_width]
        if mark == 0:
            raise _OutOfOrderError(disorder(position))
        width = 9 - mark.bit_length()
        if len(head) < id_width + width:
            raise EOFError
        value = int.from_bytes(head[id_width : id_width + width], "big") & ((1 << 7 * width) - 1)
        length = None if value == (1 << 7 * width) - 1 else value
        return int.from_bytes(head[:id_width], "big"), length, position + id_width + width

    def _children(self, position: int, end: int, known: frozenset[int], visit: _Visit, *, is_open: bool = False) -> int:
        """Visit the elements up to `end`; of an open parent, whose length is unknown, up to what is not its child."""
        while position < end:
            self.budget.spend()
            try:
                identifier, length, begin = self._header(position)
            except _OutOfOrderError:
                if is_open and not self._is_in_cluster(known):
                    return position
                raise
            if identifier not in known:
                if is_open:
                    return position
                raise _OutOfOrderError(disorder(position))
            if length is None and identifier != _CLUSTER:
                raise _OutOfOrderError(disorder(position))
            if length is not None and begin + length > end:
                if end == self.size:
                    raise EOFError
                raise _OutOfOrderError(f"a part at byte {position} is longer than what it lies in")
            after = visit(identifier, begin, length)
            position = after if length is None else begin + length
        return position

    @staticmethod
    def _is_in_cluster(known: frozenset[int]) -> bool:
        return known is _IN_CLUSTER

    def _top(self, identifier: int, begin: int, length: int | None) -> int:
        if identifier == _CLUSTER:
            end = self.size if length is None else begin + length
            return self._children(begin, end, _IN_CLUSTER, self._in_cluster, is_open=length is None)
        if identifier == _TRACKS and length is not None:
            self._tracks(begin, begin + length)
        return begin

    def _in_cluster(self, identifier: int, begin: int, length: int | None) -> int:
        assert length is not None  # Only a cluster's may be, and in one there is none.
        if identifier == _GROUP:
            self._children(begin, begin + length, _IN_GROUP, self._in_group)
        elif identifier == _SIMPLE_BLOCK:
            self._block(begin, length)
        return begin

    def _in_group(self, identifier: int, begin: int, length: int | None) -> int:
        assert length is not None
        if identifier == _BLOCK:
            self._block(begin, length)
        return begin

    def _block(self, begin: int, length: int) -> None:
        self.file.seek(begin)
        head = self.file.read(min(length, 13))
        width = 9 - head[0].bit_length() if head and head[0] else 9
        if len(head) < width + 3:
            raise _OutOfOrderError(f"a block at byte {begin} is too short")
        track = int.from_bytes(head[:width], "big") & ((1 << 7 * width) - 1)
        frames = 1
        if head[width + 2] & 6 and len(head) > width + 3:
            frames = head[width + 3] + 1
        if self.walk.video_tracks and track not in self.walk.blocks:
            raise _OutOfOrderError(f"a block at byte {begin} belongs to no track")
        self.walk.blocks[track] = self.walk.blocks.get(track, 0) + frames

    def _tracks(self, begin: int, end: int) -> None:
        position = begin
        while position < end:
            self.budget.spend()
            identifier, length, data = self._header(position)
            if length is None:
                raise _OutOfOrderError(disorder(position))
            if identifier == _TRACK:
                self._track(data, data + length)
            position = data + length

    def _track(self, position: int, end: int) -> None:
        values: dict[int, int] = {}
        while position < end:
            self.budget.spend()
            identifier, length, data = self._header(position)
            if length is None or data + length > end:
                raise _OutOfOrderError(disorder(position))
            if identifier in (_NUMBER, _KIND) and length <= 8:
                self.file.seek(data)
                values[identifier] = int.from_bytes(self.file.read(length), "big")
            position = data + length
        number = values.get(_NUMBER, 0)
        self.walk.blocks.setdefault(number, 0)
        if values.get(_KIND) == _VIDEO:
            self.walk.video_tracks.append(number)
