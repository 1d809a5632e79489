"""Hold what a pass over the packets found against what the file promises."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from .choice import clips_of
from .counted import Collected, PacketScan
from .damage import Structure

# Pictures that a codec may reorder, and so the packets around a place that a fault can move.
REORDERED = 32
# The head of a chunk in AVI; written to a pipe, more are promised than could fit.
_CHUNK_BYTES = 8
# Transport streams count 33 bits of ticks of 1/90000 s.
_CLOCK, _CLOCK_SECOND = 1 << 33, 90_000


def held_against_promises(
    container: av.container.InputContainer,
    stream: av.VideoStream,
    collected: Collected,
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
    if collected.first_empty is not None:
        faults.append(f"of picture {collected.first_empty} there is nothing but the header")
    if structure.fault is not None:
        faults.append(structure.fault)
    if collected.error is not None:
        faults.append(f"reading ends with an error after picture {collected.packets} ({collected.error})")
    rate = stream.average_rate or stream.guessed_rate
    if collected.odd_order_s > 1 + (float(REORDERED / rate) if rate else 10):
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


def _unseen(collected: Collected, times: NDArray[Any] | None) -> int:
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


def _torn(collected: Collected, scan: PacketScan, gaps: tuple[int, ...]) -> int | None:
    """The picture near which packets are lost: marked so, or after a gap; away from joins, with a hole in the times."""
    pts = np.array(collected.pts, np.int64)
    joins = scan.timeline.joins_packet
    after_gaps = np.searchsorted(np.array(collected.positions, np.int64), np.array(gaps, np.int64)).tolist()
    places: list[int] = [*collected.corrupt, *after_gaps]
    for place in places:
        if any(abs(place - join) <= REORDERED for join in joins):
            continue
        steps = np.diff(np.sort(pts[max(0, place - REORDERED) : place + REORDERED]))
        forward = steps[steps > 0]
        if not len(forward) or forward.max() > 1.5 * forward.min() or place >= collected.packets - 1:
            return place
    return None
