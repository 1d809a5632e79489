"""Small clips made with PyAV alone, so that the reader is not tested against the writer only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from seedvr2_engine.video import ColorTags


@dataclass(frozen=True)
class ClipSpec:
    """How a test clip is encoded."""

    codec: str = "ffv1"
    pix_fmt: str = "bgr0"
    rate: Fraction = Fraction(25)
    time_base: Fraction | None = None
    pts: Sequence[int] | None = None
    tags: ColorTags | None = None
    audio: str | None = None
    audio_start_s: Fraction = Fraction(0)
    audio_s: float = 1.0
    audio_rate: int = 48000
    options: dict[str, str] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    aspect: Fraction | None = None


def frame_of(pix_fmt: str, planes: Sequence[np.ndarray]) -> av.VideoFrame:
    """A frame with exactly these planes of code values, (h,w) each, or (h,w*channels) for a packed format."""
    components = len(planes)
    height, width = planes[0].shape
    packed = {"rgb24": 3, "bgr24": 3, "rgba": 4, "bgr0": 4, "bgra": 4, "rgb48be": 3, "rgba64be": 4, "ya8": 2}
    frame = av.VideoFrame(width // packed.get(pix_fmt, 1), height, pix_fmt)
    assert len(frame.planes) == components
    for plane, values in zip(frame.planes, planes, strict=True):
        kind = np.dtype(">u2" if pix_fmt.endswith("be") else values.dtype)
        rows = np.frombuffer(memoryview(plane), dtype=kind).reshape(plane.height, -1)
        rows[:, : values.shape[1]] = values
    return frame


def rgb_frame(rgb: np.ndarray, pix_fmt: str = "bgr0") -> av.VideoFrame:
    """A frame from (H,W,3) uint8; exact for R'G'B' formats, through swscale for the others."""
    frame = av.VideoFrame.from_ndarray(rgb, "rgb24")
    return frame if pix_fmt == "rgb24" else frame.reformat(format=pix_fmt, threads=1)


def ramp(index: int = 0, width: int = 64, height: int = 48) -> np.ndarray:
    """(H,W,3) uint8: two gradients, and a value that names the frame."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack((x * 255 // (width - 1), y * 255 // (height - 1), np.full_like(x, index * 5 % 256)), -1).astype(
        np.uint8
    )


def noise(count: int, width: int = 64, height: int = 48) -> list[np.ndarray]:
    rng = np.random.default_rng(7)
    return [rng.integers(0, 256, (height, width, 3), dtype=np.uint8) for _ in range(count)]


def write_clip(path: Path, frames: Sequence[np.ndarray | av.VideoFrame], spec: ClipSpec | None = None) -> Path:
    """Encode frames, arrays of (H,W,3) uint8 or ready ones, and a rising tone if `spec` names an audio codec."""
    spec = spec or ClipSpec()
    ready = [f if isinstance(f, av.VideoFrame) else rgb_frame(f, spec.pix_fmt) for f in frames]
    with av.open(str(path), "w") as output:
        output.metadata.update(spec.metadata)
        stream = output.add_stream(spec.codec, rate=spec.rate, options=spec.options)
        stream.width, stream.height, stream.pix_fmt = ready[0].width, ready[0].height, spec.pix_fmt
        stream.codec_context.time_base = spec.time_base or 1 / spec.rate
        if spec.aspect:
            stream.codec_context.sample_aspect_ratio = spec.aspect
        if spec.tags:
            stream.codec_context.color_range = int(spec.tags.range)
            stream.codec_context.colorspace = int(spec.tags.matrix)
            stream.codec_context.color_primaries = spec.tags.primaries
            stream.codec_context.color_trc = spec.tags.transfer
        audio = output.add_stream(spec.audio, rate=spec.audio_rate) if spec.audio else None
        for index, frame in enumerate(ready):
            frame.pts = spec.pts[index] if spec.pts else index
            frame.time_base = spec.time_base or 1 / spec.rate
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
        if audio is not None:
            _encode_sweep(output, audio, spec)
    return path


def _encode_sweep(output: av.container.OutputContainer, stream: av.AudioStream, spec: ClipSpec) -> None:
    time = np.arange(int(spec.audio_rate * spec.audio_s)) / spec.audio_rate
    samples = np.stack([np.sin(2 * np.pi * (440 * time + 300 * time**2)) * 0.3] * 2).astype(np.float32)
    frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="stereo")
    frame.sample_rate = spec.audio_rate
    frame.pts = round(spec.audio_start_s * spec.audio_rate)
    frame.time_base = Fraction(1, spec.audio_rate)
    resampler = av.AudioResampler(
        stream.codec_context.format, "stereo", spec.audio_rate, stream.codec_context.frame_size or 1024
    )
    for part in [*resampler.resample(frame), *resampler.resample(None)]:
        output.mux(stream.encode(part))
    output.mux(stream.encode(None))


def packets_of(path: Path, kind: str) -> list[av.Packet]:
    """All packets of the first stream of a kind, in the order of the file."""
    with av.open(str(path)) as container:
        stream = next(s for s in container.streams if s.type == kind)
        return [packet for packet in container.demux(stream) if packet.size]
