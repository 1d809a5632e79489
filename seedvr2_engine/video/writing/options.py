"""What the user asks of an output file, and the encoder settings that follow from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Literal

import av

from ...errors import InvalidArgumentError, OutputError
from ..info import ColorRange, ColorTags, Matrix, SourceInfo
from ..profiles import name_of, tags_of
from .hdr_output import BANDING_BITS, hdr_losses, with_hdr10

CodecChoice = Literal["auto", "h264", "h265", "ffv1", "prores", "vp9"]
ChromaChoice = Literal["auto", "420", "422", "444", "rgb"]
PRESETS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow", "placebo")
"""The speed presets that x264 and x265 share."""


@dataclass(frozen=True)
class SinkOptions:
    """How a clip or picture is written; checked when it is made, and against the file when that is opened."""

    codec: CodecChoice = "auto"
    """Video codec. auto: H.264 for 8 bits and H.265 for more in MP4, MOV and MKV; VP9 in WebM. Unused by pictures."""
    quality: float | None = None
    """Constant rate factor, smaller is better; None: 16 (h264), 18 (h265), 20 (vp9). Pictures (JPEG, WebP): 1..100,
    larger is better, None: 95. Unused by lossless codecs and ProRes."""
    preset: str = "medium"
    """One of PRESETS; unused by other codecs."""
    bit_depth: int | None = None
    """Bits per sample; None: the source's, at least 10 if that is HDR, or 8 without a source."""
    chroma: ChromaChoice = "auto"
    """Chroma resolution. auto: 4:2:0 where the size allows it, 4:4:4 otherwise, 4:2:2 for ProRes, R'G'B' or the
    source's own for FFV1."""
    rate: Fraction | None = None
    """Frames per second; None: the source's, or 24 without one."""
    copy_audio: bool = True
    copy_subtitles: bool = True
    overwrite: bool = False
    """Whether an existing file, or a sequence's existing pictures, may be replaced; they are only at the very end."""

    def __post_init__(self) -> None:
        if self.bit_depth is not None and not 8 <= self.bit_depth <= 16:
            raise InvalidArgumentError(f"bit_depth: expected 8 to 16, got {self.bit_depth}.")
        if self.quality is not None and not 0 <= self.quality <= 100:
            raise InvalidArgumentError(f"quality: expected 0 to 100, got {self.quality}.")
        if self.preset not in PRESETS:
            raise InvalidArgumentError(f"preset: expected one of {', '.join(PRESETS)}, got {self.preset!r}.")
        if self.rate is not None and self.rate <= 0:
            raise InvalidArgumentError(f"rate: expected more than 0 frames per second, got {self.rate}.")


@dataclass(frozen=True)
class Container:
    """One kind of output file."""

    muxer: str
    """FFmpeg's muxer."""
    codecs: tuple[str, ...]
    """The choices of `SinkOptions.codec` it takes, the default first."""
    audio_encoder: str
    """What audio becomes when its own codec does not fit in."""
    options: dict[str, str] = field(default_factory=dict)
    """Muxer options; with those of `unit_options` they make a file that is cut off at any moment playable."""

    def holds_alpha_of(self, codec: str) -> bool:
        """Whether alpha survives: VP9's is a second picture beside each packet, which only Matroska and WebM have."""
        return codec != "vp9" or self.muxer in ("matroska", "webm")

    @property
    def is_fragmented(self) -> bool:
        """Whether it is MP4 or MOV, which is written in fragments until it is complete."""
        return "movflags" in self.options

    def unit_options(self, rate: Fraction) -> dict[str, str]:
        """Muxer options that have every UNIT_FRAMES frames written to the file as soon as the encoder gives them.

        Measured in frames and not on the clock, so that the same frames give the same bytes.
        """
        unit_s = UNIT_FRAMES / rate
        unit_us = str(max(1, round(unit_s * 1_000_000)))
        # FFmpeg waits ten seconds of the clip for a packet of every stream, be it sound that has ended or subtitles.
        waiting = {"max_interleave_delta": unit_us}
        if self.is_fragmented:
            return {**waiting, "frag_duration": unit_us}
        return {**waiting, "cluster_time_limit": str(max(1, round(unit_s * 1000)))}


