"""The encoders of clips: what each can hold, and what it is told."""

from __future__ import annotations

import os
from dataclasses import dataclass
from fractions import Fraction

import av

from ...errors import OutputError
from .options import NVENC, PRESETS, SinkOptions

MOST_LOOKAHEAD = 10
"""Frames that an encoder may hold back to decide on the others; a killed process loses them."""
_FRAME_THREADS = {"h264": 4, "h265": 2}
"""Frames that x264 and x265 work on at a time; x265 also works on the rows of each."""
# Frames that the presets of x264 and x265 look ahead where MOST_LOOKAHEAD would be more; 10 is theirs and others'.
_SHORT_LOOKAHEAD = {"h264": {"ultrafast": 0, "superfast": 0}, "h265": {"ultrafast": 5}}


@dataclass(frozen=True)
class Encoder:
    """One encoder of FFmpeg and what it can hold."""

    encoder: str
    depths: tuple[int, ...]
    chroma: tuple[str, ...]
    """The choices of `SinkOptions.chroma` it takes, the default first."""
    alpha_chroma: tuple[str, ...] = ()
    """Those that it can combine with an alpha plane."""
    default_quality: float | None = None
    qualities: tuple[float, float] = (0, 100)
    """The least and the largest quality it takes."""


ENCODERS: dict[str, Encoder] = {
    "h264": Encoder("libx264", (8, 10), ("420", "422", "444"), default_quality=16),
    "h265": Encoder("libx265", (8, 10, 12), ("420", "422", "444"), default_quality=18),
    "ffv1": Encoder("ffv1", (8, 10, 12, 16), ("rgb", "444", "422", "420"), ("rgb", "444", "422", "420")),
    "prores": Encoder("prores_ks", (10,), ("422", "444"), ("444",)),
    "vp9": Encoder("libvpx-vp9", (8,), ("420", "422", "444"), ("420",), default_quality=20),
    "av1": Encoder("libsvtav1", (8, 10), ("420",), default_quality=22, qualities=(1, 63)),
    # A quality of 0 would leave it to NVENC.
    "h264_nvenc": Encoder("h264_nvenc", (8,), ("420",), default_quality=19, qualities=(1, 51)),
    "hevc_nvenc": Encoder("hevc_nvenc", (8, 10), ("420",), default_quality=21, qualities=(1, 51)),
    "av1_nvenc": Encoder("av1_nvenc", (8, 10), ("420",), default_quality=25, qualities=(1, 63)),
}
_AV1_PRESETS = dict(zip(PRESETS, (9, 9, 9, 8, 8, 7, 6, 5, 4, 2), strict=True))
_NVENC_PRESETS = dict(zip(PRESETS, ("p1", "p1", "p2", "p3", "p4", "p5", "p6", "p6", "p7", "p7"), strict=True))
# Pictures of 8 frames depend on each other, and nothing looks further. SVT-AV1 gives the same bytes with any lp, which
# says how many pictures it works on at a time: the bytes would be the same, the frames that a kill loses would not.
_AV1_PARAMS = "lp=2:lookahead=0:hierarchical-levels=3"

_SOFTWARE = {"h264_nvenc": "h264", "hevc_nvenc": "h265", "av1_nvenc": "av1"}
# What FFmpeg logs, and what it means; the first that is found.
_REASONS = (
    ("Cannot load libcuda", "an NVIDIA driver", "none"),
    ("Cannot load nvcuda", "an NVIDIA driver", "none"),
    ("Cannot load", "the driver's encoding library", "none"),
    ("required nvenc API version", "a newer NVIDIA driver", "one that is too old for this FFmpeg"),
    ("Width", "a size that the GPU's encoder takes", "{width}x{height}"),
    ("Height", "a size that the GPU's encoder takes", "{width}x{height}"),
    ("MB count", "a size that the GPU's encoder takes", "{width}x{height}"),
    ("dimensions less than", "a size that the GPU's encoder takes", "{width}x{height}"),
    ("10 bit", "a GPU that encodes 10 bits in this codec", "one that does not"),
    ("incompatible client key", "a free encoder", "as many in use as the driver allows"),
    ("Codec not supported", "a GPU that encodes this codec", "one that does not"),
    ("unsupported device", "a GPU with an encoder", "one without"),
    ("No capable devices", "a GPU that encodes this", "none"),
)


