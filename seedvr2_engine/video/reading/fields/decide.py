"""Decide what becomes of interlaced and telecined frames, and say so before any is read."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal, get_args

from ....errors import InvalidArgumentError, VideoError
from ...info import FieldContent, Fields, FieldTreatment, SourceInfo
from .combing import LARGEST_INTERLACED_HEIGHT, Window, sample

Deinterlace = Literal["auto", "off", "bwdif", "bwdif-fields"]
Detelecine = Literal["auto", "off", "on"]

# Of frames whose kind shows. Content alone needs more evidence than content that agrees with the flags.
_WOVEN_SHARE = 0.2
_WOVEN_SHARE_FLAGGED = 0.08
_FEWEST_WOVEN = 3
_AGREEING_SHARE = 0.75
_PARITY_SHARE = 0.9
_FILM_SHARE = 0.8
# Evening is decided frame by frame, so a part of a clip is enough; its rate is film's only if all of it is.
_UNEVEN_SHARE = 0.2
_UNEVEN_THROUGHOUT = 0.9
_SMALLEST = (4, 4)
# Pixel formats: those that `planes.as_direct` brings to what fieldmatch takes, and those that bwdif does not take.
_MATCHED = re.compile(r"yuv4(20|22|44|10|11)p|nv12|nv16|nv24|p010|p210|uyvy422|yuyv422|yvyu422|uyyvyy411")
_NO_FILTER = re.compile(r"gray(9|10|12|14)|ya|gbrap1[024]|yuva4..p12|yuv440p1")
_TELECINE_RATES = (Fraction(30000, 1001), Fraction(30))
TICKS = 24000
"""Ticks a second of film frames' times: 1001 or 1000 a frame."""


@dataclass(frozen=True)
class _Evidence:
    """What the sampled windows say together."""

    seen: int
    flagged: int
    known: int
    top: int
    bottom: int
    agreeing: int
    """Woven frames whose field order is their window's usual one; wrong verdicts fall on both sides."""
    film: float
    """Share of the windows that tell something which have the rhythm of 3:2 pulldown."""
    uneven: float
    """Share of the frames that are shown for two and three fields in turn."""

    @staticmethod
    def of(windows: list[Window]) -> _Evidence:
        telling = [window for window in windows if window.known >= 8]
        return _Evidence(
            seen=sum(len(window.steps_s) + 1 for window in windows),
            flagged=sum(window.flagged for window in windows),
            known=sum(window.known for window in windows),
            top=sum(window.weaves.count("top") for window in windows),
            bottom=sum(window.weaves.count("bottom") for window in windows),
            agreeing=sum(max(window.weaves.count("top"), window.weaves.count("bottom")) for window in windows),
            film=sum(window.is_film for window in telling) / len(telling) if telling else 0.0,
            uneven=sum(window.uneven for window in windows) / len(windows) if windows else 0.0,
        )

    @property
    def woven_share(self) -> float:
        return (self.top + self.bottom) / self.known if self.known else 0.0

    @property
    def is_flagged(self) -> bool:
        return self.flagged * 2 > self.seen

    @property
    def content(self) -> FieldContent:
        if self.uneven >= _UNEVEN_SHARE:
            return "soft telecine"
        if self.film >= _FILM_SHARE:
            return "telecine"
        least = _WOVEN_SHARE_FLAGGED if self.flagged else _WOVEN_SHARE
        woven = self.top + self.bottom
        if woven >= _FEWEST_WOVEN and self.woven_share >= least and self.agreeing >= _AGREEING_SHARE * woven:
            return "mixed" if self.film else "interlaced"
        return "progressive" if self.known else "unknown"

    @property
    def top_first(self) -> bool | None:
        woven = self.top + self.bottom
        if woven < _FEWEST_WOVEN or max(self.top, self.bottom) < _PARITY_SHARE * woven:
            return None
        return self.top > self.bottom


