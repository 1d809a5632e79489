"""One pass over a file's packets, decoding nothing: how many pictures, when they are shown, and what is missing."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np

from ...errors import VideoError
from .choice import clips_of, codec_name, main_video, steady_streams
from .damage import Structure
from .demuxers import RAW_STREAMS
from .field_pairs import FieldPairs
from .numbering import NumberWatch
from .one_file import opened_file
from .size_change import SizeChange, SizeWatch
from .timeline import Timeline, TimelineBuilder

# Pictures that a codec may reorder, and so the packets around a place that a fault can move.
_REORDERED = 32
# The head of a chunk in AVI; written to a pipe, more are promised than could fit.
_CHUNK_BYTES = 8
# Transport streams count 33 bits of ticks of 1/90000 s.
_CLOCK, _CLOCK_SECOND = 1 << 33, 90_000


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
    leading: int = 0
    """Pictures at the start, and after each join, that refer to ones before the first key frame there; decoders leave
    them out."""
    before_key: int = 0
    """Packets before the file's first key frame."""
    is_counted: bool = False
    """Whether the file says how many pictures it has."""
    has_field_packets: bool = False
    """Whether the two fields of a frame come as packets of their own, which are counted as one picture."""


@dataclass
class _Collected:
    """What the pass over the packets gathers of the video stream."""

    pts: array[int] = field(default_factory=lambda: array("q"))
    durations: array[int] = field(default_factory=lambda: array("q"))
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


def scan_packets(path: Path, structure: Structure | None = None) -> PacketScan:
    """Count the coded pictures of a file, put all streams on one timeline, and hold the file against its promises."""
    with opened_file(path) as (container, file):
        stream = main_video(container, path)
        can_jump = av.format.Flags.ts_discont in av.format.Flags(container.format.flags)
        # The times of MP4 are sums of steps that cannot be negative.
        builder = TimelineBuilder(stream.index, jumps=can_jump, steps_back="mp4" not in container.format.name)
        collected = _collect(container, stream, builder)
        shown = np.frombuffer(collected.pts, np.int64) if collected.pts else np.empty(0, np.int64)
        timeline = builder.build(first_pts=int(shown.min()) if len(shown) else None)
        scan = _measured(collected, timeline, stream.time_base or Fraction(1, 25))
        if container.format.name in RAW_STREAMS or collected.untimed * 2 > collected.shown:
            scan = replace(scan, timeline=replace(timeline, by_rate=True))
        if file.error is not None:
            raise VideoError(f"{path}: it cannot be read further ({file.error.strerror}); check the disk.")
        faults, missing, is_counted = _held_against_promises(
            container, stream, collected, scan, structure or Structure()
        )
        if container.format.name == "yuv4mpegpipe" and (rest := file.identity.size_bytes - collected.end_byte):
            # FFmpeg takes a picture that is cut off for the end of the file.
            faults, missing = (*faults, f"its last picture is cut off, of which {rest} bytes are there"), missing + 1
        return replace(
            scan,
            faults=faults,
            missing=missing,
            is_counted=is_counted,
            size_change=collected.size_change,
            has_field_packets=collected.has_field_packets,
        )


def _collect(container: av.container.InputContainer, stream: av.VideoStream, builder: TimelineBuilder) -> _Collected:
    collected = _Collected()
    watch = SizeWatch(codec_name(stream))
    pairs = FieldPairs(stream, codec_name(stream))
    numbers = NumberWatch(codec_name(stream), float(stream.codec_context.framerate or 0))
    steady = steady_streams(container)
    tick_s = float(stream.time_base or 1)
    packets = container.demux()
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
        pts, dts, duration = packet.pts, packet.dts, packet.duration or 0
        builder.add(index, pts, dts, duration, packet.time_base, is_steady=index in steady)
        if is_video:
            watch.note(packet, collected.shown)
            numbers.note(packet)
            if pairs.is_second(packet) and collected.shown:
                _note_second_field(collected, packet)
            else:
                _note(collected, packet, tick_s)
    collected.lost = numbers.lost()
    collected.size_change = watch.change
    collected.has_field_packets = pairs.found
    return collected


