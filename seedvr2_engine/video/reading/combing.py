"""Look at a sample of a clip's frames: are they whole, woven of two moments, or film spread over fields?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Literal

import av
import numpy as np

from ...errors import VideoError
from ..info import SourceInfo
from ..planes import as_direct, first_channel
from .probe import main_video, opened

# Windows spread over the clip; a window holds four cycles of 3:2 pulldown and more.
_WINDOW_FRAMES = 24
_WINDOWS = 5
_SAMPLED_PIXELS = 200_000_000
# No television standard interlaces more lines; 1088 is 1080 in whole macroblocks.
LARGEST_INTERLACED_HEIGHT = 1152
_BLOCK = 16
_STRIPS = 24
_MOVING_STEP = 4.0
_ASYMMETRY = 1.12
_COMBED = 1.08
_FILM_FIELD_S = 1001 / 60000
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
        """Whether frames are whole and woven in the rhythm of 3:2 pulldown (or 2:3:3:2) for two cycles or more."""
        return any(_has_cadence(self.weaves[at : at + 2 * _CYCLE]) for at in range(len(self.weaves) - 2 * _CYCLE + 1))

    @property
    def is_uneven_film(self) -> bool:
        """Whether whole frames are shown for two and three fields in turn."""
        fields = [round(step / _FILM_FIELD_S) if step > 0 else 0 for step in self.steps_s]
        close = [
            n in (2, 3) and abs(step - n * _FILM_FIELD_S) < 0.0015 for n, step in zip(fields, self.steps_s, strict=True)
        ]
        turns = [a != b and p and q for (a, b), (p, q) in zip(pairwise(fields), pairwise(close), strict=True)]
        return len(turns) >= 4 and sum(turns) >= 0.8 * len(turns)


def sample(info: SourceInfo) -> list[Window]:
    """Decode a few dozen frames spread over a clip and classify them; nothing where nothing decodes.

    The cost is bounded by the number of pixels, about a second for 1080 lines, whatever the clip's length.
    """
    frames = max(_WINDOW_FRAMES, min(_WINDOWS * _WINDOW_FRAMES, _SAMPLED_PIXELS // (info.width * info.height)))
    windows: list[Window] = []
    try:
        with opened(info.path) as container:
            stream = main_video(container, info.path)
            stream.thread_type = "AUTO"
            if info.frame_count <= frames:
                return [_examine(_decoded(container, stream, frames), frames)]
            starts: set[int | None] = set()
            for place in range(count := frames // _WINDOW_FRAMES):
                share = (2 * place + 1) / (2 * count)
                container.seek(round((float(info.start_s) + share * info.duration_s) / info.time_base), stream=stream)
                decoded = _decoded(container, stream, _WINDOW_FRAMES)
                first = next(decoded, None)
                if first is None or first.pts in starts:
                    continue
                starts.add(first.pts)
                windows.append(_examine(_chained(first, decoded), _WINDOW_FRAMES))
        if len(windows) < count:
            # Without enough places to jump to, a longer look at the start.
            with opened(info.path) as container:
                stream = main_video(container, info.path)
                length = (count - len(windows)) * _WINDOW_FRAMES
                windows.append(_examine(_decoded(container, stream, length), length))
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
    for read, packet in enumerate(container.demux(stream)):
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
    lumas: list[np.ndarray] = []
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


def _strips(frame: av.VideoFrame) -> np.ndarray:
    """int16 (H, 16 n): strips of the luma at 8 bits, spread over the width."""
    plane, bits = first_channel(as_direct(frame))
    blocks = plane.shape[1] // _BLOCK
    if blocks > _STRIPS:
        left = [_BLOCK * (index * blocks // _STRIPS) for index in range(_STRIPS)]
        plane = np.concatenate([plane[:, at : at + _BLOCK] for at in left], axis=1)
    return (plane >> (bits - 8)).astype(np.int16)


def classify(previous: np.ndarray, current: np.ndarray, following: np.ndarray) -> Weave:
    """What the frame in the middle of three is; int16 (H,W) luma of 8 bits.

    In its moving blocks the frame's own lines are woven together, and with those of its two neighbours. Of a frame
    that is one moment, its own lines fit best. Of one that is two, lines of the neighbour that is one field away fit
    as well as its own or better, and those of the other, three fields away, fit worse. Steady motion, noise and fine
    patterns weigh equally on both sides, because rows of both parities are summed against both neighbours.
    """
    height, width = (current.shape[0] - 2) // _BLOCK * _BLOCK, current.shape[1] // _BLOCK * _BLOCK
    if not height or not width:
        return "unknown"
    inner = slice(1, height + 1)
    own = current[inner, :width]
    around = current[:height, :width] + current[2 : height + 2, :width]
    before, after = previous[inner, :width], following[inner, :width]
    moving = _blocks(np.abs(own - before)) + _blocks(np.abs(after - own)) > _MOVING_STEP * _BLOCK * _BLOCK
    count = int(moving.sum())
    if count < max(4, moving.size // 200):
        return "unknown"
    with_before, with_after = np.abs(around - 2 * before), np.abs(around - 2 * after)
    # Row 0 here is row 1 of the picture, of the bottom field.
    odd, even = slice(0, None, 2), slice(1, None, 2)
    crossed, straight = np.empty_like(with_before), np.empty_like(with_before)
    crossed[even], crossed[odd] = with_before[even], with_after[odd]
    straight[even], straight[odd] = with_after[even], with_before[odd]
    # If the top field is first, `crossed` pairs fields that are three fields apart, `straight` neighbours.
    sums = [int(_blocks(part)[moving].sum()) for part in (crossed, straight, np.abs(around - 2 * own))]
    top_last, top_first, combs = sums
    low, high = min(top_last, top_first), max(top_last, top_first)
    if combs * _COMBED < low:
        return "whole"
    if high > _ASYMMETRY * low:
        return "top" if top_first < top_last else "bottom"
    return "unknown"


def _blocks(values: np.ndarray) -> np.ndarray:
    """Sums over squares of `_BLOCK` pixels."""
    height, width = values.shape
    rows = values.reshape(height // _BLOCK, _BLOCK, width).sum(axis=1, dtype=np.int32)
    return rows.reshape(height // _BLOCK, width // _BLOCK, _BLOCK).sum(axis=2)


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


def rate_of_film(count: int, duration_s: float) -> Fraction:
    """24 or 24000/1001 frames per second, whichever is nearer to `count` frames in `duration_s` seconds."""
    measured = count / duration_s if duration_s > 0 else 0.0
    return min((Fraction(24000, 1001), Fraction(24)), key=lambda rate: abs(float(rate) - measured))
