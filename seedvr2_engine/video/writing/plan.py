"""What will become of a source in an output: known before anything is written, for the sink and for `--plan`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ..info import SourceInfo
from ..reading.pictures import is_picture
from ..reading.probe import main_video, opened
from ..streams.metadata import carried_tags, file_tags, moved_timecode, muxer_options
from ..streams.plan import StreamPlan, plan_streams
from .options import EncoderPlan, SinkOptions, container_for, plan_encoder


@dataclass(frozen=True)
class OutputPlan:
    """How an output is written, and one sentence for each thing that will differ from the source or the request."""

    encoder: EncoderPlan | None
    """The picture's encoder; None for pictures, which are planned when they are written."""
    streams: tuple[StreamPlan, ...] = ()
    """What becomes of sound, subtitles, attached files, covers and data."""
    file_tags: dict[str, str] = field(default_factory=dict)
    """The file's tags."""
    video_tags: dict[str, str] = field(default_factory=dict)
    """The video stream's tags: title, language, time code."""
    video_disposition: int = 0
    """FFmpeg's flags of the video stream: default, forced, ..."""
    muxer_options: dict[str, str] = field(default_factory=dict)
    follows_time: bool = False
    """Whether frames keep the source's times."""
    keeps_chapters: bool = False
    losses: tuple[str, ...] = ()
    """What is lost or changed, in sentences."""


def is_sequence_target(path: Path) -> bool:
    """Whether a path means many pictures: a pattern, or a folder."""
    return "%" in path.name or not path.suffix or path.is_dir()


def plan_output(path: Path, size: tuple[int, int], source: SourceInfo | None, options: SinkOptions) -> OutputPlan:
    """Plan an output of `size` (width, height); reads the source's headers, writes nothing.

    Raises OutputError where `plan_encoder` does, and VideoError if the source cannot be opened any more.
    """
    if is_sequence_target(path) or is_picture(path):
        return OutputPlan(None, losses=tuple(_picture_losses(source, options)))
    encoder = plan_encoder(path, size, source, options)
    kind = container_for(path)
    follows = source is not None and source.average_rate is not None and options.rate is None
    if source is None or source.kind != "video":
        return OutputPlan(encoder, muxer_options=kind.options, follows_time=follows, losses=encoder.warnings)
    losses = list(encoder.warnings)
    is_trimmed = source.is_trimmed_at_start or source.is_trimmed_at_end
    with opened(source.path) as container:
        video = main_video(container, source.path)
        streams = plan_streams(container, kind, path.suffix, options, follows_time=follows)
        tags, lost_tags = file_tags(container.metadata, kind.muxer)
        video_tags, disposition = carried_tags(video.metadata), int(video.disposition)
        keeps_chapters = follows and not is_trimmed
        if container.chapters() and not keeps_chapters:
            why = "the clip is trimmed" if follows else "the frame rate was changed"
            losses.append(f"Chapters are left out, because {why}.")
    losses += [plan.note for plan in streams if plan.note is not None]
    if lost_tags:
        losses.append(f"Tags are left out, which {path.suffix} has no place for: {', '.join(lost_tags)}.")
    losses += _timecode_losses(tags, video_tags, source)
    return OutputPlan(
        encoder=encoder,
        streams=tuple(streams),
        file_tags=tags,
        video_tags=video_tags,
        video_disposition=disposition,
        muxer_options=muxer_options(kind.options, tags, kind.muxer),
        follows_time=follows,
        keeps_chapters=keeps_chapters,
        losses=tuple(losses),
    )


def _picture_losses(source: SourceInfo | None, options: SinkOptions) -> Iterator[str]:
    """What pictures have no place for."""
    if source is None or source.kind != "video":
        return
    sound = bool(source.audio) and options.copy_audio
    subtitles = bool(source.subtitles) and options.copy_subtitles
    if sound or subtitles:
        what = " and ".join(name for name, has in (("Sound", sound), ("subtitles", subtitles)) if has)
        yield (
            f"{what[0].upper()}{what[1:]} are left out, which pictures have no place for."
            if subtitles
            else ("Sound is left out, which pictures have no place for.")
        )


def _timecode_losses(tags: dict[str, str], video_tags: dict[str, str], source: SourceInfo) -> Iterator[str]:
    """Move the time code of a trimmed clip in place, or say that it is lost."""
    lost = False
    for place in (tags, video_tags):
        if "timecode" in place:
            moved = moved_timecode(place["timecode"], source)
            if moved is None:
                del place["timecode"]
                lost = True
            else:
                place["timecode"] = moved
    if lost:
        yield "The time code is left out, because it cannot be counted on for a trimmed clip."