def _note(collected: _Collected, packet: av.Packet, tick_s: float) -> None:
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
    collected.durations.append(packet.duration or 0)
    collected.numbers.append(number)
    collected.positions.append(packet.pos if packet.pos is not None else -1)


def _note_second_field(collected: _Collected, packet: av.Packet) -> None:
    """The picture that the first field began lasts as long as both."""
    collected.packets += 1
    collected.end_byte = (packet.pos or 0) + packet.size
    if collected.durations:
        collected.durations[-1] += packet.duration or 0


def _measured(collected: _Collected, timeline: Timeline, time_base: Fraction) -> PacketScan:
    pts = np.array(collected.pts, np.int64)
    if not len(pts):
        return PacketScan(collected.shown, None, None, 0, 0, timeline)
    durations, numbers = np.array(collected.durations), np.array(collected.numbers)
    keys = np.array(collected.keys, bool)
    before_key = int(numbers[np.argmax(keys)]) if keys.any() else 0
    leading = 0
    for begin, end in pairwise((0, *np.searchsorted(numbers, timeline.joins_packet).tolist(), len(pts))):
        found = np.flatnonzero(keys[begin:end])
        if len(found):
            key = begin + int(found[0])
            leading += int((pts[begin : key + _REORDERED][: end - begin] < pts[key]).sum())
    for part, (begin, shift) in enumerate(_video_parts(timeline, time_base)):
        end = timeline.joins_packet[part] if part < len(timeline.joins_packet) else None
        chosen = (numbers >= begin) & (numbers < end) if end is not None else numbers >= begin
        pts[chosen] += shift
    order = np.argsort(pts, kind="stable")
    steps = np.diff(pts[order])
    forward = steps[steps > 0]
    shortest, longest = (int(forward.min()), int(forward.max())) if len(forward) else (0, 0)
    last = order[-1]
    scan = PacketScan(
        collected.shown,
        int(pts[order[0]]),
        int(pts[last]) + (int(durations[last]) or longest),
        shortest,
        longest,
        timeline,
        leading=leading,
        before_key=before_key,
    )
    if len(steps) > 1 and len(forward) * 2 < len(steps):
        return replace(scan, timeline=replace(timeline, by_rate=True))
    return scan


def _video_parts(timeline: Timeline, time_base: Fraction) -> Iterator[tuple[int, int]]:
    """(first packet, ticks to add) of each part of the video; all streams have their parts moved alike."""
    begins = (0, *timeline.joins_packet)
    some = next(iter(timeline.shifts.values()), ())
    for begin, shift in zip(begins, some, strict=False):
        yield begin, round(shift.seconds / time_base)


def _held_against_promises(
    container: av.container.InputContainer,
    stream: av.VideoStream,
    collected: _Collected,
    scan: PacketScan,
    structure: Structure,
) -> tuple[tuple[str, ...], int, bool]:
    """(what is wrong, pictures that are missing, whether the file says how many there are)."""
    faults: list[str] = []
    # FFmpeg makes a second stream of FLV's only one where a damaged picture claims another codec.
    place = clips_of(container).index(stream) if len(structure.pictures) != 1 else 0
    counted = structure.pictures[place] if place < len(structure.pictures) else 0
    slots = structure.slots[place] if place < len(structure.slots) else stream.frames
    promised = max(counted, _tagged_frames(container, stream))
    if container.format.name != "avi":
        promised = max(promised, stream.frames, _edit_units(container, stream))
    elif slots < stream.frames <= container.size // _CHUNK_BYTES:
        promised = max(promised, counted + stream.frames - slots)
    is_counted = promised > 0
    missing = max(0, promised - collected.packets)
    time_base = stream.time_base or Fraction(1, 25)
    if not missing:
        missing = _missing_at_end(container, stream, scan, time_base)
        promised = collected.packets + missing
    if missing:
        faults.append(f"expected {promised} pictures, found {collected.packets}")
    elif collected.lost is not None:
        missing, near = collected.lost
        faults.append(
            f"expected {collected.packets + missing} pictures by their numbers, found {collected.packets}; "
            f"the gap is near picture {near}"
        )
    if structure.fault is not None:
        faults.append(structure.fault)
    if collected.error is not None:
        faults.append(f"reading ends with an error after picture {collected.packets} ({collected.error})")
    rate = stream.average_rate or stream.guessed_rate
    if collected.odd_order_s > 1 + (float(_REORDERED / rate) if rate else 10):
        faults.append("a picture is timed long after its turn")
    if not faults and (unseen := _unseen(collected, structure.times.get(stream.id))):
        missing = unseen
        faults.append(f"{missing} picture{'s' if missing > 1 else ''} of those that the file times cannot be found")
    if torn := _torn(collected, scan, structure.gaps):
        faults.append(f"packets are damaged or lost near picture {torn}")
    return tuple(faults), missing, is_counted


