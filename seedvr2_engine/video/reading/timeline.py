"""One sound timeline for all streams of a file, whatever its timestamps do.

Recordings that were joined byte by byte start their clocks anew in mid-file, and one that ran across the end of a
transport stream's 33-bit clock begins before zero. Where the clock of the video jumps, a new part begins: it goes on
after the last frame of the part before, and every stream is moved by the same amount. Pure arithmetic on packets'
times; nothing is read or decoded here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from typing import Protocol

FORWARD_JUMP_S = 10.0
"""A gap that is a jump of the clock where clocks may jump, as in FFmpeg's `dts_delta_threshold`, in seconds."""
BACKWARD_JUMP_S = 0.1
"""A step back that is a jump of the clock where decoding times may be guessed, as in FFmpeg, in seconds."""
_PAIRING_S = 1.0
_REORDERED = 32


@dataclass(frozen=True)
class Shift:
    """What is added to the times of a stream from one of its packets on."""

    first_packet: int
    """Number of the packet in its stream, in the order of the file, counted from 0."""
    seconds: Fraction


@dataclass(frozen=True)
class Timeline:
    """How the times in a file become one timeline that only goes forward."""

    shifts: Mapping[int, tuple[Shift, ...]] = field(default_factory=dict)
    """By the stream's index; a stream that is not in it keeps its times."""
    joins_s: tuple[float, ...] = ()
    """Where parts were joined, in seconds of the new timeline."""
    joins_packet: tuple[int, ...] = ()
    """The numbers of the video's packets with which the parts after the first begin."""
    by_rate: bool = False
    """Whether the video's own times are of no use, so that its frames follow each other at the clip's rate."""
    by_decoding: bool = False
    """Whether only times of decoding are stored, at steps that differ: a frame is shown when the packet is due that
    brings it out of the decoder, since what FFmpeg reckons from even steps is out of order."""

    def clock(self, stream_index: int) -> Clock:
        """A clock for the packets of one stream, from the file's first one on."""
        return Clock(self.shifts.get(stream_index, ()))

    @property
    def first_shift_s(self) -> Fraction:
        """What is added to the times at the start of the file."""
        return next((shifts[0].seconds for shifts in self.shifts.values()), Fraction(0))


class TimedPacket(Protocol):
    """A packet as PyAV gives it."""

    pts: int | None
    dts: int | None
    duration: int | None
    time_base: Fraction