def require_encoder(encoder: str, pix_fmt: str) -> None:
    try:
        formats = av.Codec(encoder, "w").video_formats or []
    except av.codec.codec.UnknownCodecError as error:
        raise OutputError(
            f"Encoder {encoder}: expected it in FFmpeg, found a build without it; choose another codec or install a "
            "PyAV wheel that has it."
        ) from error
    if encoder == "libsvtav1":
        # Else it tells its settings on standard error; read by its library, and by nothing else.
        os.environ.setdefault("SVT_LOG", "1")
    if pix_fmt not in {known.name for known in formats}:
        raise OutputError(
            f"Encoder {encoder}: expected it to take {pix_fmt}, found a build that does not; choose another bit depth "
            "or chroma."
        )


def require_hardware(encoder: str, size: tuple[int, int], pix_fmt: str, options: dict[str, str]) -> None:
    """Open an encoder once as it will be used, and close it; size: (width, height). Raises OutputError."""
    context = av.CodecContext.create(encoder, "w")
    assert isinstance(context, av.VideoCodecContext)
    context.width, context.height = size
    context.pix_fmt = pix_fmt
    context.time_base = Fraction(1, 24)
    context.framerate = Fraction(24)
    context.options = dict(options)
    level = av.logging.get_level()
    av.logging.set_level(av.logging.ERROR)
    try:
        with av.logging.Capture() as logs:
            context.open()
    except av.FFmpegError as error:
        told = [message.strip() for _, _, message in logs]
        raise OutputError(_sentence(encoder, size, told, str(error.strerror))) from error
    finally:
        av.logging.set_level(level)


def _sentence(encoder: str, size: tuple[int, int], told: list[str], error: str) -> str:
    """One sentence of what FFmpeg has logged; where that is not known, with its own last words."""
    text = "\n".join(told)
    wanted, found = "an encoder that opens", told[-1].rstrip(".") if told else error
    for mark, needed, had in _REASONS:
        if mark in text:
            wanted, found = needed, had.format(width=size[0], height=size[1])
            break
    return f"Encoder {encoder}: expected {wanted}, found {found}; use --codec {_SOFTWARE[encoder]}."


def encoder_options(name: str, chroma: str, options: SinkOptions) -> dict[str, str]:
    """What each encoder is told.

    All of them are kept from holding many frames back, in lookahead and in threads that each work on a frame of their
    own: what a process holds is lost when it is killed, and at a frame a second that is minutes of work. The numbers
    are fixed, so that bytes depend neither on time nor on the machine's cores.
    """
    default = ENCODERS[name].default_quality
    quality = default if options.quality is None else options.quality
    if quality is not None:
        least, most = ENCODERS[name].qualities
        if not least <= quality <= most:
            raise OutputError(f"quality {quality:g}: {name} takes {least:g} to {most:g}; choose one of them.")
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
    if name == "av1":
        preset = str(_AV1_PRESETS[options.preset])
        return {"crf": f"{quality:.0f}", "preset": preset, "g": "240", "svtav1-params": _AV1_PARAMS}
    if name in NVENC:
        # Without b=0, FFmpeg aims at its usual rate; without a delay of 0 it holds as many frames as it has room for.
        rate = {"rc": "vbr", "cq": f"{quality:g}", "b": "0", "tune": "hq", "spatial-aq": "1"}
        held = {"rc-lookahead": str(MOST_LOOKAHEAD), "delay": "0", "g": "250"}
        return {"preset": _NVENC_PRESETS[options.preset], **rate, **held}
    if name == "ffv1":
        return {"level": "3", "g": "1", "slicecrc": "1"}
    return {"profile": "4444" if chroma == "444" else "hq", "vendor": "apl0"}
