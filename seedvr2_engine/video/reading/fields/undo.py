"""Turn stored frames into whole ones with FFmpeg's filters, and give each its time."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from fractions import Fraction

import av

from ....errors import VideoError
from ...info import Fields, SourceInfo
from ...planes import as_direct, family_of
from .decide import TICKS, film_rate

# Filters get numbers for times, so that damaged timestamps cannot confuse them.
_UNIT = Fraction(1, 30)
_CYCLE = 5
_SNAP_FIELDS = 0.4


class Stamp:
    """Times of the stored frames by number, kept while filters still hold them."""

    def __init__(self, stored: SourceInfo) -> None:
        self.count = 0
        rate = stored.average_rate or Fraction(25)
        self.step = max(1, round(1 / (rate * stored.time_base)))
        self._times: dict[int, tuple[int, int]] = {}
        self._last: int | None = None

    def take(self, frame: av.VideoFrame) -> int:
        """Note the time of the next frame and return the frame's number."""
        pts = frame.pts if frame.pts is not None else frame.dts
        if pts is None or (self._last is not None and pts <= self._last):
            pts = 0 if self._last is None else self._last + (self.step if pts is None else 1)
        self._last = pts
        self._times[self.count] = (pts, frame.duration or self.step)
        self.count += 1
        return self.count - 1

    def pts(self, number: int) -> int:
        """The time of a frame; behind the last one, where its own would be."""
        if number in self._times:
            return self._times[number][0]
        last = self.count - 1
        pts, duration = self._times[last]
        return pts + duration + (number - last - 1) * self.step

    def duration(self, number: int) -> int:
        return self._times[number][1]

    def forget(self, number: int) -> None:
        """Frames before this number are not asked for any more."""
        for old in [known for known in self._times if known < number and known < self.count - 1]:
            del self._times[old]


def undo_fields(frames: Iterable[av.VideoFrame], stored: SourceInfo) -> Iterator[av.VideoFrame]:
    """Yield the frames that the treatment in `stored.fields` makes of the stored ones.

    `frames` come in order with times in ticks of the stored time base; `stored` describes them. The results' `pts`
    and `duration` are in ticks of the time base that `fields.with_fields` gave. Raises VideoError if the pixel format
    cannot take the treatment.
    """
    fields = stored.fields
    if fields is None or (fields.treatment == "none" and not fields.evens_times):
        return iter(frames)
    stamp = Stamp(stored)
    if fields.treatment == "none":
        numbered = _plain(frames, stamp)
    else:
        numbered = _filtered(frames, stored, fields, stamp)
    if fields.treatment == "detelecine":
        return _film_times(numbered, stored, stamp)
    if fields.evens_times:
        return _even_times(numbered, stored, stamp)
    if fields.treatment == "bwdif-fields":
        return _field_times(numbered, stamp)
    return _kept_times(numbered, stamp)


def _plain(frames: Iterable[av.VideoFrame], stamp: Stamp) -> Iterator[tuple[int, av.VideoFrame]]:
    for frame in frames:
        yield stamp.take(frame), frame