UNIT_FRAMES = 4
"""Frames of a fragment (MP4, MOV) or cluster (Matroska, WebM); a killed process loses those of the last one."""
MOST_LOOKAHEAD = 10
"""Frames that an encoder may hold back to decide on the others; a killed process loses them."""
_FRAME_THREADS = {"h264": 4, "h265": 2}
"""Frames that x264 and x265 work on at a time; x265 also works on the rows of each."""
# delay_moov keeps the offset between audio and video; hybrid files turn into ordinary ones when they are closed.
_FRAGMENTS = {"movflags": "+hybrid_fragmented+delay_moov", "flush_packets": "1"}
# Without bitexact, FFmpeg gives every file and each of its tracks a random identity.
_CLUSTERS = {"fflags": "+bitexact", "flush_packets": "1"}
CONTAINERS: dict[str, Container] = {
    ".mp4": Container("mp4", ("h264", "h265", "vp9"), "aac", _FRAGMENTS),
    ".m4v": Container("mp4", ("h264", "h265"), "aac", _FRAGMENTS),
    ".mov": Container("mov", ("h264", "h265", "prores"), "aac", _FRAGMENTS),
    ".mkv": Container("matroska", ("h264", "h265", "ffv1", "prores", "vp9"), "aac", _CLUSTERS),
    ".webm": Container("webm", ("vp9",), "libopus", _CLUSTERS),
}


@dataclass(frozen=True)
class VideoCodec:
    """One encoder of FFmpeg and what it can hold."""

    encoder: str
    depths: tuple[int, ...]
    chroma: tuple[str, ...]
    """The choices of `SinkOptions.chroma` it takes, the default first."""
    alpha_chroma: tuple[str, ...] = ()
    """Those that it can combine with an alpha plane."""
    default_quality: float | None = None


CODECS: dict[str, VideoCodec] = {
    "h264": VideoCodec("libx264", (8, 10), ("420", "422", "444"), default_quality=16),
    "h265": VideoCodec("libx265", (8, 10, 12), ("420", "422", "444"), default_quality=18),
    "ffv1": VideoCodec("ffv1", (8, 10, 12, 16), ("rgb", "444", "422", "420"), ("rgb", "444", "422", "420")),
    "prores": VideoCodec("prores_ks", (10,), ("422", "444"), ("444",)),
    "vp9": VideoCodec("libvpx-vp9", (8,), ("420", "422", "444"), ("420",), default_quality=20),
}


@dataclass(frozen=True)
class EncoderPlan:
    """Everything an encoder is told, and what of the request it could not follow."""

    encoder: str
    pix_fmt: str
    bit_depth: int
    has_alpha: bool
    color: ColorTags
    options: dict[str, str]
    warnings: tuple[str, ...] = ()


def container_for(path: Path) -> Container:
    """Return the container that the file name asks for; raises OutputError for an unknown ending."""
    try:
        return CONTAINERS[path.suffix.lower()]
    except KeyError as error:
        known = " ".join(sorted(CONTAINERS))
        raise OutputError(
            f"{path}: expected a name ending in {known}, or .png .jpg .webp .tiff, found "
            f"{path.suffix or 'no ending'!r}; rename the output."
        ) from error


def plan_encoder(path: Path, size: tuple[int, int], source: SourceInfo | None, options: SinkOptions) -> EncoderPlan:
    """Return the encoder settings for a clip of `size` (width, height); a pure function but for asking FFmpeg's build.

    Raises OutputError for a codec that does not fit the container or is not in this FFmpeg build, or a bit depth or
    chroma that the codec does not have.
    """
    container = container_for(path)
    name = _codec_name(container, source, options)
    if name not in container.codecs:
        raise OutputError(
            f"{path}: expected one of the codecs {', '.join(container.codecs)} in this kind of file, got {name}; "
            "choose one of them or another ending."
        )
    codec = CODECS[name]
    alpha = source is not None and source.has_alpha
    depth, depth_warning = _depth(name, source, options)
    chroma, chroma_warning = _chroma(name, size, source, options)
    alpha_warning = None
    if alpha and (chroma not in codec.alpha_chroma or not container.holds_alpha_of(name)):
        alpha = False
        advice = _alpha_advice(container, name)
        alpha_warning = f"{name} with {chroma} chroma holds no alpha; {alpha_of(source)} left out: {advice} to keep it."
    pix_fmt = _pix_fmt(chroma, depth, alpha)
    _require_encoder(codec.encoder, pix_fmt)
    return EncoderPlan(
        encoder=codec.encoder,
        pix_fmt=pix_fmt,
        bit_depth=depth,
        has_alpha=alpha,
        color=output_tags(size, source, is_rgb=chroma == "rgb"),
        options=with_hdr10(codec.encoder, _encoder_options(name, chroma, options), source),
        warnings=(
            *filter(None, (depth_warning, chroma_warning, alpha_warning, _profile_warning(path, source))),
            *hdr_losses(name, depth, source),
        ),
    )


