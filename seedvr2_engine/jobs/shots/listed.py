"""Shots in a file: written as JSON, and read from that, from lines of text, and from PySceneDetect's CSV.

Files count the frames of the whole source as reading gives them: from its first frame on, whatever `--start` skips, and
after interlacing was undone. `Shot` counts from the first frame that is read.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

from ...errors import InvalidArgumentError
from ...video import SourceInfo
from ..shot import BORDERS, Border, Shot, divided

FORMAT = "seedvr2 shots"
VERSION = 1
MOST_BYTES = 64 << 20
"""A larger file is no list of shots."""
_CLOCK = re.compile(r"(?:(\d+):)?(\d{1,2}):(\d{1,2}(?:\.\d+)?)", re.ASCII)
_FRAMES_CLOCK = re.compile(r"(\d+):(\d{2}):(\d{2}):(\d{2,3})", re.ASCII)
_NUMBER = re.compile(r"\d{1,15}", re.ASCII)
_HINT = (
    "name the JSON of `seedvr2 shots IN --json FILE`, frame numbers or timecodes line by line, or PySceneDetect's CSV"
)


def facts(shots: tuple[Shot, ...], info: SourceInfo) -> dict[str, Any]:
    """Return what the JSON of some shots says."""
    rate = info.average_rate
    first = info.first_frame
    listed = []
    for shot in shots:
        entry: dict[str, Any] = {"start": first + shot.start, "stop": first + shot.stop, "border": shot.border}
        if rate and not info.variable_rate:
            entry |= {"time_s": _seconds(first + shot.start, rate), "length_s": _seconds(len(shot), rate)}
        listed.append(entry)
    return {
        "format": FORMAT,
        "version": VERSION,
        "source": info.path.name,
        "frames": info.frame_count,
        "rate": str(rate) if rate else None,
        "variable_rate": info.variable_rate,
        "fields": info.fields.treatment if info.fields is not None else "none",
        "shots": listed,
    }


def read_shots(file: Path, info: SourceInfo) -> tuple[Shot, ...]:
    """Return the shots that a file lists, of the frames that are read of a source.

    Raises InvalidArgumentError, with the line where there is one, for what is no such list, for frames that do not rise
    or that the source does not have, and for timecodes of a source whose rate varies.
    """
    text = _text(file)
    if text.lstrip().startswith(("{", "[")):
        return _of_json(file, text, info)
    lines = text.splitlines()
    header = next((index for index, line in enumerate(lines[:3]) if "Start Frame" in line), None)
    starts = _of_csv(file, lines, header) if header is not None else _of_lines(file, lines, info)
    borders: list[tuple[int, Border]] = []
    last, has_any = 0, False
    for line, start in starts:
        if start and start <= last:
            raise InvalidArgumentError(
                f"{file}, line {line}: expected a frame after {last}, found {start}; put them in order, each once."
            )
        _check_frame(file, f", line {line}", start, info)
        last, has_any = start, True
        if info.first_frame < start < info.first_frame + info.selected_frames:
            borders.append((start - info.first_frame, "given"))
    if not has_any:
        raise InvalidArgumentError(f"{file}: expected a list of shots, found none in it; {_HINT}.")
    return divided(info.selected_frames, borders)


def _text(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            data = opened.read(MOST_BYTES + 1)
    except OSError as error:
        raise InvalidArgumentError(f"{file}: expected a list of shots, got {error.strerror}; {_HINT}.") from error
    if len(data) > MOST_BYTES:
        raise InvalidArgumentError(f"{file}: expected a list of shots of at most 64 MB, found more; {_HINT}.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidArgumentError(f"{file}: expected a list of shots, found no text; {_HINT}.") from error


def _of_json(file: Path, text: str, info: SourceInfo) -> tuple[Shot, ...]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidArgumentError(f"{file}: expected a list of shots, found JSON that breaks off; {_HINT}.") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT or not isinstance(content.get("shots"), list):
        raise InvalidArgumentError(f"{file}: expected the JSON of `seedvr2 shots`, found another one; {_HINT}.")
    if content.get("version") != VERSION:
        raise InvalidArgumentError(
            f"{file}: expected version {VERSION} of the list, found {str(content.get('version'))[:20]}; "
            "make it again with `seedvr2 shots`."
        )
    fields = info.fields.treatment if info.fields is not None else "none"
    found = content.get("frames"), content.get("fields")
    if found != (info.frame_count, fields):
        raise InvalidArgumentError(
            f"{file}: expected shots of {info.frame_count} frames (fields: {fields}), as {info.path.name} is read, "
            f"found those of {str(found[0])[:20]} (fields: {str(found[1])[:20]}); make the list with the same "
            "--deinterlace and --detelecine."
        )
    return _within(file, [_entry(file, number, entry) for number, entry in enumerate(content["shots"], 1)], info)


def _entry(file: Path, number: int, entry: object) -> Shot:
    values = [entry.get(key) for key in ("start", "stop", "border")] if isinstance(entry, dict) else [None] * 3
    start, stop, border = values
    if type(start) is int and type(stop) is int and 0 <= start < stop and border in BORDERS:
        return Shot(start, stop, border)
    raise InvalidArgumentError(
        f"{file}, shot {number}: expected a start before a stop, and a border out of {', '.join(BORDERS)}, found "
        f"{str(values)[:80]}; make the list again with `seedvr2 shots`."
    )


def _within(file: Path, listed: list[Shot], info: SourceInfo) -> tuple[Shot, ...]:
    """Shots of the whole source as those of the frames that are read."""
    first, stop = info.first_frame, info.first_frame + info.selected_frames
    for number, (shot, after) in enumerate(pairwise(listed), 2):
        if shot.stop != after.start:
            raise InvalidArgumentError(
                f"{file}, shot {number}: expected it to start at frame {shot.stop}, where the one before stops, found "
                f"{after.start}; every frame is in one shot."
            )
    if not listed or listed[0].start > first or listed[-1].stop < stop:
        has = f"frames {listed[0].start} to {listed[-1].stop - 1}" if listed else "none"
        raise InvalidArgumentError(
            f"{file}: expected shots of frames {first} to {stop - 1}, which are read, found {has}; make the list for "
            "all of them."
        )
    return divided(stop - first, [(shot.start - first, shot.border) for shot in listed if first < shot.start < stop])


def _of_csv(file: Path, lines: list[str], header: int) -> Iterator[tuple[int, int]]:
    """Lines and starts of PySceneDetect's list of scenes, which counts from 1."""
    rows = csv.reader(lines[header:])
    place = next(rows).index("Start Frame")
    for line, row in enumerate(rows, header + 2):
        if not row:
            continue
        cell = row[place].strip() if place < len(row) else ""
        if not _NUMBER.fullmatch(cell) or int(cell) < 1:
            raise InvalidArgumentError(
                f"{file}, line {line}: expected a frame from 1 on under Start Frame, found {cell[:40]!r}; {_HINT}."
            )
        yield line, int(cell) - 1


