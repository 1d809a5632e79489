"""One pass over a file's packets, decoding nothing: how many pictures, when they are shown, and what is missing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np

from ....errors import VideoError
from ..timeline import Timeline, TimelineBuilder
from .choice import main_video
from .counted import Collected, PacketScan, collected_packets
from .damage import Structure
from .demuxers import RAW_STREAMS
from .one_file import opened_file
from .promises import REORDERED, held_against_promises


def scan_packets(path: Path, structure: Structure | None = None) -> PacketScan:
    """Count the coded pictures of a file, put all streams on one timeline, and hold the file against its promises."""
    with opened_file(path) as (container, file):
        stream = main_video(container, path)
        can_jump = av.format.Flags.ts_discont in av.format.Flags(container.format.flags)
        # The times of MP4 are sums of steps that cannot be negative.
        builder = TimelineBuilder(stream.index, jumps=can_jump, steps_back="mp4" not in container.format.name)
        collected = collected_packets(container, stream, builder)
        shown = np.frombuffer(collected.pts, np.int64) if collected.pts else np.empty(0, np.int64)
        timeline = builder.build(first_pts=int(shown.min()) if len(shown) else None)
        scan = _measured(collected, timeline, stream.time_base or Fraction(1, 25))
        if container.format.name in RAW_STREAMS or collected.untimed * 2 > collected.shown:
            scan = replace(scan, timeline=replace(timeline, by_rate=True))
        elif container.format.name == "avi" and _has_guessed_times(collected):
            scan = replace(scan, timeline=replace(timeline, by_decoding=True))
        if file.error is not None:
            raise VideoError(f"{path}: it cannot be read further ({file.error.strerror}); check the disk.")
        faults, missing, is_counted = held_against_promises(
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


def _has_guessed_times(collected: Collected) -> bool:
    """Whether pictures are reordered, and the times of decoding, all that AVI stores, have steps that differ."""
    dts = np.array(collected.dts, np.int64)
    return len(set(np.diff(dts).tolist())) > 1 and bool((dts != np.array(collected.pts, np.int64)).any())


def _measured(collected: Collected, timeline: Timeline, time_base: Fraction) -> PacketScan:
    pts = np.array(collected.pts, np.int64)
    if not len(pts):
        return PacketScan(collected.shown, None, None, 0, 0, timeline)
    durations, numbers = np.array(collected.durations), np.array(collected.numbers)
    keys = np.array(collected.keys, bool)
    before_key = int(numbers[np.argmax(keys)]) if keys.any() else 0
    is_leading = np.zeros(len(pts), bool)
    for begin, end in pairwise((0, *np.searchsorted(numbers, timeline.joins_packet).tolist(), len(pts))):
        found = np.flatnonzero(keys[begin:end])
        if len(found):
            key = begin + int(found[0])
            until = min(key + REORDERED, end)
            is_leading[begin:until] = pts[begin:until] < pts[key]
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
        leading=tuple(pts[is_leading].tolist()),
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