def _alpha_advice(container: Container, name: str) -> str:
    """What would keep alpha: another chroma, else another codec, else another kind of file."""
    if CODECS[name].alpha_chroma and container.holds_alpha_of(name):
        return f"use chroma {CODECS[name].alpha_chroma[0]}"
    for codec in ("ffv1", "prores"):
        if codec in container.codecs:
            return f"use codec {codec}"
    return "write .mov with codec prores, .webm, or .mkv with codec ffv1"


def alpha_of(source: SourceInfo | None) -> str:
    """A source's alpha, as the subject of a sentence; only decoding all pictures would tell whether all are opaque."""
    is_sequence = source is not None and source.kind == "sequence"
    return "that of the pictures, where they are not opaque, is" if is_sequence else "it is"


def output_tags(size: tuple[int, int], source: SourceInfo | None, *, is_rgb: bool) -> ColorTags:
    """Return fully decided tags for an output.

    Y'CbCr keeps the matrix and range that the source was read with. R'G'B' sources, and none at all, become limited
    BT.709, or BT.2020 where the primaries are. Primaries and transfer are the source's; unspecified stays so.
    """
    tags = source.conversion if source is not None else ColorTags()
    if is_rgb:
        return ColorTags(ColorRange.FULL, Matrix.RGB, tags.primaries, tags.transfer)
    if tags.matrix in (Matrix.RGB, Matrix.UNSPECIFIED):
        matrix = Matrix.BT2020_NCL if tags.primaries == 9 else Matrix.BT709
        return ColorTags(ColorRange.LIMITED, matrix, tags.primaries, tags.transfer)
    return tags


def wanted_depth(source: SourceInfo | None) -> int:
    """Return the bits per sample that a source asks for: its own, and at least 10 for PQ and HLG."""
    if source is None:
        return 8
    return max(source.bit_depth, BANDING_BITS) if source.color.is_hdr else source.bit_depth


def _codec_name(container: Container, source: SourceInfo | None, options: SinkOptions) -> str:
    if options.codec != "auto":
        return options.codec
    depth = options.bit_depth or wanted_depth(source)
    return "h265" if depth > 8 and "h265" in container.codecs else container.codecs[0]


def _require_encoder(encoder: str, pix_fmt: str) -> None:
    try:
        formats = av.Codec(encoder, "w").video_formats or []
    except av.codec.codec.UnknownCodecError as error:
        raise OutputError(
            f"Encoder {encoder}: expected it in FFmpeg, found a build without it; choose another codec or install a "
            "PyAV wheel that has it."
        ) from error
    if pix_fmt not in {known.name for known in formats}:
        raise OutputError(
            f"Encoder {encoder}: expected it to take {pix_fmt}, found a build that does not; choose another bit depth "
            "or chroma."
        )


def _depth(name: str, source: SourceInfo | None, options: SinkOptions) -> tuple[int, str | None]:
    """The bit depth, and a warning if it is less than the source's."""
    depths = CODECS[name].depths
    if options.bit_depth is not None:
        if options.bit_depth not in depths:
            known = ", ".join(map(str, depths))
            raise OutputError(f"bit_depth {options.bit_depth}: {name} takes {known} bits; choose one of them.")
        return options.bit_depth, None
    wanted = wanted_depth(source)
    fitting = [depth for depth in depths if depth >= wanted]
    if fitting:
        return fitting[0], None
    if source is None or source.bit_depth <= depths[-1]:
        return depths[-1], None
    return depths[-1], f"The source has {wanted} bits per sample, {name} takes {depths[-1]}; use ffv1 to keep them."


