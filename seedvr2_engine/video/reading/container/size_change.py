"""Find out from the headers in a stream whether its pictures change their size, decoding only where a header is new."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import av

_HEADER_BYTES = 4096
# The headers that say the size, after a start code: H.264 and H.265 sequence parameter sets, MPEG sequence headers.
_SIZE_HEADERS = {
    "h264": re.compile(rb"\x00\x00\x01[\x07\x27\x47\x67].*?(?=\x00\x00\x01|\Z)", re.DOTALL),
    "hevc": re.compile(rb"\x00\x00\x01\x42.*?(?=\x00\x00\x01|\Z)", re.DOTALL),
    "mpeg1video": re.compile(rb"\x00\x00\x01\xb3.{4}", re.DOTALL),
    "mpeg2video": re.compile(rb"\x00\x00\x01\xb3.{4}", re.DOTALL),
}


@dataclass(frozen=True)
class SizeChange:
    """The first picture of another size."""

    frame: int
    """Its number, counted from 0."""
    width: int
    height: int
    """In pixels as stored, before any turn."""


class SizeWatch:
    """Looks at the key frames of one stream, in the order of the file."""

    def __init__(self, codec: str) -> None:
        """Start with FFmpeg's name of the codec; the size in a stream's description may be a later picture's."""
        self._codec = codec
        self._pattern = _SIZE_HEADERS.get(codec)
        self._size: tuple[int, int] | None = None
        self._seen: set[bytes] = set()
        self.change: SizeChange | None = None
        """What was found."""

    def note(self, packet: av.Packet[Any], frame: int) -> None:
        """Look at a packet, which holds picture number `frame`."""
        if self._pattern is None or self.change is not None or not packet.is_keyframe:
            return
        header = b"".join(self._pattern.findall(bytes(memoryview(packet)[:_HEADER_BYTES])))
        if not header or header in self._seen:
            return
        self._seen.add(header)
        size = self._decoded_size(packet)
        if size is not None and self._size is not None and size != self._size:
            self.change = SizeChange(frame, *size)
        self._size = self._size or size

    def _decoded_size(self, packet: av.Packet[Any]) -> tuple[int, int] | None:
        try:
            context = av.CodecContext.create(self._codec, "r")
            assert isinstance(context, av.VideoCodecContext)
            frames = [*context.decode(av.Packet(bytes(packet))), *context.decode(None)]
        except (av.FFmpegError, ValueError):
            # Reading reports damage with its place.
            return None
        return (frames[0].width, frames[0].height) if frames else None