class Clock:
    """Puts the packets of one stream, in the order of the file, on the timeline."""

    def __init__(self, shifts: tuple[Shift, ...]) -> None:
        self._shifts = shifts
        self._count = 0
        self._part = -1
        self._end_s = Fraction(0)
        self._is_after_join = False

    def move(self, packet: TimedPacket) -> bool:
        """Give a packet its times on the timeline; to be called with every packet that holds data.

        Returns False for sound or text that lies before the end of the part before, which ran a little longer than its
        picture: leave it out.
        """
        while self._part + 1 < len(self._shifts) and self._shifts[self._part + 1].first_packet <= self._count:
            self._part += 1
            self._is_after_join = self._part > 0
        self._count += 1
        if self._part < 0:
            return True
        shift = round(self._shifts[self._part].seconds / packet.time_base)
        if packet.pts is not None:
            packet.pts += shift
        if packet.dts is not None:
            packet.dts += shift
        time = packet.dts if packet.dts is not None else packet.pts
        if len(self._shifts) == 1 or time is None:
            return True
        duration = packet.duration or 0
        if self._is_after_join and (time + duration // 2) * packet.time_base < self._end_s:
            return False
        self._is_after_join = False
        self._end_s = (time + duration) * packet.time_base
        return True


@dataclass
class _Break:
    """A place at which a stream's clock jumps."""

    packet: int
    at: int
    delta_s: float


@dataclass
class _Stream:
    """What has been seen of one stream."""

    time_base: Fraction
    tick_s: float
    count: int = 0
    last: int | None = None
    next: int | None = None
    step: int = 0
    breaks: list[_Break] = field(default_factory=list)


@dataclass
class _Part:
    """The video between two jumps of its clock, in ticks; `first_pts` is the least of the first few."""

    packet: int
    counts: dict[int, int]
    packets: int = 0
    first_pts: int | None = None
    end_pts: int | None = None


class TimelineBuilder:
    """Builds a timeline from the packets of all streams, given one by one in the order of the file."""

    def __init__(self, video_index: int, *, jumps: bool, steps_back: bool) -> None:
        """Set what may be: `jumps` of the clock as in transport streams, or at least `steps_back` by 0.1 s."""
        self._video = video_index
        self._jumps = jumps
        self._steps_back = steps_back or jumps
        self._streams: dict[int, _Stream] = {}
        self._parts: list[_Part] = []
        self._at = 0
        self._earliest_s: Fraction | None = None

    def add(
        self, index: int, pts: int | None, dts: int | None, duration: int, time_base: Fraction, *, is_steady: bool
    ) -> None:
        """Note one packet; `is_steady` for picture and sound, whose packets follow each other without gaps."""
        stream = self._streams.get(index)
        if stream is None:
            stream = self._streams[index] = _Stream(time_base, float(time_base))
        time = dts if dts is not None else pts
        is_break = False
        # Times of presentation go back and forth by themselves, where pictures are reordered.
        if dts is not None and is_steady:
            time = dts
            is_break = self._is_break(stream, time)
            if is_break:
                assert stream.next is not None
                stream.breaks.append(_Break(stream.count, self._at, (time - stream.next) * stream.tick_s))
            if stream.last is not None and time > stream.last and not is_break:
                stream.step = time - stream.last
            stream.last, stream.next = time, time + (duration or stream.step)
            if not stream.breaks:
                self._note_start(pts if pts is not None else time, time_base)
        if index == self._video:
            self._note_video(stream, pts if pts is not None else time, duration or stream.step, is_break)
        stream.count += 1
        self._at += 1

    def _note_start(self, pts: int, time_base: Fraction) -> None:
        if self._earliest_s is None or pts * time_base < self._earliest_s:
            self._earliest_s = pts * time_base

    def _is_break(self, stream: _Stream, time: int) -> bool:
        if stream.last is None or stream.next is None or not self._steps_back:
            return False
        back_s = (stream.last - time) * stream.tick_s
        if self._jumps:
            return time < stream.last or (time - stream.next) * stream.tick_s > FORWARD_JUMP_S
        return back_s > BACKWARD_JUMP_S

    def _note_video(self, stream: _Stream, pts: int | None, duration: int, is_break: bool) -> None:
        if is_break or not self._parts:
            counts = {index: other.count for index, other in self._streams.items()}
            self._parts.append(_Part(stream.count, counts))
        part = self._parts[-1]
        if pts is not None:
            if part.packets < _REORDERED and (part.first_pts is None or pts < part.first_pts):
                part.first_pts = pts
            if part.end_pts is None or pts + duration > part.end_pts:
                part.end_pts = pts + duration
        part.packets += 1

    def build(self, *, first_pts: int | None = None) -> Timeline:
        """Return the timeline; `first_pts` is the first picture that is shown, in the video's ticks."""
        video = self._streams.get(self._video)
        if video is None:
            return Timeline()
        begin = Fraction(0)
        if first_pts is not None and first_pts < 0 and self._earliest_s is not None:
            begin = -self._earliest_s
        parts = [self._parts[0]] + [part for part in self._parts[1:] if part.first_pts is not None]
        if begin == 0 and len(parts) == 1:
            return Timeline()
        seconds = [begin]
        for before, part in pairwise(parts):
            assert part.first_pts is not None
            end = before.end_pts if before.end_pts is not None else part.first_pts
            seconds.append(seconds[-1] + (end - part.first_pts) * video.time_base)
        shifts = {
            index: tuple(
                Shift(packet, amount) for packet, amount in zip(self._starts(index, parts), seconds, strict=True)
            )
            for index in self._streams
        }
        joins = tuple(
            float(part.first_pts * video.time_base + amount)
            for part, amount in zip(parts[1:], seconds[1:], strict=True)
            if part.first_pts is not None
        )
        return Timeline(shifts, joins, tuple(part.packet for part in parts[1:]))

    def _starts(self, index: int, parts: list[_Part]) -> list[int]:
        """The packets of one stream with which the parts begin, matched by the size of the jump and its place."""
        if index == self._video:
            return [0] + [part.packet for part in parts[1:]]
        video = self._streams[self._video]
        breaks = {jump.packet: jump for jump in video.breaks}
        free = list(self._streams[index].breaks)
        starts = [0]
        for part in parts[1:]:
            jump = breaks[part.packet]
            alike = [other for other in free if abs(other.delta_s - jump.delta_s) < _PAIRING_S]
            if alike:
                found = min(alike, key=lambda other: abs(other.at - jump.at))
                free.remove(found)
                starts.append(max(found.packet, starts[-1]))
            else:
                starts.append(max(part.counts.get(index, 0), starts[-1]))
        return starts