def _chroma(
    name: str, size: tuple[int, int], source: SourceInfo | None, options: SinkOptions
) -> tuple[str, str | None]:
    """The chroma resolution, and a warning if the size forbids the usual one."""
    known = CODECS[name].chroma
    # FFV1 rounds odd sizes up by itself; the others would refuse or crop them.
    odd = {} if name == "ffv1" else {"420": size[0] % 2 or size[1] % 2, "422": size[0] % 2}
    if options.chroma != "auto":
        if options.chroma not in known:
            raise OutputError(f"chroma {options.chroma}: {name} takes {', '.join(known)}; choose one of them.")
        if odd.get(options.chroma):
            raise OutputError(
                f"chroma {options.chroma} needs an even size, got {size[0]}x{size[1]}; choose chroma 444 or an even "
                "size."
            )
        return options.chroma, None
    if name == "ffv1" and source is not None and source.conversion.matrix is not Matrix.RGB:
        return next((kind for kind in ("420", "422") if f"{kind}p" in source.pix_fmt), "444"), None
    if name in ("prores", "vp9") and source is not None and source.has_alpha:
        # The only kinds of theirs that hold alpha; libvpx takes odd sizes as well.
        return CODECS[name].alpha_chroma[0], None
    if odd.get(known[0]):
        return "444", f"{size[0]}x{size[1]} is odd, which {known[0]} chroma cannot hold; written as 4:4:4."
    return known[0], None


def _profile_warning(path: Path, source: SourceInfo | None) -> str | None:
    """A sentence about an ICC profile of pictures that a clip's colour tags cannot say."""
    profile = None if source is None or source.metadata is None else source.metadata.icc
    if profile is None or tags_of(profile) is not None:
        return None
    return (
        f"The pictures' colour profile ({name_of(profile)}) is left out, because {path.suffix} has no tags for it, so "
        "colours will look different; convert the pictures to sRGB or Display P3 first."
    )


def _pix_fmt(chroma: str, depth: int, alpha: bool) -> str:
    if chroma == "rgb" and depth == 8:
        return "bgra" if alpha else "bgr0"
    name = "gbr" if chroma == "rgb" else "yuv"
    planes = f"{name}{'a' if alpha else ''}{'' if chroma == 'rgb' else chroma}p"
    return planes if depth == 8 else f"{planes}{depth}le"


# Frames that the presets of x264 and x265 look ahead where MOST_LOOKAHEAD would be more; 10 is theirs and others'.
_SHORT_LOOKAHEAD = {"h264": {"ultrafast": 0, "superfast": 0}, "h265": {"ultrafast": 5}}


def _encoder_options(name: str, chroma: str, options: SinkOptions) -> dict[str, str]:
    """What each encoder is told.

    All of them are kept from holding many frames back, in lookahead and in threads that each work on a frame of their
    own: what a process holds is lost when it is killed, and at a frame a second that is minutes of work. The numbers
    are fixed, so that bytes depend neither on time nor on the machine's cores.
    """
    default = CODECS[name].default_quality
    quality = default if options.quality is None else options.quality
    lookahead = _SHORT_LOOKAHEAD.get(name, {}).get(options.preset, MOST_LOOKAHEAD)
    threads = _FRAME_THREADS.get(name)
    if name == "h264":
        # x264's mbtree reads memory that nobody wrote where AVX-512 is found; this takes its plain C in place of that.
        params = f"cpu-independent=1:threads={threads}:rc-lookahead={lookahead}:sync-lookahead=0"
        return {"crf": f"{quality:g}", "preset": options.preset, "x264-params": params}
    if name == "h265":
        params = f"log-level=none:frame-threads={threads}:rc-lookahead={lookahead}"
        return {"crf": f"{quality:g}", "preset": options.preset, "x265-params": params}
    if name == "vp9":
        speed = {"row-mt": "1", "cpu-used": "2", "deadline": "good"}
        return {"crf": f"{quality:.0f}", "b": "0", "lag-in-frames": str(MOST_LOOKAHEAD), **speed}
    if name == "ffv1":
        return {"level": "3", "g": "1", "slicecrc": "1"}
    return {"profile": "4444" if chroma == "444" else "hq", "vendor": "apl0"}
