"""Which sound may be copied into which kind of file, and what it becomes where it may not.

A pair is listed where players accept it, which is less than FFmpeg's muxers do: PCM in MP4 is noise in some players,
Vorbis in MP4 and ADPCM in MOV are silence. WMA and ADPCM fit into Matroska in the way of AVI alone, which PyAV's
muxer refuses. FLAC and Opus in MP4 play in browsers, VLC, mpv and on Android and Apple
systems of the last years. What is not listed is encoded anew: without loss where it had none, else as AAC or Opus.
"""

from __future__ import annotations

from dataclasses import dataclass

import av

_PCM = frozenset(f"pcm_{kind}" for kind in ("s16le", "s16be", "s24le", "s24be", "s32le", "s32be", "f32le", "f64le"))
_APPLE = frozenset(("aac", "ac3", "eac3", "mp3", "alac"))
PLAYED: dict[str, frozenset[str]] = {
    "mp4": _APPLE | {"flac", "opus"},
    "mov": _APPLE | _PCM | {"pcm_f32be", "pcm_f64be", "pcm_u8", "pcm_s8", "pcm_alaw", "pcm_mulaw"},
    "matroska": _APPLE | _PCM | {"flac", "opus", "vorbis", "mp2", "dts", "truehd", "mlp", "tta", "wavpack", "pcm_u8"},
    "webm": frozenset(("opus", "vorbis")),
}
"""FFmpeg's muxer -> codecs that are copied."""

_LOSSLESS = frozenset(("flac", "alac", "tta", "wavpack", "truehd", "mlp", "ape", "tak", "shorten", "mp4als", "ralf"))
_LOWEST_MP3_RATE = 16000
"""MPEG-1 and MPEG-2 layer III; the lower rates of MPEG-2.5 are not standard in MP4."""

# The layouts that encoders and players agree on, smallest first. 5.1(side) and the like become the first that has
# a place for every channel; side channels take the places at the back where those are free.
_LAYOUTS: dict[str, tuple[str, ...]] = {
    "aac": ("mono", "stereo", "3.0", "4.0", "5.0", "5.1", "7.1"),
    "libopus": ("mono", "stereo", "3.0", "quad", "5.0", "5.1", "6.1", "7.1"),
    "alac": ("mono", "stereo", "3.0", "4.0", "5.0", "5.1"),
}
_MIXED_TO = "5.1"
"""What a layout of more than two channels becomes that has a place in none of these."""
# FFmpeg's names for layouts that only say how many channels there are.
_USUAL_LAYOUTS = {
    "1 channels": "mono",
    "2 channels": "stereo",
    "3 channels": "3.0",
    "4 channels": "quad",
    "5 channels": "5.0",
    "6 channels": "5.1",
    "7 channels": "6.1",
    "8 channels": "7.1",
}
_ALAC_BITS = 24
"""What FFmpeg's encoder keeps of 32 bits."""
BITS_PER_CHANNEL = 96_000
"""Bits per second and channel of sound that is encoded anew with loss."""


@dataclass(frozen=True)
class AudioTarget:
    """What sound becomes when it is encoded anew."""

    encoder: str
    layout: str
    sample_format: str
    rate: int
    """Samples per second."""
    bit_rate: int | None = None
    """Bits per second; None: every sample is kept, in as many bits as the encoder has."""
    kept_bits: int | None = None
    """Bits per sample that are left of more; None if all are kept, or none counted."""


def is_played(codec: str, muxer: str, rate: int) -> bool:
    """Whether players accept a codec at this sample rate in files of this muxer."""
    if codec == "mp3" and muxer in ("mp4", "mov") and rate < _LOWEST_MP3_RATE:
        return False
    return codec in PLAYED[muxer]


def is_lossless(codec: str) -> bool:
    """Whether a codec keeps every sample."""
    return codec.startswith("pcm_") or codec in _LOSSLESS


def usual_layout(layout: str) -> str:
    """The layout, or the usual one of as many channels: AVI and Matroska leave it open for PCM, MP4 insists on one."""
    return _USUAL_LAYOUTS.get(layout, layout)


def is_known_layout(layout: str) -> bool:
    """Whether FFmpeg can be told this layout by its name; some it describes in words only."""
    try:
        return av.AudioLayout(layout).nb_channels > 0
    except ValueError:
        return False


def audio_targets(muxer: str, codec: str, layout: str, sample_format: str, rate: int) -> list[AudioTarget]:
    """What sound may become in this muxer, the best first; sample_format is the decoder's, as FFmpeg names it."""
    packed = sample_format.rstrip("p") if sample_format != "fltp" else "flt"
    encoders = ["libopus"] if muxer == "webm" else ["aac"]
    if is_lossless(codec) and muxer != "webm":
        encoders.insert(0, "alac" if muxer == "mp4" else _pcm_encoder(codec, packed))
    targets = [_target(encoder, codec, usual_layout(layout), packed, rate) for encoder in encoders]
    return [target for target in targets if target is not None]


def _target(encoder: str, codec: str, layout: str, packed: str, rate: int) -> AudioTarget | None:
    try:
        known = av.Codec(encoder, "w")
    except av.codec.codec.UnknownCodecError:
        return None
    rate = _nearest_rate(rate, known.audio_rates)
    if encoder.startswith("pcm_"):
        return AudioTarget(encoder, layout, _formats(known)[0], rate)
    fitting = _fitting_layout(layout, _LAYOUTS[encoder])
    if encoder == "alac":
        # More channels than it has places for stay apart in AAC.
        if fitting is None:
            return None
        kept_bits = _ALAC_BITS if packed in ("flt", "dbl", "s64") or "32" in codec else None
        return AudioTarget(encoder, fitting, "s16p" if packed in ("u8", "s16") else "s32p", rate, kept_bits=kept_bits)
    fitting = fitting or ("stereo" if av.AudioLayout(layout).nb_channels <= 2 else _MIXED_TO)
    bits = min(BITS_PER_CHANNEL, 6 * rate) * av.AudioLayout(fitting).nb_channels
    sample_format = "flt" if "flt" in _formats(known) else _formats(known)[0]
    return AudioTarget(encoder, fitting, sample_format, rate, bits)


def _pcm_encoder(codec: str, packed: str) -> str:
    if packed == "s32":
        return "pcm_s32le" if "32" in codec else "pcm_s24le"
    return {"flt": "pcm_f32le", "dbl": "pcm_f64le", "s64": "pcm_s32le"}.get(packed, "pcm_s16le")


def _formats(codec: av.Codec) -> list[str]:
    return [known.name for known in codec.audio_formats or []]


def _nearest_rate(rate: int, rates: list[int] | None) -> int:
    """The lowest rate that loses nothing, or the highest there is."""
    if not rates or rate in rates:
        return rate
    return min((known for known in rates if known > rate), default=max(rates))


def _fitting_layout(layout: str, known: tuple[str, ...]) -> str | None:
    wanted = _channels(layout)
    return next((name for name in known if wanted <= _channels(name)), None)


def _channels(layout: str) -> set[str]:
    names = {channel.name for channel in av.AudioLayout(layout).channels}
    if not names & {"BL", "BR"}:
        names = {{"SL": "BL", "SR": "BR"}.get(name, name) for name in names}
    return names
