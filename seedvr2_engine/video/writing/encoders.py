"""The encoders of clips: what each can hold, and what it is told."""

from __future__ import annotations

from dataclasses import dataclass

import av

from ...errors import OutputError
from .options import SinkOptions

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


ENCODERS: dict[str, Encoder] = {
    "h264": Encoder("libx264", (8, 10), ("420", "422", "444"), default_quality=16),
    "h265": Encoder("libx265", (8, 10, 12), ("420", "422", "444"), default_quality=18),
    "ffv1": Encoder("ffv1", (8, 10, 12, 16), ("rgb", "444", "422", "420"), ("rgb", "444", "422", "420")),
    "prores": Encoder("prores_ks", (10,), ("422", "444"), ("444",)),
    "vp9": Encoder("libvpx-vp9", (8,), ("420", "422", "444"), ("420",), default_quality=20),
}


def require_encoder(encoder: str, pix_fmt: str) -> None:
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


def encoder_options(name: str, chroma: str, options: SinkOptions) -> dict[str, str]:
    """What each encoder is told.

    All of them are kept from holding many frames back, in lookahead and in threads that each work on a frame of their
    own: what a process holds is lost when it is killed, and at a frame a second that is minutes of work. The numbers
    are fixed, so that bytes depend neither on time nor on the machine's cores.
    """
    default = ENCODERS[name].default_quality
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
