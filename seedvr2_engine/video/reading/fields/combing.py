"""Look at a sample of a clip's frames: are they whole, woven of two moments, or film spread over fields?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import av
import numpy as np
from numpy.typing import NDArray

from ....errors import VideoError
from ...demuxing import packets_of
from ...info import SourceInfo
from ...planes import as_direct, first_channel
from ..probe import main_video, opened

# Windows spread over the clip, each of three cycles of 3:2 pulldown and more.
_WINDOW_FRAMES = (16, 24)
_WINDOWS = 5
_SAMPLED_PIXELS = 100_000_000
# No television standard interlaces more lines; 1088 is 1080 in whole macroblocks.
LARGEST_INTERLACED_HEIGHT = 1152
_BLOCK = 16
_STRIPS = 24
# Sum of the differences to both neighbours from which a block counts as moving, in codes a pixel.
_MOVING_STEP = 4
# Combs with the far field over those with the near one, from which the order of the fields shows.
_ASYMMETRY = 1.12
# Combs with either neighbour over the frame's own, from which the frame is one moment.
_COMBED = 1.08
_CLEAN = 6
# Movement over the combs it must leave in a woven frame: there it is about 2; rounding alone is above 80.
_MOVEMENT_A_COMB = 12
_RHYTHM_SHARE = 0.7
_FILM_FIELD_S = 1001 / 60000
_CLOSE_S = 0.0015
_CYCLE = 5

Weave = Literal["whole", "top", "bottom", "unknown"]
"""What one frame is: one moment, two with the top or the bottom field first, or it does not move enough to tell."""


@dataclass(frozen=True)
class Window:
    """What successive frames of one place in the clip were found to be."""

    weaves: tuple[Weave, ...]
    flagged: int
    """Frames that the decoder calls interlaced."""
    steps_s: tuple[float, ...]
    """Seconds from each frame to the next."""

    @property
    def known(self) -> int:
        """Frames whose kind shows."""
        return sum(weave != "unknown" for weave in self.weaves)

    @property
    def woven(self) -> int:
        """Frames of two moments."""
        return sum(weave in ("top", "bottom") for weave in self.weaves)

    @property
    def is_film(self) -> bool:
        """Whether most frames are whole and woven in the rhythm of 3:2 pulldown, or 2:3:3:2, two cycles at a time."""
        in_rhythm: set[int] = set()
        for at in range(len(self.weaves) - 2 * _CYCLE + 1):
            if _has_cadence(self.weaves[at : at + 2 * _CYCLE]):
                in_rhythm.update(range(at, at + 2 * _CYCLE))
        covered = sum(self.weaves[at] != "unknown" for at in in_rhythm)
        return covered > 0 and covered >= _RHYTHM_SHARE * self.known

    @property
    def uneven(self) -> float:
        """Share of the frames that are shown for two fields after one of three, or the other way round."""
        fields = [round(step / _FILM_FIELD_S) for step in self.steps_s]
        held = [
            count if abs(step - count * _FILM_FIELD_S) < _CLOSE_S else 0
            for count, step in zip(fields, self.steps_s, strict=True)
        ]
        turns = [{first, second} == {2, 3} for first, second in pairwise(held)]
        return sum(turns) / len(turns) if len(turns) >= 4 else 0.0


def sample(info: SourceInfo) -> list[Window]:
    """Decode a few dozen frames spread over a clip and classify them; nothing where nothing decodes.

    The cost is bounded by the number of pixels, about a second for 1080 lines, whatever the clip's length.
    """
    least, most = _WINDOW_FRAMES
    frames = max(least, min(_WINDOWS * most, _SAMPLED_PIXELS // (info.width * info.height)))
    length = max(least, frames // _WINDOWS)
    count = frames // length
    windows: list[Window] = []
    try:
        with opened(info.path) as container:
            stream = main_video(container, info.path)
            stream.thread_type = "AUTO"
            if info.frame_count <= frames:
                return [_examine(_decoded(container, stream, frames), frames)]
            starts: set[int | None] = set()
            for place in range(count):
                share = (2 * place + 1) / (2 * count)
                container.seek(round((float(info.start_s) + share * info.duration_s) / info.time_base), stream=stream)
                decoded = _decoded(container, stream, length)
                first = next(decoded, None)
                if first is None or first.pts in starts:
                    continue
                starts.add(first.pts)
                windows.append(_examine(_chained(first, decoded), length))
        if len(windows) < count:
            # Without enough places to jump to, a longer look at the start.
            with opened(info.path) as container:
                stream = main_video(container, info.path)
                rest = (count - len(windows)) * length
                windows.append(_examine(_decoded(container, stream, rest), rest))
    except (av.FFmpegError, OSError, VideoError):
        # Reading reports what is damaged; here it only cannot be looked at.
        pass
    return windows


def _chained(first: av.VideoFrame, rest: Iterator[av.VideoFrame]) -> Iterator[av.VideoFrame]:
    yield first
    yield from rest


def _decoded(container: av.container.InputContainer, stream: av.VideoStream, count: int) -> Iterator[av.VideoFrame]:
    """Up to `count` undamaged frames from here on; reads a bounded number of packets."""
    given = 0
    for read, packet in enumerate(packets_of(container, stream)):
        try:
            frames = packet.decode()
        except av.error.InvalidDataError:
            frames = []
        for frame in frames:
            if not frame.is_corrupt and given < count:
                yield frame
                given += 1
        if given >= count or read > 4 * count + 64:
            return


def _examine(frames: Iterator[av.VideoFrame], count: int) -> Window:
    lumas: list[NDArray[Any]] = []
    weaves: list[Weave] = []
    times: list[float | None] = []
    flagged = 0
    for frame in frames:
        luma = _strips(frame)
        if lumas and luma.shape != lumas[-1].shape:
            break
        times.append(float(frame.pts * frame.time_base) if frame.pts is not None and frame.time_base else None)
        flagged += frame.interlaced_frame
        lumas = [*lumas[-2:], luma]
        if len(lumas) == 3:
            weaves.append(classify(*lumas))
        if len(times) >= count:
            break
    steps = [b - a if a is not None and b is not None else 0.0 for a, b in pairwise(times)]
    return Window(tuple(weaves), flagged, tuple(steps))


def _strips(frame: av.VideoFrame) -> NDArray[Any]:
    """int16 (H, 16 n): strips of the luma at 8 bits, spread over the width."""
    plane, bits = first_channel(as_direct(frame))
    blocks = plane.shape[1] // _BLOCK
    if blocks > _STRIPS:
        left = [_BLOCK * (index * blocks // _STRIPS) for index in range(_STRIPS)]
        plane = np.concatenate([plane[:, at : at + _BLOCK] for at in left], axis=1)
    return (plane >> (bits - 8)).astype(np.int16)


def classify(previous: NDArray[Any], current: NDArray[Any], following: NDArray[Any]) -> Weave:
    """What the frame in the middle of three is; int16 (H,W) luma of 8 bits.

    Rows are woven into the frame in its moving blocks: its own, and those of its two neighbours. Into a frame that is
    one moment, its own rows fit best. Into one that is two, rows of the neighbour that is one field away fit about as
    well as its own, and those of the other, three fields away, worse. Steady movement and noise weigh the same on both
    sides, because rows of both parities are summed against both neighbours.
    """
    height, width = (current.shape[0] - 2) // _BLOCK * _BLOCK, current.shape[1] // _BLOCK * _BLOCK
    if not height or not width:
        return "unknown"
    inner = slice(1, height + 1)
    own = current[inner, :width]
    above, below = current[:height, :width], current[2 : height + 2, :width]
    lowest, highest = np.minimum(above, below), np.maximum(above, below)
    before, after = previous[inner, :width], following[inner, :width]
    movement = _blocks(np.abs(own - before)) + _blocks(np.abs(after - own))
    moving = movement > _MOVING_STEP * _BLOCK * _BLOCK
    count = int(moving.sum())
    if count < max(4, moving.size // 200):
        return "unknown"

    def combs(rows: NDArray[Any]) -> NDArray[Any]:
        """By how much each row lies outside of its two neighbours in the frame; nothing at an edge or on a slope."""
        outside: NDArray[Any] = np.maximum(np.maximum(lowest - rows, rows - highest), 0)
        return outside

    with_before, with_after = combs(before), combs(after)
    # Row 0 here is row 1 of the picture, of the bottom field.
    odd, even = slice(0, None, 2), slice(1, None, 2)
    crossed, straight = np.empty_like(with_before), np.empty_like(with_before)
    crossed[even], crossed[odd] = with_before[even], with_after[odd]
    straight[even], straight[odd] = with_after[even], with_before[odd]
    # If the top field is first, `crossed` pairs fields that are three fields apart, `straight` neighbours.
    sums = [int(_blocks(part)[moving].sum()) for part in (crossed, straight, combs(own))]
    far_if_top, near_if_top, inside = sums
    low, high = min(far_if_top, near_if_top), max(far_if_top, near_if_top)
    if inside * _COMBED < low or inside * _CLEAN < high:
        return "whole"
    if high * _MOVEMENT_A_COMB > int(movement[moving].sum()) and high > _ASYMMETRY * low:
        return "top" if near_if_top < far_if_top else "bottom"
    return "unknown"


def _blocks(values: NDArray[Any]) -> NDArray[np.int32]:
    """Sums over squares of `_BLOCK` pixels."""
    height, width = values.shape
    rows = values.reshape(height // _BLOCK, _BLOCK, width).sum(axis=1, dtype=np.int32)
    sums: NDArray[np.int32] = rows.reshape(height // _BLOCK, width // _BLOCK, _BLOCK).sum(axis=2)
    return sums


def _has_cadence(weaves: Sequence[Weave]) -> bool:
    """Whether two neighbours, or one frame, of every five are woven and the others whole; two cycles of frames."""
    known = [(index, weave in ("top", "bottom")) for index, weave in enumerate(weaves) if weave != "unknown"]
    if len(known) < 2 * _CYCLE - 2:
        return False
    for length in (2, 1):
        for phase in range(_CYCLE):
            expected = [(index - phase) % _CYCLE < length for index, _ in known]
            if expected == [woven for _, woven in known] and any(expected):
                return True
    return False
