"""Decide, before anything is written, what becomes of every stream that is not the picture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import av
from av.subtitles.stream import SubtitleStream

from ..reading.probe import codec_name
from ..writing.containers import Container
from . import trial
from .attachments import holds_attachment, holds_cover, is_cover
from .sound.table import AudioTarget, audio_targets, is_known_layout, is_lossless, is_played, usual_layout
from .text.subtitles import SUBTITLES_KEPT, TEXT_ENCODERS, SubtitleConverter, is_text, loses_style

Action = Literal["copy", "encode", "convert", "leave out"]


@dataclass(frozen=True)
class StreamPlan:
    """What becomes of one stream."""

    index: int
    """Its place in the source."""
    kind: Literal["audio", "subtitle", "attachment", "cover", "data"]
    codec: str
    """FFmpeg's name."""
    action: Action
    target: AudioTarget | str | None = None
    """What sound is encoded as, or the encoder that text is converted by."""
    note: str | None = None
    """One sentence about what is lost or changed; None if nothing is."""

    def describe(self) -> str:
        """A few words for people: `audio 2 (ac3) as libopus`."""
        name = f"{self.kind} {self.index} ({self.codec})"
        if self.action == "leave out":
            return f"{name} left out"
        target = self.target.encoder if isinstance(self.target, AudioTarget) else self.target
        return f"{name} as it is" if target is None else f"{name} as {target}"


def plan_streams(
    source: av.container.InputContainer, kind: Container, ending: str, *, follows_time: bool
) -> list[StreamPlan]:
    """Plan all side streams of an open clip for a kind of file; `ending` (".mp4") is for the sentences.

    `follows_time` says whether frames keep their times; sound and subtitles are left out where they do not.
    """
    plans = []
    has_chapters = bool(source.chapters())
    for stream in source.streams:
        if isinstance(stream, av.AudioStream):
            plans.append(_plan_audio(stream, kind, ending) if follows_time else _out_of_step(stream, "audio"))
        elif isinstance(stream, SubtitleStream):
            plans.append(_plan_subtitle(stream, kind, ending) if follows_time else _out_of_step(stream, "subtitle"))
        elif stream.type == "attachment":
            plans.append(_plan_attachment(stream, kind, ending))
        elif is_cover(stream):
            plans.append(_plan_cover(stream, kind, ending))
        elif stream.type == "data" and not _is_told_otherwise(stream, has_chapters):
            name = stream.metadata.get("handler_name") or getattr(stream, "name", None) or "unknown"
            note = f"Data stream {stream.index} ({name}) is left out: what it says about the old frames cannot be kept."
            plans.append(StreamPlan(stream.index, "data", str(name), "leave out", note=note))
    return plans


def _out_of_step(stream: av.stream.Stream, kind: Literal["audio", "subtitle"]) -> StreamPlan:
    note = f"{kind.capitalize()} stream {stream.index} is left out, because the frame rate was changed."
    return StreamPlan(stream.index, kind, codec_name(stream), "leave out", note=note)


def _plan_audio(stream: av.AudioStream, kind: Container, ending: str) -> StreamPlan:
    name = f"Audio stream {stream.index}"
    context = stream.codec_context
    if context is None:
        note = f"{name} is of a codec that is unknown to this FFmpeg build, and is left out."
        return StreamPlan(stream.index, "audio", "unknown", "leave out", note=note)
    codec = codec_name(stream)
    channels, rate = context.layout.nb_channels, context.sample_rate
    if channels < 1 or rate < 1:
        note = f"{name} ({codec}) has {channels} channels at {rate} Hz, which is no sound, and is left out."
        return StreamPlan(stream.index, "audio", codec, "leave out", note=note)
    if is_played(codec, kind.muxer, rate) and trial.muxes(kind.muxer, lambda output: copy_audio(output, stream)):
        return StreamPlan(stream.index, "audio", codec, "copy")
    layout = usual_layout(context.layout.name)
    if context.format is not None and is_known_layout(layout):
        for target in audio_targets(kind.muxer, codec, layout, context.format.name, rate):
            if trial.encodes(context, target):
                note = _encoded_note(name, codec, layout, rate, target, ending)
                return StreamPlan(stream.index, "audio", codec, "encode", target, note)
    note = f"{name} ({codec}, {channels} channels) does not fit into {ending} and cannot be decoded; it is left out."
    return StreamPlan(stream.index, "audio", codec, "leave out", note=note)


