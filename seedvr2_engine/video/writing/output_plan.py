"""What will become of a source in an output: known before anything is written, for the sink and for `--plan`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ..info import SourceInfo
from ..reading.pictures.selection import is_picture
from ..reading.probe import first_frame, main_video, opened
from ..streams.finished.matroska_header import display_size, with_room
from ..streams.immersion import immersion_tags
from ..streams.metadata import file_tags, moved_timecode, muxer_options, stream_tags
from ..streams.stream_plan import StreamPlan, plan_streams
from .containers import container_for
from .encoder_plan import EncoderPlan, plan_encoder
from .options import SinkOptions
from .pictures.animation_sink import animation_losses, is_animation
from .pictures.picture_format import PictureFormat, require_picture
from .pictures.picture_names import PictureNames, is_sequence

# PyAV crashes after it has shown the side data of a PNG with a colour profile.
_WITHOUT_SIDE_DATA = frozenset(("png", "apng"))


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
    display_size: tuple[int, int] | None = None
    """(width, height) in square pixels at which a Matroska file is shown; None where the pixels are square."""
    losses: tuple[str, ...] = ()
    """What is lost or changed, in sentences."""

    def describe(self) -> str:
        """One line for people: `libx264, yuv420p; audio 1 (aac) as it is; audio 2 (ac3) as libopus`."""
        if self.encoder is None:
            return "pictures"
        parts = [f"{self.encoder.encoder}, {self.encoder.pix_fmt}", *(plan.describe() for plan in self.streams)]
        return "; ".join(parts)


def plan_output(path: Path, size: tuple[int, int], source: SourceInfo | None, options: SinkOptions) -> OutputPlan:
    """Plan an output of `size` (width, height); reads the source's headers, writes nothing.

    Raises OutputError where `plan_encoder` does, and VideoError if the source cannot be opened any more.
    """
    if is_sequence(path) or is_picture(path) or is_animation(path, source):
        return OutputPlan(None, losses=tuple(_picture_losses(path, size, source, options)))
    encoder = plan_encoder(path, size, source, options)
    kind = container_for(path)
    follows = source is not None and source.average_rate is not None and options.rate is None
    shown, video_tags = None, {}
    if source is not None and source.sample_aspect_ratio != 1 and kind.muxer in ("matroska", "webm"):
        shown = display_size(size, source.sample_aspect_ratio)
        video_tags["title"] = with_room(None)
    if source is None or source.kind != "video":
        return OutputPlan(
            encoder,
            video_tags=video_tags,
            muxer_options=kind.options,
            follows_time=follows,
            display_size=shown,
            losses=(*encoder.warnings, *_metadata_losses(path, source)),
        )
    losses = [*encoder.warnings, *_metadata_losses(path, source)]
    is_trimmed = source.is_trimmed_at_start or source.is_trimmed_at_end
    with opened(source.path) as container:
        video = main_video(container, source.path)
        streams = plan_streams(container, kind, path.suffix, follows_time=follows)
        tags, lost_tags = file_tags(container.metadata, kind.muxer)
        disposition = int(video.disposition)
        video_tags, lost_languages = stream_tags(video, kind.muxer)
        for plan in streams:
            if plan.action != "leave out" and plan.kind in ("audio", "subtitle"):
                lost_languages += stream_tags(container.streams[plan.index], kind.muxer)[1]
        keeps_chapters = follows and not is_trimmed
        if container.chapters() and not keeps_chapters:
            why = "the clip is trimmed" if follows else "the frame rate was changed"
            losses.append(f"Chapters are left out, because {why}.")
        if source.codec not in _WITHOUT_SIDE_DATA:
            losses += immersion_tags(first_frame(container, video, source.path), video_tags, kind.muxer, path.suffix)
    losses += lost_languages
    losses += [plan.note for plan in streams if plan.note is not None]
    if lost_tags:
        losses.append(f"Tags are left out, which {path.suffix} has no place for: {', '.join(lost_tags)}.")
    if shown is not None:
        video_tags["title"] = with_room(video_tags.get("title"))
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
        display_size=shown,
        losses=tuple(losses),
    )


def _picture_losses(
    path: Path, size: tuple[int, int], source: SourceInfo | None, options: SinkOptions
) -> Iterator[str]:
    """What pictures have no place for."""
    if is_animation(path, source):
        yield from animation_losses(path, source, options)
        yield from _metadata_losses(path, source)
    elif is_sequence(path):
        names = PictureNames.of(path, source)
        yield from names.warnings
        yield from PictureFormat.of(require_picture(Path(names.pattern)), size, source, options).warnings
    else:
        yield from PictureFormat.of(require_picture(path), size, source, options).warnings
    if source is None or source.kind != "video":
        return
    lost = [
        name
        for name, has in (
            ("sound", bool(source.audio)),
            ("subtitles", bool(source.subtitles)),
        )
        if has
    ]
    if lost:
        what, verb = " and ".join(lost).capitalize(), "is" if lost == ["sound"] else "are"
        yield f"{what} {verb} left out, which pictures have no place for."


def _metadata_losses(path: Path, source: SourceInfo | None) -> Iterator[str]:
    """What pictures say of themselves and a clip or an animation cannot; profiles have sentences of their own."""
    if source is None or (metadata := source.metadata) is None:
        return
    said = {"EXIF": metadata.exif, "XMP": metadata.xmp, "resolution": metadata.dpi, "notes": metadata.text}
    names = [name for name, value in said.items() if value]
    if names:
        what = " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
        owner = "picture's" if source.kind == "image" else "pictures'"
        verb, them = ("are", "them") if len(names) > 1 or names == ["notes"] else ("is", "it")
        yield f"The {owner} {what} {verb} left out of {path.suffix}; only pictures keep {them}."


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
