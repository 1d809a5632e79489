"""A pass over the packets of a file, and what it finds."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import Any

import av

from ...demuxing import packets_of
from ..structure.animated import is_gif_remark
from ..timeline import Timeline, TimelineBuilder
from .choice import codec_name, steady_streams
from .field_pairs import FieldPairs
from .numbering import NumberWatch
from .size_change import SizeChange, SizeWatch


@dataclass(frozen=True)
class PacketScan:
    """What the coded pictures of a stream say; times in ticks of the stream, on the timeline."""

    count: int
    """Pictures that are shown, if every one decodes."""
    first_pts: int | None
    end_pts: int | None
    shortest_step: int
    longest_step: int
    timeline: Timeline = field(default_factory=Timeline)
    faults: tuple[str, ...] = ()
    """What is missing or out of order, each as a clause."""
    missing: int = 0
    """Pictures that the file promises and does not hold."""
    size_change: SizeChange | None = None
    leading: tuple[int, ...] = ()
    """Times of the pictures at the start, and after each join, that may refer to ones before the first key frame
    there; decoders leave them out then."""
    before_key: int = 0
    """Packets before the file's first key frame."""
    is_counted: bool = False
    """Whether the file says how many pictures it has."""
    has_field_packets: bool = False
    """Whether the two fields of a frame come as packets of their own, which are counted as one picture."""


@dataclass
class Collected:
    """What the pass over the packets gathers of the video stream."""

    pts: array[int] = field(default_factory=lambda: array("q"))
    durations: array[int] = field(default_factory=lambda: array("q"))
    dts: array[int] = field(default_factory=lambda: array("q"))
    numbers: array[int] = field(default_factory=lambda: array("q"))
    positions: array[int] = field(default_factory=lambda: array("q"))
    packets: int = 0
    untimed: int = 0
    shown: int = 0
    end_byte: int = 0
    corrupt: list[int] = field(default_factory=list)
    keys: array[int] = field(default_factory=lambda: array("b"))
    odd_order_s: float = 0.0
    error: str | None = None
    size_change: SizeChange | None = None
    has_field_packets: bool = False
    lost: tuple[int, int] | None = None
    first_empty: int | None = None


def collected_packets(
    container: av.container.InputContainer, stream: av.VideoStream, builder: TimelineBuilder
) -> Collected:
    """Pass over all packets of a file, of which the `builder` notes the times."""
    collected = Collected()
    watch = SizeWatch(codec_name(stream))
    pairs = FieldPairs(stream, codec_name(stream))
    numbers = NumberWatch(codec_name(stream), float(stream.codec_context.framerate or 0))
    is_gif = codec_name(stream) == "gif"
    steady = steady_streams(container)
    tick_s = float(stream.time_base or 1)
    packets = packets_of(container)
    while True:
        try:
            packet = next(packets, None)
        except av.FFmpegError as error:
            collected.error = error.strerror
            break
        if packet is None:
            break
        index = packet.stream_index
        is_video = index == stream.index
        if packet.is_corrupt and index in steady:
            collected.corrupt.append(collected.packets)
        if not packet.size:
            # Nothing but the end of a stream, or a picture that is shown again.
            continue
        if is_gif and is_gif_remark(bytes(packet)):
            continue
        pts, dts, duration = packet.pts, packet.dts, packet.duration or 0
        builder.add(index, pts, dts, duration, packet.time_base, is_steady=index in steady)
        if is_video:
            watch.note(packet, collected.shown)
            numbers.note(packet)
            if pairs.is_second(packet) and collected.shown:
                _note_second_field(collected, packet)
            else:
                _note(collected, packet, tick_s)
    collected.lost, collected.first_empty = numbers.lost(), numbers.first_empty
    collected.size_change = watch.change
    collected.has_field_packets = pairs.found
    return collected


def _note(collected: Collected, packet: av.Packet[Any], tick_s: float) -> None:
    number, collected.packets = collected.packets, collected.packets + 1
    collected.end_byte = (packet.pos or 0) + packet.size
    pts = packet.pts if packet.pts is not None else packet.dts
    if packet.is_discard:
        if packet.pts is not None and packet.dts is not None:
            collected.odd_order_s = max(collected.odd_order_s, (packet.pts - packet.dts) * tick_s)
        return
    collected.shown += 1
    if pts is None:
        collected.untimed += 1
        return
    collected.keys.append(packet.is_keyframe)
    collected.pts.append(pts)
    collected.dts.append(packet.dts if packet.dts is not None else pts)
    collected.durations.append(packet.duration or 0)
    collected.numbers.append(number)
    collected.positions.append(packet.pos if packet.pos is not None else -1)


def _note_second_field(collected: Collected, packet: av.Packet[Any]) -> None:
    """The picture that the first field began lasts as long as both."""
    collected.packets += 1
    collected.end_byte = (packet.pos or 0) + packet.size
    if collected.durations:
        collected.durations[-1] += packet.duration or 0