def _filtered(
    frames: Iterable[av.VideoFrame], stored: SourceInfo, fields: Fields, stamp: Stamp
) -> Iterator[tuple[int, av.VideoFrame]]:
    """Results with their numbers: counted from 0, which is the stored frame's where every frame is kept."""
    is_bwdif = fields.treatment in ("bwdif", "bwdif-fields")
    each = 2 if fields.treatment == "bwdif-fields" else 1
    graph: av.filter.Graph | None = None
    held: deque[av.VideoFrame] = deque(maxlen=2)
    # Results of the frames that are put in front do not count.
    given = -each if is_bwdif else 0
    pushed = 0

    def results(frame: av.VideoFrame | None) -> Iterator[tuple[int, av.VideoFrame]]:
        nonlocal graph, given, pushed
        if graph is None:
            assert frame is not None
            graph = _graph(frame, fields)
        pushed += 1
        for result in _passed(graph, frame, pushed):
            given += 1
            if given > 0:
                yield given - 1, _checked(result, held[-1], stored)

    for frame in frames:
        stamp.take(frame)
        held.append(_filterable(frame))
        if not is_bwdif or stamp.count > 2:
            yield from results(held[-1])
        elif stamp.count == 2:
            # bwdif has no past for the first frame, and would draw half of its rows anew; the future serves as well.
            for early in (held[1], held[0], held[1]):
                yield from results(early)
    if not held:
        return
    if is_bwdif and stamp.count == 1:
        for _ in range(2):
            yield from results(held[0])
    total = stamp.count * each
    if fields.treatment == "detelecine":
        total = stamp.count - stamp.count // _CYCLE
    # bwdif has no future for the last frame, decimate waits for whole cycles, and fieldmatch keeps its last frames.
    more = [held[0]] if is_bwdif else [held[-1]] * (2 * _CYCLE)
    for late in (*more, None):
        for number, result in results(late):
            if number >= total:
                return
            yield number, result


def _passed(graph: av.filter.Graph, frame: av.VideoFrame | None, number: int) -> Iterator[av.VideoFrame]:
    if frame is not None:
        frame.pts, frame.time_base = number, _UNIT
    graph.vpush(frame)
    while True:
        try:
            yield graph.vpull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return


def _filterable(frame: av.VideoFrame) -> av.VideoFrame:
    """The frame in planes, because a filter would pick a conversion of its own."""
    frame = as_direct(frame)
    name = frame.format.name
    if family_of(frame.format) == "rgb" and not name.startswith("gbr"):
        has_alpha = any(component.is_alpha for component in frame.format.components)
        bits = max(component.bits for component in frame.format.components)
        frame = frame.reformat(format=f"gbr{'a' if has_alpha else ''}p{'16le' if bits > 8 else ''}", threads=1)
    elif name.endswith("be"):
        frame = frame.reformat(format=f"{name[:-2]}le", threads=1)
    return frame


def _checked(result: av.VideoFrame, pushed: av.VideoFrame, stored: SourceInfo) -> av.VideoFrame:
    if result.format.name != pushed.format.name:
        raise VideoError(
            f"{stored.path}: expected a pixel format that FFmpeg's filters take, found {pushed.format.name}; convert "
            "the clip to Y'CbCr first, or keep its frames as they are (--deinterlace off --detelecine off)."
        )
    return result


def _graph(frame: av.VideoFrame, fields: Fields) -> av.filter.Graph:
    parity = {True: "tff", False: "bff", None: "auto"}[fields.top_first]
    graph = av.filter.Graph()
    # PyAV's add_buffer knows no frame rate, without which fieldmatch refuses its input.
    source = graph.add(
        "buffer",
        video_size=f"{frame.width}x{frame.height}",
        pix_fmt=frame.format.name,
        time_base=str(_UNIT),
        frame_rate=str(1 / _UNIT),
        pixel_aspect="1/1",
    )
    sink = graph.add("buffersink")
    if fields.treatment in ("bwdif", "bwdif-fields"):
        mode = "send_field" if fields.treatment == "bwdif-fields" else "send_frame"
        deint = "interlaced" if fields.only_flagged else "all"
        graph.link_nodes(source, graph.add("bwdif", f"mode={mode}:parity={parity}:deint={deint}"), sink)
    else:
        # fieldmatch compares 8 bits; it takes the fields from the second input, whatever its depth.
        split, eight_bits = graph.add("split"), graph.add("format", "yuv420p")
        match = graph.add("fieldmatch", f"order={parity}:mode=pc_n:combmatch=full:ppsrc=1")
        source.link_to(split)
        split.link_to(eight_bits, 0, 0)
        eight_bits.link_to(match, 0, 0)
        split.link_to(match, 1, 1)
        combed = graph.add("bwdif", f"mode=send_frame:parity={parity}:deint=interlaced")
        rest = [graph.add("decimate", f"cycle={_CYCLE}")] if fields.treatment == "detelecine" else []
        graph.link_nodes(match, combed, *rest, sink)
    graph.configure()
    return graph


