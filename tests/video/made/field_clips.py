"""Moving pictures, the ways television weaves them into fields, and film marked for soft pulldown."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from .clips import rgb_frame

NTSC = Fraction(30000, 1001)
FILM = Fraction(24000, 1001)


def texture(width: int = 160, height: int = 96, seed: int = 3) -> np.ndarray:
    """(height, width) uint8 with detail at every size, as photographs have it."""
    rng = np.random.default_rng(seed)
    spectrum = np.fft.rfft2(rng.normal(size=(height, width)))
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    values = np.fft.irfft2(spectrum / np.maximum(radius, 1 / height) ** 1.2, (height, width))
    values -= values.min()
    return (values / values.max() * 235 + 10).astype(np.uint8)


def moving(count: int, step: int = 4, width: int = 128, height: int = 96) -> list[np.ndarray]:
    """`count` moments, (height, width, 3) uint8: a detailed picture that runs to the left by `step` pixels a moment."""
    picture = texture(width + step * count, height)
    return [np.repeat(picture[:, step * i : step * i + width, None], 3, axis=2) for i in range(count)]


def woven(first: np.ndarray, second: np.ndarray, *, top_first: bool = True) -> np.ndarray:
    """One frame of two moments, the first in the field that `top_first` names."""
    frame = first.copy()
    frame[int(top_first) :: 2] = second[int(top_first) :: 2]
    return frame


def interlaced(moments: Sequence[np.ndarray], *, top_first: bool = True) -> list[np.ndarray]:
    """Frames of two moments each."""
    return [woven(moments[i], moments[i + 1], top_first=top_first) for i in range(0, len(moments) - 1, 2)]


def telecined(
    film: Sequence[np.ndarray], pattern: Sequence[int] = (2, 3), *, top_first: bool = True
) -> list[np.ndarray]:
    """Film frames held for as many fields as `pattern` says in turn, woven to frames."""
    fields = [index for index in range(len(film)) for _ in range(pattern[index % len(pattern)])]
    return [woven(film[a], film[b], top_first=top_first) for a, b in zip(fields[::2], fields[1::2], strict=False)]


def soft_telecined(path: Path, film: Sequence[np.ndarray], *, from_frame: int = 0) -> Path:
    """MPEG-2 film frames with repeat-first-field marks from `from_frame` on, plain 29.97 frames before it.

    FFmpeg's encoder sets no such marks, so they are put into its bits (ISO/IEC 13818-2, 6.2.2.3 and 6.2.3.1).
    """
    starts = np.cumsum([0, *(2 if i < from_frame else 3 - (i - from_frame) % 2 for i in range(len(film)))]).tolist()
    with av.open(str(path), "w") as output:
        stream = output.add_stream("mpeg2video", rate=NTSC, options={"bf": "0", "g": "12", "qscale": "2"})
        stream.width, stream.height, stream.pix_fmt = film[0].shape[1], film[0].shape[0], "yuv420p"
        stream.codec_context.qmin = stream.codec_context.qmax = 2
        packets: list[av.Packet] = []
        for index, picture in enumerate(film):
            frame = rgb_frame(picture, "yuv420p")
            frame.pts, frame.time_base = index, 1 / NTSC
            packets += stream.encode(frame)
        packets += stream.encode(None)
        for index, packet in enumerate(packets):
            marked = av.Packet(_marked(bytes(packet), None if index < from_frame else (index - from_frame) % 4))
            marked.stream, marked.time_base = stream, 1 / NTSC / 2
            marked.pts = marked.dts = starts[index]
            marked.duration = starts[index + 1] - starts[index]
            marked.is_keyframe = packet.is_keyframe
            output.mux(marked)
    return path


def _marked(data: bytes, place: int | None) -> bytes:
    """The coded picture with its field marks for its place in the cycle, its sequence called interlaced."""
    coded = bytearray(data)
    at = coded.find(b"\x00\x00\x01\xb5")
    while at >= 0:
        kind = coded[at + 4] >> 4
        if kind == 1:
            coded[at + 5] &= ~0x08  # progressive_sequence
        elif kind == 8:
            top, repeat = {None: (1, 0), 0: (1, 1), 1: (0, 0), 2: (0, 1), 3: (1, 0)}[place]
            coded[at + 7] = coded[at + 7] & 0x7D | top << 7 | repeat << 1
        at = coded.find(b"\x00\x00\x01\xb5", at + 4)
    return bytes(coded)


def write_flagged(path: Path, frames: Sequence[np.ndarray], *, top_first: bool = True, rate: Fraction = NTSC) -> Path:
    """MPEG-2 whose frames are coded and flagged as interlaced, whatever they show."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream("mpeg2video", rate=rate, options={"flags": "+ildct+ilme", "bf": "0"})
        stream.width, stream.height, stream.pix_fmt = frames[0].shape[1], frames[0].shape[0], "yuv420p"
        stream.codec_context.qmin = stream.codec_context.qmax = 2
        graph = av.filter.Graph()
        source = graph.add_buffer(width=stream.width, height=stream.height, format="yuv420p", time_base=1 / rate)
        graph.link_nodes(source, graph.add("setfield", "tff" if top_first else "bff"), graph.add("buffersink"))
        graph.configure()
        for index, picture in enumerate(frames):
            frame = rgb_frame(picture, "yuv420p")
            frame.pts, frame.time_base = index, 1 / rate
            graph.vpush(frame)
            output.mux(stream.encode(graph.vpull()))
        output.mux(stream.encode(None))
    return path