def _encoded_note(name: str, codec: str, layout: str, rate: int, target: AudioTarget, ending: str) -> str:
    changes = []
    if target.layout != layout:
        changes.append(f"{layout} as {target.layout}")
    if target.rate != rate:
        changes.append(f"{rate} Hz as {target.rate} Hz")
    if target.kept_bits is not None:
        changes.append(f"in {target.kept_bits} bits")
    elif target.bit_rate is None:
        changes.append("without loss" if is_lossless(codec) else "with no further loss")
    changed = f" ({', '.join(changes)})" if changes else ""
    return f"{name} ({codec}) does not fit into {ending} and is encoded anew as {target.encoder}{changed}."


def copy_audio(output: av.container.OutputContainer, stream: av.AudioStream) -> av.AudioStream:
    """Add a stream that takes the packets as they are; raises ValueError if the muxer has no place for the codec."""
    target = output.add_stream_from_template(stream)
    assert isinstance(target, av.AudioStream)
    name = target.codec_context.layout.name
    if usual_layout(name) != name:
        target.codec_context.layout = usual_layout(name)
    return target


def _plan_subtitle(stream: SubtitleStream, kind: Container, ending: str) -> StreamPlan:
    name = f"Subtitle stream {stream.index}"
    if stream.codec_context is None:
        note = f"{name} is of a format that is unknown to this FFmpeg build, and is left out."
        return StreamPlan(stream.index, "subtitle", "unknown", "leave out", note=note)
    codec = codec_name(stream)
    if codec in SUBTITLES_KEPT[kind.muxer] and _takes(kind, lambda output: output.add_stream_from_template(stream)):
        return StreamPlan(stream.index, "subtitle", codec, "copy")
    encoder = TEXT_ENCODERS[kind.muxer]
    if is_text(codec) and _takes(kind, lambda output: SubtitleConverter(output, stream, encoder)):
        note = None
        if loses_style(codec):
            note = f"{name} ({codec}) is converted to {encoder}, which keeps its text but not its fonts and places."
        return StreamPlan(stream.index, "subtitle", codec, "convert", encoder, note)
    what = "text" if is_text(codec) else "pictures"
    note = f"{name} ({codec}, {what}) does not fit into {ending} and is left out."
    return StreamPlan(stream.index, "subtitle", codec, "leave out", note=note)


def _takes(kind: Container, add: Callable[[av.container.OutputContainer], object]) -> bool:
    return trial.muxes(kind.muxer, add)


def _plan_attachment(stream: av.stream.Stream, kind: Container, ending: str) -> StreamPlan:
    name = str(getattr(stream, "name", None) or stream.index)
    if holds_attachment(kind.muxer):
        return StreamPlan(stream.index, "attachment", name, "copy")
    note = f"The attached file {name} is left out, which {ending} has no place for; .mkv keeps it."
    return StreamPlan(stream.index, "attachment", name, "leave out", note=note)


def _plan_cover(stream: av.stream.Stream, kind: Container, ending: str) -> StreamPlan:
    codec = codec_name(stream)
    if holds_cover(kind.muxer, codec):
        return StreamPlan(stream.index, "cover", codec, "copy")
    note = f"The cover art ({codec}) is left out, which {ending} has no place for; .mkv and .mp4 keep JPEG and PNG."
    return StreamPlan(stream.index, "cover", codec, "leave out", note=note)


def _is_told_otherwise(stream: av.stream.Stream, has_chapters: bool) -> bool:
    """Whether a data stream is a time code or the names of the chapters, which are carried over as such."""
    if "timecode" in stream.metadata:
        return True
    return has_chapters and getattr(stream, "name", None) == "bin_data"
