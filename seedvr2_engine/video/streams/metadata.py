"""Tags, titles, languages and chapters on their way into another kind of file."""

from __future__ import annotations

from fractions import Fraction

import av

from ..info import SourceInfo
from .languages import language_for

# Facts about the old file, which its muxer wrote and the new one writes for itself; compared in lower case.
_OWN = frozenset(
    ("major_brand", "minor_version", "compatible_brands", "encoder", "duration", "vendor_id", "alpha_mode")
) | {"bps", "number_of_frames", "number_of_bytes", "rotate", "software", "handler", "isft"}
# What FFmpeg, Apple and others call the handler of a track that nobody gave a name.
_NAMELESS_HANDLERS = ("handler", "mainconcept", "gpac", "l-smash", "iso media file", "core media", "bento4")
# Written by movenc under iTunes' names; MP4 has no place for others.
_MP4_NAMES = """
title artist album_artist composer album date comment genre copyright grouping lyrics description synopsis show
episode_id network keywords episode_sort season_number media_type hd_video gapless_playback compilation rating track
disc tmpo location creation_time timecode performer author
"""
_MP4_KEYS = frozenset(_MP4_NAMES.split())
_APPLE_TO_MP4 = {
    "com.apple.quicktime.location.iso6709": "location",
    "com.apple.quicktime.creationdate": "date",
    "com.apple.quicktime.title": "title",
    "com.apple.quicktime.artist": "artist",
    "com.apple.quicktime.comment": "comment",
    "com.apple.quicktime.description": "description",
    "com.apple.quicktime.copyright": "copyright",
    "com.apple.quicktime.keywords": "keywords",
}
_MDTA_FLAGS = "+use_metadata_tags"


def carried_tags(metadata: dict[str, str]) -> dict[str, str]:
    """The tags that say something about the content rather than about the old file."""
    return {
        key: value
        for key, value in metadata.items()
        if key.lower() not in _OWN and not key.startswith("_STATISTICS") and not _is_nameless(key, value)
    }


def file_tags(metadata: dict[str, str], muxer: str) -> tuple[dict[str, str], list[str]]:
    """The file's tags under the names that the muxer writes, and the names of those that it has no place for."""
    tags = carried_tags(metadata)
    if muxer != "mp4":
        return tags, []
    kept: dict[str, str] = {}
    lost: list[str] = []
    for key, value in tags.items():
        name = _APPLE_TO_MP4.get(key.lower(), key)
        if name.lower().split("-")[0] in _MP4_KEYS:
            kept.setdefault(name, value)
        else:
            lost.append(key)
    return kept, lost


def muxer_options(options: dict[str, str], tags: dict[str, str], muxer: str) -> dict[str, str]:
    """The muxer's options, with Apple's free keys (`mdta`) where a MOV has tags beyond the classical ones."""
    if muxer == "mov" and any(key.lower() not in _MP4_KEYS for key in tags):
        return {**options, "movflags": options.get("movflags", "") + _MDTA_FLAGS}
    return options


def stream_tags(source: av.stream.Stream, muxer: str) -> tuple[dict[str, str], list[str]]:
    """The title, language and other tags of a stream as the muxer spells them, and what is lost, in sentences."""
    tags = carried_tags(source.metadata)
    # MP4 keeps a track's title under this name.
    if "name" in tags:
        tags.setdefault("title", tags.pop("name"))
    language = tags.get("language", "und")
    spelled = language_for(language, muxer)
    if spelled is not None:
        tags["language"] = spelled
        return tags, []
    tags.pop("language", None)
    return tags, [] if language == "und" else [
        f"The language of stream {source.index} ({language}) is left out, which this kind of file has no code for."
    ]


def describe_stream(target: av.stream.Stream, source: av.stream.Stream, muxer: str) -> None:
    """Give a stream the tags of another, and what it is for (default, forced, ...)."""
    target.metadata.update(stream_tags(source, muxer)[0])
    target.disposition = source.disposition


def set_chapters(output: av.container.OutputContainer, source: av.container.InputContainer, shift_s: Fraction) -> None:
    """Copy the chapters, made earlier by `shift_s`."""
    chapters = source.chapters()
    for chapter in chapters:
        shift = round(shift_s / chapter["time_base"]) if chapter["time_base"] else 0
        # A chapter that began before the clip, or ends before it begins, would be refused by the muxer.
        chapter["start"] = max(0, chapter["start"] - shift)
        chapter["end"] = max(chapter["start"], chapter["end"] - shift)
    if chapters:
        output.set_chapters(chapters)


def moved_timecode(timecode: str, info: SourceInfo) -> str | None:
    """The time code of the first frame that is read, `hh:mm:ss:ff` as SMPTE 12M counts; None if it is no such code."""
    drops = ";" in timecode
    fields = timecode.replace(";", ":").replace(".", ":").split(":")
    if info.first_frame == 0:
        return timecode
    if len(fields) != 4 or not all(field.isdigit() for field in fields) or info.average_rate is None:
        return None
    rate = round(info.average_rate)
    hours, minutes, seconds, frames = map(int, fields)
    count = ((hours * 60 + minutes) * 60 + seconds) * rate + frames
    skipped = rate // 15 if drops else 0
    total_minutes = hours * 60 + minutes
    count -= skipped * (total_minutes - total_minutes // 10)
    count += info.first_frame
    if skipped:
        tens, rest = divmod(count, rate * 600 - 9 * skipped)
        count += 9 * skipped * tens
        if rest > skipped:
            count += skipped * ((rest - skipped) // (rate * 60 - skipped))
    seconds, frames = divmod(count, rate)
    separator = ";" if drops else ":"
    return f"{seconds // 3600 % 24:02}:{seconds // 60 % 60:02}:{seconds % 60:02}{separator}{frames:02}"


def _is_nameless(key: str, value: str) -> bool:
    return key == "handler_name" and (
        not value.strip("\0 ") or any(part in value.lower() for part in _NAMELESS_HANDLERS)
    )
