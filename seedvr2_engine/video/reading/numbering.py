"""The numbers that MPEG-1 and MPEG-2 give the pictures of a group, by which a lost one shows (ISO/IEC 13818-2, 6.3.9)."""

from __future__ import annotations

import av

_PICTURE, _GROUP = b"\0\0\1\0", b"\0\0\1\xb8"
_HEADER_BYTES = 512
_CODECS = frozenset(("mpeg1video", "mpeg2video"))


class NumberWatch:
    """Looks at the headers of one stream's pictures, in the order of the file.

    Those of a group are numbered from 0 in the order in which they are shown. Without the first ones a group is whole:
    editors leave out pictures that refer to the group before.
    """

    def __init__(self, codec: str) -> None:
        """Start with FFmpeg's name of the codec; streams of others are not looked at."""
        self._is_numbered = codec in _CODECS
        self._numbers: set[int] = set()
        self._is_group = False
        self._begin = self._count = 0
        self.missing = 0
        """Pictures that are lost within groups."""
        self.near: int | None = None
        """The first picture of the first group that lacks one."""

    def note(self, packet: av.Packet) -> None:
        """Look at a packet, which holds one picture, or both fields of one."""
        if not self._is_numbered:
            return
        head = bytes(memoryview(packet)[:_HEADER_BYTES])
        at = head.find(_PICTURE)
        if _GROUP in head[: max(0, at)]:
            self.finish()
            self._is_group, self._begin = True, self._count
        if 0 <= at <= len(head) - 6 and self._is_group:
            self._numbers.add(head[at + 4] << 2 | head[at + 5] >> 6)
        self._count += 1

    def finish(self) -> None:
        """Close the group; to be called after the last packet as well."""
        if self._numbers:
            lacking = max(self._numbers) - min(self._numbers) + 1 - len(self._numbers)
            if lacking and self.near is None:
                self.near = self._begin
            self.missing += lacking
        self._numbers.clear()