def _of_lines(file: Path, lines: list[str], info: SourceInfo) -> Iterator[tuple[int, int]]:
    for line, text in enumerate(lines, 1):
        cell = text.split("#")[0].strip()
        if not cell:
            continue
        frame = int(cell) if _NUMBER.fullmatch(cell) else _frame_at(file, line, cell, info)
        yield line, frame


def _frame_at(file: Path, line: int, cell: str, info: SourceInfo) -> int:
    """The frame that is shown at a timecode."""
    rate, place = info.average_rate, f"{file}, line {line}"
    with_frames, clock = _FRAMES_CLOCK.fullmatch(cell), _CLOCK.fullmatch(cell)
    if with_frames is None and clock is None:
        raise InvalidArgumentError(
            f"{place}: expected a frame number or a timecode such as 00:01:02.500 or 00:01:02:12, found "
            f"{cell[:40]!r}; {_HINT}."
        )
    if not rate or info.variable_rate:
        raise InvalidArgumentError(
            f"{place}: expected a frame number, found the timecode {cell}, and {info.path.name} has no even rate; give "
            "frame numbers, as `seedvr2 shots` prints them."
        )
    if with_frames is not None:
        # These count whole frames a second, and 29.97 as 30.
        hours, minutes, seconds, frames = map(int, with_frames.groups())
        return (hours * 3600 + minutes * 60 + seconds) * round(rate) + frames
    assert clock is not None
    return round((int(clock[1] or 0) * 3600 + int(clock[2]) * 60 + Fraction(clock[3])) * rate)


def _check_frame(file: Path, place: str, frame: int, info: SourceInfo) -> None:
    if frame >= info.frame_count:
        raise InvalidArgumentError(
            f"{file}{place}: expected a frame before {info.frame_count}, where {info.path.name} ends, found {frame}; "
            "frames are counted from 0."
        )


def _seconds(frames: int, rate: Fraction) -> float:
    return round(float(frames / rate), 6)
