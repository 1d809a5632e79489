"""One stream whose packets are taken as they are."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import av

from ..reading.probe import codec_name
from .sound.check import SoundCheck
from .timing import Placed

# Encoders put up to this many samples before the sound; all that is cut beyond it was cut by a person's edit list.
_LONGEST_PRIMING = 4096
_FINE_TICKS = 90000
_PARSED = ("ac3", "eac3")


class CopiedStream:
    """Moves packets in time, keeps their order, and drops what the source does not play."""

    def __init__(
        self, stream: av.stream.Stream, source: av.stream.Stream, muxer: str, warn: Callable[[str], None]
    ) -> None:
        self.stream = stream
        self._warn = warn
        self._index = source.index
        self._has_edit_lists = muxer in ("mp4", "mov")
        self._drops_discarded: bool | None = None
        self._last_dts: int | None = None
        self._is_moved = False
        # FFmpeg's writer of MP4 and MOV looks into these, and ends the whole file over a damaged one.
        self._is_parsed = self._has_edit_lists and codec_name(source) in _PARSED
        self._check = SoundCheck(source) if isinstance(source, av.AudioStream) else None
        self._tick = Fraction(1, getattr(source.codec_context, "sample_rate", 0) or _FINE_TICKS)
        self._filter: av.BitStreamFilterContext | None = None
        if self._has_edit_lists and codec_name(source) == "aac" and not source.codec_context.extradata:
            # Broadcast AAC; FFmpeg converts it by itself, but not into fragments.
            self._filter = av.BitStreamFilterContext("aac_adtstoasc", source)

    def packets(self, placed: Placed) -> list[av.Packet[Any]]:
        """The packets to mux for one of the source; raises av.FFmpegError if the filter refuses it."""
        packet = placed.packet
        if self._drops_discarded is None:
            self._drops_discarded = not self._has_edit_lists and skipped_samples(packet) > _LONGEST_PRIMING
        if packet.is_discard and self._drops_discarded:
            return []
        if self._check is not None and not self._check.is_sound(packet, placed.time_s) and self._is_parsed:
            return []
        # What a filter gives knows its stream no more.
        base = packet.time_base
        parts = [packet] if self._filter is None else self._filter.filter(packet)
        return [
            self._moved(part, base, placed.shift_s) for part in parts if part.dts is not None or part.pts is not None
        ]

    def finish(self) -> None:
        """Say what of the sound was damaged."""
        if self._check is not None and (sentence := self._check.sentence(is_left_out=self._is_parsed)) is not None:
            self._warn(sentence)

    def _moved(self, packet: av.Packet[Any], base: Fraction, shift_s: Fraction) -> av.Packet[Any]:
        pts, dts = (None if t is None else round((t * base - shift_s) / self._tick) for t in (packet.pts, packet.dts))
        duration = round((packet.duration or 0) * base / self._tick)
        dts = pts if dts is None else dts
        assert dts is not None
        pts = dts if pts is None else pts
        if self._last_dts is not None and dts <= self._last_dts:
            # Packets shorter than a tick of the source (TrueHD in Matroska) share one, which is nobody's fault.
            if not self._is_moved and (self._last_dts - dts) * self._tick > base:
                self._is_moved = True
                self._warn(f"Stream {self._index} has packets that are not later than the ones before; moved behind.")
            dts = self._last_dts + 1
            pts = max(pts, dts)
        self._last_dts = dts
        packet.time_base = self._tick
        packet.pts, packet.dts, packet.duration = pts, dts, duration
        packet.stream = self.stream
        return packet


def skipped_samples(packet: av.Packet[Any]) -> int:
    """How many samples a container says to decode and not to play from this packet on."""
    if not packet.has_sidedata("skip_samples"):
        return 0
    return int.from_bytes(bytes(packet.get_sidedata("skip_samples"))[:4], "little")
