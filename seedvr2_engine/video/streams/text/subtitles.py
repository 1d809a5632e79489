"""Which subtitles fit into which kind of file, and text from one format into another."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import av
from av.subtitles.stream import SubtitleStream

from ..timing import Placed

SUBTITLES_KEPT: dict[str, frozenset[str]] = {
    "mp4": frozenset(("mov_text", "dvd_subtitle")),
    "mov": frozenset(("mov_text",)),
    "matroska": frozenset(("subrip", "ass", "webvtt", "dvd_subtitle", "dvb_subtitle", "hdmv_pgs_subtitle")),
    "webm": frozenset(("webvtt",)),
}
"""FFmpeg's muxer -> subtitle codecs that are copied."""
TEXT_ENCODERS = {"mp4": "mov_text", "mov": "mov_text", "matroska": "subrip", "webm": "webvtt"}
"""FFmpeg's muxer -> what other text becomes."""
_BITMAPS = frozenset(("dvd_subtitle", "dvb_subtitle", "hdmv_pgs_subtitle", "xsub"))
_STYLED = frozenset(("ass", "ssa", "hdmv_text_subtitle", "ttml"))
_MILLISECONDS = Fraction(1, 1000)


def is_text(codec: str) -> bool:
    """Whether subtitles are characters rather than pictures of them."""
    return codec not in _BITMAPS


def loses_style(codec: str) -> bool:
    """Whether the format places and draws its text in ways that plainer ones cannot."""
    return codec in _STYLED


class SubtitleConverter:
    """One stream of text subtitles, in another format; FFmpeg's decoder and encoder meet in ASS events."""

    def __init__(self, output: av.container.OutputContainer, source: SubtitleStream, encoder: str) -> None:
        """Raises av.FFmpegError or ValueError if FFmpeg has no decoder for it."""
        self._source = source.codec_context
        self._source.open(strict=False)
        stream = output.add_stream(encoder)
        assert isinstance(stream, SubtitleStream)
        stream.time_base = _MILLISECONDS
        stream.codec_context.time_base = _MILLISECONDS
        stream.codec_context.subtitle_header = self._source.subtitle_header or b""
        self.stream = stream

    def packets(self, placed: Placed) -> list[av.Packet[Any]]:
        """The same lines at the same time; none for a packet that only clears the screen."""
        packet = placed.packet
        lines = self._source.decode2(packet)
        if lines is None or len(lines) == 0 or packet.pts is None:
            return []
        converted = self.stream.codec_context.encode_subtitle(lines)
        if converted.size == 0:
            return []
        converted.stream = self.stream
        converted.time_base = _MILLISECONDS
        converted.pts = converted.dts = round((packet.pts * packet.time_base - placed.shift_s) / _MILLISECONDS)
        converted.duration = round((packet.duration or 0) * packet.time_base / _MILLISECONDS)
        return [converted]
