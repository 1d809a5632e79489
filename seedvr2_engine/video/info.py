"""What is known about a clip or picture before its frames are read, and the frame itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Literal

import torch

from .color_tags import ColorTags
from .hdr_metadata import HdrMetadata
from .reading.timeline import Timeline

SourceKind = Literal["video", "image", "sequence"]
PixelFamily = Literal["yuv", "rgb", "grey"]
FieldContent = Literal["progressive", "interlaced", "telecine", "soft telecine", "mixed", "unknown"]
FieldTreatment = Literal["none", "bwdif", "bwdif-fields", "detelecine", "match"]


@dataclass(frozen=True)
class Orientation:
    """How stored pixels become upright: transpose first, then mirror left-right, then mirror top-bottom."""

    transpose: bool = False
    """Swap rows and columns; the upright width is the stored height."""
    mirror_x: bool = False
    """Reverse every row."""
    mirror_y: bool = False
    """Reverse the order of the rows."""

    @property
    def degrees(self) -> int:
        """The clockwise turn that makes the stored picture upright: 0, 90, 180 or 270; mirroring left out."""
        if self.transpose:
            return 90 if self.mirror_x else 270
        return 180 if self.mirror_y else 0


@dataclass(frozen=True)
class Crop:
    """Pixels at the edges of a stored picture that are not part of it."""

    left: int = 0
    top: int = 0
    right: int = 0
    bottom: int = 0


@dataclass(frozen=True)
class SideStream:
    """One audio or subtitle stream that travels with the video."""

    codec: str
    """FFmpeg's codec name."""
    language: str | None = None
    """ISO 639 language of the stream as the container gives it."""
    sample_rate: int | None = None
    """Samples per second of an audio stream."""
    channels: int | None = None
    """Channels of an audio stream."""


@dataclass(frozen=True)
class PictureMetadata:
    """What a picture file holds beside its pixels and travels from picture to picture; all of it describes the
    upright picture."""

    icc: bytes | None = None
    """ICC profile of R'G'B' pixels."""
    exif: bytes | None = None
    """EXIF as a TIFF structure, with orientation 1 if it has one, and without a thumbnail."""
    xmp: bytes | None = None
    """An XMP packet."""
    dpi: tuple[float, float] | None = None
    """(horizontal, vertical) pixels per inch."""
    text: tuple[tuple[str, str], ...] = ()
    """Notes of a PNG file, as (key, text)."""


@dataclass(frozen=True)
class Fields:
    """What a clip's frames are made of, as a sample of them shows, and what the reader does about it."""

    content: FieldContent
    """progressive: whole pictures; interlaced: two moments woven together; telecine: film at 24 frames spread over
    fields (3:2 pulldown); soft telecine: film frames with marks that have them shown for two and three fields; mixed:
    telecine and interlaced; unknown: nothing moves in the sample, or nothing of it decodes."""
    is_flagged: bool
    """Whether the decoder calls most frames interlaced; broadcasts flag whole pictures, too."""
    top_first: bool | None
    """Whether the field that holds the uppermost row is the earlier one; None: see the flags of each frame."""
    treatment: FieldTreatment = "none"
    """none: frames as stored; bwdif: one whole frame for each; bwdif-fields: one for each field; detelecine: the film
    frames; match: fields matched to film frames where there are any, bwdif elsewhere, every frame kept."""
    only_flagged: bool = False
    """Whether frames that are not flagged as interlaced pass untouched."""
    evens_times: bool = False
    """Whether film frames that are shown for two and three fields in turn get even times."""
    is_film_throughout: bool = False
    """Whether all frames are film, so that even times are of one rate."""


@dataclass(frozen=True)
class SourceInfo:
    """A clip, a picture, or a numbered sequence of pictures; measured once, when it is opened."""

    path: Path
    """The file, the folder, or the pattern that was opened."""
    kind: SourceKind
    width: int
    """Upright width in pixels."""
    height: int
    """Upright height in pixels."""
    frame_count: int
    """Frames in the whole source, see `count_method`."""
    count_method: Literal["packets", "decoding", "files"]
    """How frames were counted: every coded picture in the file (packets), all of them decoded, or picture files."""
    average_rate: Fraction | None
    """Frames per second on average; None for a single image."""
    time_base: Fraction
    """Seconds per tick of `Frame.pts`."""
    variable_rate: bool
    """Whether frame intervals differ by more than one tick."""
    bit_depth: int
    """Bits per sample, 8 to 16 (fewer than 8 counts as 8)."""
    has_alpha: bool
    codec: str
    """FFmpeg's name of the video codec."""
    pix_fmt: str
    """FFmpeg's name of the pixel format of the first frame."""
    color: ColorTags
    """The tags as the file gives them."""
    conversion: ColorTags
    """The tags as they were applied: range and matrix are never unspecified here, see `color.resolve`."""
    sample_aspect_ratio: Fraction
    """Width of an upright pixel over its height; 1 when unknown."""
    orientation: Orientation
    """The turn that has been applied to the stored pixels."""
    start_s: Fraction
    """Time of the earliest stream, in seconds."""
    duration_s: float
    """From the first frame's start to the last frame's end, in seconds; 0 for a single image."""
    audio: tuple[SideStream, ...] = ()
    subtitles: tuple[SideStream, ...] = ()
    chapter_count: int = 0
    hdr: HdrMetadata = field(default_factory=HdrMetadata)
    """Static and dynamic metadata of an HDR clip, from its first frame; empty otherwise."""
    crop: Crop = Crop()
    """What the container cuts off the stored pixels, before they are turned."""
    first_frame: int = 0
    """Index of the first frame that is read, counted from 0."""
    selected_frames: int = 0
    """Number of frames that are read from there."""
    metadata: PictureMetadata | None = None
    """What the first picture's file says beside its pixels; None for clips."""
    pictures: tuple[str, ...] = ()
    """Names of the files of a sequence, without folders, in the order of the frames of the whole source."""
    loop_count: int | None = None
    """How often an animated picture is shown, 0 for ever; None where the file does not say."""
    stream_index: int = 0
    """Index of the video stream that is read, among all streams of the file."""
    timeline: Timeline = field(default_factory=Timeline)
    """How the times in the file became the ones given here; what reads other streams of it moves them alike."""
    fields: Fields | None = None
    """None where it was not looked for: a picture, a sequence, or everything as stored."""
    are_frames_whole: bool = True
    """False where frames are read as stored of which two fields may be woven together: known to be, or not looked at
    because that was not wanted."""
    remarks: tuple[str, ...] = ()
    """Sentences about what reading changes, for the user to know before the work."""

    @property
    def is_trimmed_at_start(self) -> bool:
        """Whether frames before the first one read are skipped."""
        return self.first_frame > 0

    @property
    def is_trimmed_at_end(self) -> bool:
        """Whether frames after the last one read are left out."""
        return self.first_frame + self.selected_frames < self.frame_count


@dataclass(frozen=True)
class Frame:
    """One upright picture in the source's own transfer curve."""

    rgb: torch.Tensor
    """float32 (3,H,W) in [0,1], contiguous, CPU."""
    alpha: torch.Tensor | None
    """float32 (1,H,W) in [0,1], or None when the source has no alpha."""
    pts: int
    """Presentation time in ticks of `SourceInfo.time_base`; strictly increasing from frame to frame."""
    duration: int
    """Ticks until the next frame, as the container promises; at least 1."""
    metadata: PictureMetadata | None = None
    """What this picture's file says beside its pixels; None for frames of a clip."""