def _kept_times(numbered: Iterable[tuple[int, av.VideoFrame]], stamp: Stamp) -> Iterator[av.VideoFrame]:
    for number, frame in numbered:
        frame.pts, frame.duration = stamp.pts(number), stamp.duration(number)
        stamp.forget(number)
        yield frame


def _field_times(numbered: Iterable[tuple[int, av.VideoFrame]], stamp: Stamp) -> Iterator[av.VideoFrame]:
    """The second field halfway to the next frame; ticks are half as long."""
    for number, frame in numbered:
        stored, is_second = divmod(number, 2)
        begin, end = stamp.pts(stored), stamp.pts(stored + 1)
        frame.pts = begin + end if is_second else 2 * begin
        frame.duration = max(1, end - begin)
        stamp.forget(stored)
        yield frame


def _film_times(
    numbered: Iterable[tuple[int, av.VideoFrame]], stored: SourceInfo, stamp: Stamp
) -> Iterator[av.VideoFrame]:
    """Four even steps for the five of a cycle; on from the last one unless the stored times jump."""
    step = _film_step(stored)
    expected: int | None = None
    for number, frame in numbered:
        cycle, place = divmod(number, _CYCLE - 1)
        begin = round(stamp.pts(cycle * _CYCLE) * stored.time_base * TICKS)
        pts = begin + place * step
        if expected is not None and abs(pts - expected) <= step // 2:
            pts = expected
        elif expected is not None:
            pts = max(pts, expected - step + 1)
        frame.pts, frame.duration = pts, step
        expected = pts + step
        stamp.forget(cycle * _CYCLE)
        yield frame


def _even_times(
    numbered: Iterable[tuple[int, av.VideoFrame]], stored: SourceInfo, stamp: Stamp
) -> Iterator[av.VideoFrame]:
    """Even steps where frames are shown for two and three fields in turn, their own times elsewhere."""
    step = _film_step(stored)
    field = step / 2.5
    before: int | None = None
    expected: int | None = None
    for number, frame, following in _with_next_time(numbered, stamp):
        begin = float(stamp.pts(number) * stored.time_base * TICKS)
        after = _other(before) if following is None else round((following * stored.time_base * TICKS - begin) / field)
        left = _other(after) if before is None else before
        is_film = {left, after} == {2, 3}
        # A frame that follows a long one is late by half a field against one that follows a short one.
        pts = round(begin + ((after - left) * field / 4 if is_film else 0))
        if expected is None:
            pts = round(begin)
        elif abs(pts - expected) <= _SNAP_FIELDS * field:
            pts = expected
        frame.pts, frame.duration = pts, step if is_film else max(1, round(after * field))
        expected = pts + step
        before = after
        stamp.forget(number)
        yield frame


def _other(fields: int | None) -> int:
    """What comes before or after a frame shown for so many fields, as far as one can tell."""
    if fields is None:
        return 2
    return 5 - fields if fields in (2, 3) else fields


def _with_next_time(
    numbered: Iterable[tuple[int, av.VideoFrame]], stamp: Stamp
) -> Iterator[tuple[int, av.VideoFrame, int | None]]:
    held: tuple[int, av.VideoFrame] | None = None
    for number, frame in numbered:
        if held is not None:
            yield *held, stamp.pts(number)
        held = (number, frame)
    if held is not None:
        yield *held, None


def _film_step(stored: SourceInfo) -> int:
    """Ticks of 1/24000 s from one film frame to the next: 1001, or 1000 for exactly 24."""
    return round(TICKS / film_rate(stored))