def _edit_units(container: av.container.InputContainer, stream: av.VideoStream) -> int:
    """The length of an MXF file's picture, which counts whole pictures."""
    rate, time_base = stream.average_rate, stream.time_base
    is_counted = container.format.name == "mxf" and rate and time_base and rate * time_base == 1
    return max(0, stream.duration or 0) if is_counted else 0


def _tagged_frames(container: av.container.InputContainer, stream: av.VideoStream) -> int:
    """What mkvmerge counted; other programs copy its tags without counting anew."""
    if not container.metadata.get("encoder", "").startswith("libebml"):
        return 0
    text = stream.metadata.get("NUMBER_OF_FRAMES", "")
    return int(text) if text.isdecimal() and len(text) < 12 else 0


def _missing_at_end(
    container: av.container.InputContainer, stream: av.VideoStream, scan: PacketScan, time_base: Fraction
) -> int:
    """How many pictures a Matroska file by FFmpeg lacks of the length that it notes for the stream."""
    if not container.metadata.get("encoder", "").startswith("Lavf") or scan.end_pts is None or not scan.shortest_step:
        return 0
    hours, _, rest = stream.metadata.get("DURATION", "").partition(":")
    minutes, _, seconds = rest.partition(":")
    try:
        promised_s = int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    except ValueError:
        return 0
    lacking = (promised_s - float(scan.end_pts * time_base)) / float(scan.longest_step * time_base)
    return max(1, round(lacking)) if lacking > 0.75 and "matroska" in container.format.name else 0


def _unseen(collected: _Collected, times: np.ndarray | None) -> int:
    """How many of the times at which a transport stream says that pictures begin lie in holes between those found.

    A second field may have a time of its own, but that does not lie in a hole.
    """
    if times is None or len(collected.pts) < 3:
        return 0
    found = np.sort(np.array(collected.pts, np.int64) % _CLOCK)
    lost = np.setdiff1d(times, found)
    steps = np.diff(found)
    if not len(lost) or not (steps > 0).any():
        return 0
    after = np.searchsorted(found, lost)
    inner = (after > 0) & (after < len(found))
    holes = steps[after[inner] - 1]
    return int(np.count_nonzero((holes > 1.5 * np.median(steps)) & (holes < _CLOCK_SECOND * 10)))


def _torn(collected: _Collected, scan: PacketScan, gaps: tuple[int, ...]) -> int | None:
    """The picture near which packets are lost: marked so, or after a gap; away from joins, with a hole in the times."""
    pts = np.array(collected.pts, np.int64)
    joins = scan.timeline.joins_packet
    after_gaps = np.searchsorted(np.array(collected.positions, np.int64), np.array(gaps, np.int64)).tolist()
    for place in [*collected.corrupt, *after_gaps]:
        if any(abs(place - join) <= _REORDERED for join in joins):
            continue
        steps = np.diff(np.sort(pts[max(0, place - _REORDERED) : place + _REORDERED]))
        forward = steps[steps > 0]
        if not len(forward) or forward.max() > 1.5 * forward.min() or place >= collected.packets - 1:
            return place
    return None
