"""Text subtitles in MP4 and MOV, where the line that is not shown is a sample as well.

FFmpeg ends a line by itself as soon as it believes that a packet lies after it. It does so while it writes that packet,
and if a fragment is full at that moment, it takes the packet after next for the one that follows: a picture or a piece
of sound is moved by its own duration. It has nothing to end, and does that only where it harms nobody, if every line
is ended here, and if a tick of text is no longer than any other (it compares ticks of different lengths).
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import av

CODEC = "mov_text"
_EMPTY = b"\0\0"  # The length of the text, 0.
_FINEST_SOUND = 192_000
_COARSEST_VIDEO = 10_000


def text_time_base(video: Fraction) -> Fraction:
    """The time base of a text track beside a video of this time base; to be set before the header is written."""
    scale = video.denominator
    while scale < _COARSEST_VIDEO:  # As FFmpeg makes a video's ticks finer.
        scale *= 2
    return Fraction(1, max(scale, _FINEST_SOUND))


class LineEnds:
    """Where the line that is shown ends, for one stream; times in seconds of the output."""

    def __init__(self, stream: av.stream.Stream) -> None:
        self._stream = stream
        self._end_s: Fraction | None = None

    def note(self, packet: av.Packet[Any]) -> None:
        """Take the end of a line that is about to be muxed; it replaces the one before."""
        assert packet.pts is not None
        self._end_s = (packet.pts + (packet.duration or 0)) * packet.time_base

    def until(self, time_s: Fraction | None) -> av.Packet[Any] | None:
        """The packet that ends the line, if it ends before this time; None: whenever it ends."""
        if self._end_s is None or (time_s is not None and self._end_s >= time_s):
            return None
        packet = av.Packet(_EMPTY)
        base = self._stream.time_base
        assert base is not None
        packet.stream, packet.time_base = self._stream, base
        packet.pts = packet.dts = round(self._end_s / base)
        packet.duration, packet.is_keyframe = 0, True
        self._end_s = None
        return packet
