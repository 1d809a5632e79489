"""Clips with sound of every codec that this FFmpeg build writes, and what is heard in them; PyAV alone."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np

SILENT_S = 0.3
"""The tone begins so long after the sound."""
TONE_S = 0.7
RATES = (48000, 44100, 22050, 16000, 8000)
HOLDERS = (("matroska", ".mkv"), ("mov", ".mov"), ("avi", ".avi"), ("asf", ".wmv"), ("nut", ".nut"), ("vob", ".vob"))
_BIT_RATES = {"g723_1": 6300, "wmav1": 128_000, "wmav2": 128_000}
NO_SOUND = frozenset(("anull", "comfortnoise"))
"""Encoders of nothing: one for tests of FFmpeg's own, one for the noise of quiet telephone lines."""


def audio_encoders() -> list[str]:
    """Every audio encoder of this build."""
    names = []
    for name in sorted(av.codecs_available):
        try:
            codec = av.Codec(name, "w")
        except ValueError:
            continue
        if codec.type == "audio" and name not in NO_SOUND:
            names.append(name)
    return names


def samples_of(rate: int, layout: str, hertz: float = 440.0) -> np.ndarray:
    """(channels, samples) float32: silence, then a tone, a little higher in each channel."""
    channels = av.AudioLayout(layout).nb_channels
    time = np.arange(round(rate * (SILENT_S + TONE_S))) / rate
    tones = [np.sin(2 * np.pi * (hertz + 40 * i) * time) * 0.4 for i in range(channels)]
    return (np.stack(tones) * (time >= SILENT_S)).astype(np.float32)


def write_sound(
    path: Path,
    encoder: str,
    *,
    muxer: str | None = None,
    layout: str = "stereo",
    rate: int = 48000,
    start_s: float = 0.0,
    video_s: float = 0.0,
    copies: int = 1,
    options: dict[str, str] | None = None,
) -> Path:
    """A clip of 25 tiny frames, the first at `video_s`, with `copies` streams of sound that begin at `start_s`."""
    with av.open(str(path), "w", format=muxer, options={"strict": "-2", **(options or {})}) as output:
        video = output.add_stream("mpeg4", rate=25)
        video.width, video.height, video.pix_fmt = 16, 16, "yuv420p"
        sounds = [output.add_stream(encoder, rate=rate, options={"strict": "-2"}) for _ in range(copies)]
        for sound in sounds:
            sound.codec_context.layout = layout
            sound.codec_context.bit_rate = _BIT_RATES.get(encoder, 0)
        output.start_encoding()
        for index in range(25):
            frame = av.VideoFrame.from_ndarray(np.full((16, 16, 3), index * 9, np.uint8), "rgb24")
            frame = frame.reformat(format="yuv420p")
            frame.pts, frame.time_base = index + round(video_s * 25), Fraction(1, 25)
            output.mux(video.encode(frame))
        output.mux(video.encode(None))
        for number, sound in enumerate(sounds):
            # Packed, since PyAV miscounts the planes of eight channels.
            samples = samples_of(rate, layout, 440.0 * (number + 1)).T.reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), "flt", layout)
            frame.sample_rate, frame.pts, frame.time_base = rate, round(start_s * rate), Fraction(1, rate)
            size = sound.codec_context.frame_size or 1024
            resampler = av.AudioResampler(sound.codec_context.format, layout, rate, size)
            for part in [*resampler.resample(frame), *resampler.resample(None)]:
                output.mux(sound.encode(part))
            output.mux(sound.encode(None))
    return path


def clip_with(folder: Path, encoder: str, **how) -> tuple[Path, int] | None:
    """A clip with sound of this encoder in the first container and at the first rate that take it; None if none do."""
    rates = av.Codec(encoder, "w").audio_rates or RATES
    for muxer, ending in HOLDERS:
        for layout in ("stereo", "mono"):
            for rate in [rate for rate in RATES if rate in rates]:
                path = folder / f"{encoder}{ending}"
                try:
                    write_sound(path, encoder, muxer=muxer, layout=layout, rate=rate, **how)
                    found = heard(path)
                    if found.peak > 0.1 and found.rises and abs(found.length_s - SILENT_S - TONE_S) < 0.1:
                        return path, rate
                except (av.FFmpegError, ValueError, OSError, StopIteration, IndexError):
                    continue
    return None


@dataclass(frozen=True)
class Heard:
    """What a player would make of a stream of sound."""

    codec: str
    layout: str
    rate: int
    start_s: float
    """Where the first sample stands, against the first picture."""
    tone_s: float
    """Where the tone begins, against the first picture."""
    length_s: float
    level: float
    """Root mean square."""
    peak: float
    rises: bool
    """Whether every frame comes after the one before."""
    samples: np.ndarray
    """(channels, samples) float32"""


def heard(path: Path, number: int = 0) -> Heard:
    """Decode one stream of sound."""
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        picture_s = float(frame.pts * frame.time_base)
    with av.open(str(path)) as container:
        stream = container.streams.audio[number]
        context = stream.codec_context
        frames = []
        for packet in container.demux(stream):
            try:
                frames += packet.decode()
            except av.error.InvalidDataError:
                continue
        name, rate = context.name, context.sample_rate
    frames = [frame for frame in frames if frame.samples]
    times: list[float] = []
    for index, frame in enumerate(frames):
        follows = times[-1] + frames[index - 1].samples / rate if times else 0.0
        times.append(follows if frame.pts is None else float(frame.pts * frame.time_base))
    samples = np.concatenate([_floats(frame) for frame in frames], axis=1)
    envelope = np.abs(samples).max(0)
    onset = int(np.argmax(envelope > 0.3 * envelope.max()))
    return Heard(
        codec=name,
        layout=frames[0].layout.name,
        rate=rate,
        start_s=times[0] - picture_s,
        tone_s=times[0] - picture_s + onset / rate,
        length_s=samples.shape[1] / rate,
        level=float(np.sqrt(np.mean(samples**2))),
        peak=float(envelope.max()),
        rises=all(later > earlier for earlier, later in pairwise(times)),
        samples=samples,
    )


def _floats(frame: av.AudioFrame) -> np.ndarray:
    packed = av.AudioResampler(format="flt").resample(frame)[0]
    return packed.to_ndarray().reshape(-1, packed.layout.nb_channels).T