def with_fields(info: SourceInfo, deinterlace: Deinterlace = "auto", detelecine: Detelecine = "auto") -> SourceInfo:
    """Return the clip as it will be read: frame count, rate and time base after its fields are undone, and `fields`.

    A sample of the clip is decoded unless both are "off". Pictures, sequences and more than 1152 lines pass as they
    are. Raises InvalidArgumentError for an unknown choice, VideoError for a treatment that the clip cannot take.
    """
    _check_choice("deinterlace", deinterlace, get_args(Deinterlace))
    _check_choice("detelecine", detelecine, get_args(Detelecine))
    if info.kind != "video":
        return info
    if deinterlace == "off" and detelecine == "off":
        return replace(info, are_frames_whole=not _can_be_interlaced(info))
    is_asked = deinterlace.startswith("bwdif") or detelecine == "on"
    if not is_asked and not _can_be_interlaced(info):
        return info
    evidence = _Evidence.of(sample(info))
    fields = _decide(info, evidence, deinterlace, detelecine)
    read = _as_read(replace(info, fields=fields, remarks=(*info.remarks, *_sentences(info, fields))))
    return replace(read, are_frames_whole=_are_whole(fields))


def _check_choice(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise InvalidArgumentError(f"{name}: expected one of {', '.join(known)}, got {value!r}.")


def _stored_height(info: SourceInfo) -> int:
    return info.width if info.orientation.transpose else info.height


def _can_be_interlaced(info: SourceInfo) -> bool:
    return (
        info.frame_count > 2
        and _stored_height(info) <= LARGEST_INTERLACED_HEIGHT
        and min(info.width, info.height) >= _SMALLEST[0]
    )


def _decide(info: SourceInfo, evidence: _Evidence, deinterlace: Deinterlace, detelecine: Detelecine) -> Fields:
    content = evidence.content
    fields = Fields(content, evidence.is_flagged, evidence.top_first)
    if detelecine != "off" and content == "soft telecine":
        fields = replace(fields, evens_times=True, is_film_throughout=evidence.uneven >= _UNEVEN_THROUGHOUT)
        woven = evidence.top + evidence.bottom
        if deinterlace == "auto" and evidence.flagged and woven >= _FEWEST_WOVEN:
            return replace(fields, treatment="bwdif", only_flagged=True)
    elif detelecine == "on" or (
        detelecine == "auto"
        and not deinterlace.startswith("bwdif")
        and content == "telecine"
        and not _cannot_detelecine(info)
    ):
        if detelecine == "on" and (reason := _cannot_detelecine(info)):
            raise VideoError(f"{info.path}: {reason}; leave --detelecine out, or turn it off.")
        return replace(fields, treatment="detelecine")
    if deinterlace in ("bwdif", "bwdif-fields"):
        if min(info.width, info.height) < _SMALLEST[0]:
            raise VideoError(
                f"{info.path}: expected at least {_SMALLEST[0]}x{_SMALLEST[1]} pixels to deinterlace, found "
                f"{info.width}x{info.height}; leave --deinterlace out."
            )
        if _NO_FILTER.match(info.pix_fmt):
            raise VideoError(
                f"{info.path}: expected a pixel format that FFmpeg's bwdif takes, found {info.pix_fmt}; convert the "
                "clip first, or leave --deinterlace out."
            )
        return replace(fields, treatment=deinterlace)
    if deinterlace == "auto" and not _NO_FILTER.match(info.pix_fmt):
        if content == "mixed" and not _cannot_match(info):
            return replace(fields, treatment="match")
        if content in ("interlaced", "mixed", "telecine"):
            return replace(fields, treatment="bwdif")
        if content == "unknown" and evidence.is_flagged:
            # Where nothing moves bwdif leaves every pixel as it is.
            return replace(fields, treatment="bwdif", only_flagged=True)
    return fields


def _are_whole(fields: Fields) -> bool:
    if fields.treatment != "none":
        return True
    return fields.content in ("progressive", "soft telecine") or (fields.content == "unknown" and not fields.is_flagged)


def _cannot_detelecine(info: SourceInfo) -> str | None:
    """Why 3:2 pulldown cannot be undone, as the middle of a sentence."""
    if (reason := _cannot_match(info)) is not None:
        return reason
    rate = _stored_rate(info)
    if min(abs(rate / float(known) - 1) for known in _TELECINE_RATES) > 0.005:
        return f"expected about 29.97 or 30 frames per second to undo 3:2 pulldown, found {rate:.3f}"
    return None


def _stored_rate(info: SourceInfo) -> float:
    """Stored frames per second as counted; what containers claim may be the rate after pulldown, or a guess."""
    return info.frame_count / info.duration_s if info.duration_s > 0 else float(info.average_rate or 0)


def _cannot_match(info: SourceInfo) -> str | None:
    if _MATCHED.match(info.pix_fmt):
        return None
    return f"expected Y'CbCr without alpha to match fields, found the pixel format {info.pix_fmt}"


def _as_read(info: SourceInfo) -> SourceInfo:
    """Counts and times after the treatment."""
    fields = info.fields
    assert fields is not None
    rate = info.average_rate or Fraction(25)
    if fields.treatment == "bwdif-fields":
        return _counted(info, info.frame_count * 2, rate * 2, info.time_base / 2)
    if fields.treatment == "detelecine":
        count = info.frame_count - info.frame_count // 5
        return replace(_counted(info, count, film_rate(info), Fraction(1, TICKS)), variable_rate=False)
    if fields.evens_times:
        info = replace(info, time_base=Fraction(1, TICKS))
        return replace(info, average_rate=film_rate(info), variable_rate=False) if fields.is_film_throughout else info
    return info


def film_rate(stored: SourceInfo) -> Fraction:
    """Frames per second of the film in a telecined clip: 24 where the clip runs at whole rates, 24000/1001 if not."""
    return Fraction(24) if stored.average_rate in (24, 30, 60) else Fraction(24000, 1001)


def _counted(info: SourceInfo, count: int, rate: Fraction, time_base: Fraction) -> SourceInfo:
    return replace(info, frame_count=count, selected_frames=count, average_rate=rate, time_base=time_base)


_FOUND: dict[FieldContent, str] = {
    "interlaced": "is interlaced",
    "telecine": "is film with 3:2 pulldown",
    "soft telecine": "is film whose frames are shown for two and three fields in turn (soft 3:2 pulldown)",
    "mixed": "is partly film with 3:2 pulldown and partly interlaced",
    "progressive": "is not interlaced",
    "unknown": "shows too little movement to tell whether it is interlaced",
}
_DONE: dict[FieldTreatment, str] = {
    "bwdif": "it is deinterlaced by bwdif, one frame for each stored one (--deinterlace off keeps the frames as they "
    "are, bwdif-fields gives one for each field)",
    "bwdif-fields": "it is deinterlaced by bwdif, one frame for each field, at twice the rate",
    "detelecine": "its film frames are put together again, at {rate:.3f} frames per second (--detelecine off keeps all "
    "frames)",
    "match": "fields that belong together are matched, the rest is deinterlaced by bwdif, and every frame is kept "
    "(--deinterlace off keeps them as they are, --detelecine on takes film frames only)",
}


def _sentences(stored: SourceInfo, fields: Fields) -> tuple[str, ...]:
    """What was found and what is done, where there is anything to say."""
    flags = "its frames are flagged as interlaced" if fields.is_flagged else "its frames are flagged as progressive"
    order = {True: ", top field first", False: ", bottom field first", None: ""}[fields.top_first]
    found = _FOUND[fields.content] + (order if fields.content in ("interlaced", "telecine", "mixed") else "")
    if fields.content in ("interlaced", "telecine", "mixed") and not fields.is_flagged:
        found += f" ({flags}, the pictures show otherwise)"
    read = _as_read(replace(stored, fields=fields))
    if fields.treatment != "none":
        done = _DONE[fields.treatment].format(rate=float(read.average_rate or 0))
        if fields.evens_times:
            done += ", and its frames get even times"
        if fields.content in ("progressive", "unknown"):
            return (
                f"{stored.path.name} {found}; as asked, {done}."
                if not fields.only_flagged
                else f"{stored.path.name} {found}, but {flags}; {done}.",
            )
        return (f"{stored.path.name} {found}; {done}.",)
    if fields.evens_times:
        rate = f", {float(read.average_rate or 0):.3f} frames per second" if fields.is_film_throughout else ""
        return (f"{stored.path.name} {found}; they get even times{rate} (--detelecine off keeps their times).",)
    if fields.content in ("interlaced", "telecine", "mixed"):
        why = "FFmpeg's filters do not take " + stored.pix_fmt if _NO_FILTER.match(stored.pix_fmt) else "as asked"
        return (f"{stored.path.name} {found}; {why}, so its frames stay as they are, with their combs.",)
    if fields.content == "progressive" and fields.is_flagged:
        return (
            f"{stored.path.name} is flagged as interlaced, but its frames are whole; they stay as they are "
            "(--deinterlace bwdif deinterlaces them).",
        )
    return ()
