"""One stream of sound, decoded, laid out on a clock of samples, and encoded anew."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import av
import numpy as np

from ..timing import Placed
from .table import AudioTarget, usual_layout

# Times in files are rounded, to 1 ms in Matroska and to a frame in AVI; what is further off is a gap or an overlap.
_TOLERANCE_S = Fraction(1, 40)
# Two recordings in one file begin anew; that is no overlap.
_LONGEST_OVERLAP_S = 1
_CHUNK_SAMPLES = 1024


class AudioEncoder:
    """Keeps sound in step: gaps become silence, overlaps are cut, times count samples and nothing else."""

    def __init__(self, output: av.container.OutputContainer, source: av.AudioStream, target: AudioTarget) -> None:
        stream = output.add_stream(target.encoder, rate=target.rate)
        assert isinstance(stream, av.AudioStream)
        self.stream = stream
        self._target = target
        self._source = source.codec_context
        name = self._source.layout.name
        if not self._source.is_open and usual_layout(name) != name:
            self._source.layout = usual_layout(name)
        configure(stream.codec_context, target)
        self._resampler: av.AudioResampler | None = None
        self._kind: tuple[str, str, int] | None = None
        self._fifo = av.AudioFifo()
        self._begin_s = Fraction(0)
        self._end_s: Fraction | None = None
        self._trusted_until_s: Fraction | None = None
        self._clock_s: Fraction | None = None
        self._written = 0

    def start(self, begin_s: Fraction | None, trusted_until_s: Fraction) -> None:
        """Cut the sound, to the sample, at `begin_s` of the output.

        Sound that claims to come after a gap and later than `trusted_until_s`, the end of the picture, is not believed
        and follows what was before it: a wrong time would become hours of silence.
        """
        self._begin_s = self._begin_s if begin_s is None else begin_s
        self._trusted_until_s = trusted_until_s

    def end(self, end_s: Fraction) -> None:
        """Cut the sound, to the sample, at this time of the output."""
        self._end_s = end_s

    def packets(self, placed: Placed) -> list[av.Packet[Any]]:
        """Encode what a packet holds; raises av.FFmpegError if it cannot be decoded."""
        packets: list[av.Packet[Any]] = []
        for frame in self._source.decode(placed.packet):
            packets += self._add(frame, placed.shift_s)
        return packets

    def finish(self) -> list[av.Packet[Any]]:
        """Encode what is left."""
        packets: list[av.Packet[Any]] = []
        for frame in self._flushed():
            packets += self._add(frame, None)
        self._drain()
        packets += self._encoded(partial=True)
        return packets + self.stream.encode(None)

    def _flushed(self) -> list[av.AudioFrame]:
        try:
            return self._source.decode(None)
        except av.FFmpegError:
            return []

    def _add(self, frame: av.AudioFrame, shift_s: Fraction | None) -> list[av.Packet[Any]]:
        """Place a decoded frame on the clock of samples; without `shift_s` it follows the one before."""
        if frame.samples == 0:
            return []
        rate = frame.sample_rate
        if frame.layout.name != usual_layout(frame.layout.name):
            frame.layout = usual_layout(frame.layout.name)
        time_s = self._begin_s if self._clock_s is None else self._clock_s
        if frame.pts is not None and frame.time_base is not None and shift_s is not None:
            time_s = frame.pts * frame.time_base - shift_s
        time_s = self._believed(time_s)
        packets: list[av.Packet[Any]] = []
        # A packet that begins before the end may hold frames that lie behind it.
        until_s = time_s if self._end_s is None else min(time_s, self._end_s)
        if self._clock_s is not None and until_s > self._clock_s:
            packets += self._silence(frame, round((until_s - self._clock_s) * rate))
        # Only cut here: what lies before the beginning, and what the sound before already covers.
        begin_s = max(self._begin_s, self._clock_s) if self._clock_s is not None else self._begin_s
        skipped = min(frame.samples, max(0, round((begin_s - time_s) * rate)))
        kept = frame.samples - skipped
        if self._end_s is not None:
            kept = min(kept, max(0, round((self._end_s - time_s) * rate) - skipped))
        if kept == 0:
            return packets
        if self._clock_s is None:
            self._clock_s = max(time_s, begin_s)
            self._written = round(self._clock_s * self._target.rate)
        return packets + self._push(part_of(frame, skipped, kept))

    def _believed(self, time_s: Fraction) -> Fraction:
        """The time of sound, or the clock's where that is close to it or more likely."""
        clock_s = self._clock_s
        if clock_s is None:
            return time_s
        is_close = abs(time_s - clock_s) <= _TOLERANCE_S
        is_far_back = time_s < clock_s - _LONGEST_OVERLAP_S
        is_too_late = self._trusted_until_s is not None and time_s > max(self._trusted_until_s, clock_s)
        return clock_s if is_close or is_far_back or is_too_late else time_s

    def _silence(self, like: av.AudioFrame, samples: int) -> list[av.Packet[Any]]:
        packets: list[av.Packet[Any]] = []
        while samples > 0:
            count = min(samples, _CHUNK_SAMPLES)
            packets += self._push(silent_frame(like.format.name, like.layout.name, like.sample_rate, count))
            samples -= count
        return packets

    def _push(self, frame: av.AudioFrame) -> list[av.Packet[Any]]:
        assert self._clock_s is not None
        kind = (frame.format.name, frame.layout.name, frame.sample_rate)
        if kind != self._kind:
            # Broadcasts change between stereo and 5.1 in mid-stream.
            self._drain()
            self._resampler, self._kind = resampler_for(self._target), kind
        frame.pts = round(self._clock_s * frame.sample_rate)
        frame.time_base = Fraction(1, frame.sample_rate)
        self._clock_s += Fraction(frame.samples, frame.sample_rate)
        assert self._resampler is not None
        self._store(self._resampler.resample(frame))
        return self._encoded(partial=False)

    def _drain(self) -> None:
        if self._resampler is not None:
            self._store(self._resampler.resample(None))

    def _store(self, frames: list[av.AudioFrame]) -> None:
        for frame in frames:
            if frame is not None and frame.samples:
                frame.pts = None
                self._fifo.write(frame)

    def _encoded(self, *, partial: bool) -> list[av.Packet[Any]]:
        size = self.stream.codec_context.frame_size or _CHUNK_SAMPLES
        packets: list[av.Packet[Any]] = []
        while (frame := self._fifo.read(size, partial=partial)) is not None:
            frame.pts, frame.time_base = self._written, Fraction(1, self._target.rate)
            self._written += frame.samples
            packets += self.stream.encode(frame)
        return packets


def configure(context: av.AudioCodecContext, target: AudioTarget) -> None:
    """Set an encoder that is not open yet."""
    context.layout = target.layout
    context.format = target.sample_format
    context.sample_rate = target.rate
    context.time_base = Fraction(1, target.rate)
    if target.bit_rate is not None:
        context.bit_rate = target.bit_rate


def resampler_for(target: AudioTarget) -> av.AudioResampler:
    """What turns any sound into the encoder's format, layout and rate."""
    return av.AudioResampler(format=target.sample_format, layout=target.layout, rate=target.rate)


def silent_frame(sample_format: str, layout: str, rate: int, samples: int) -> av.AudioFrame:
    """Silence; unsigned samples rest at half their range."""
    wanted = av.AudioFormat(sample_format)
    # PyAV miscounts the planes of eight and more channels, so only packed samples, which have one, are touched.
    frame = av.AudioFrame(wanted.packed.name, layout, samples)
    frame.sample_rate = rate
    value = 0x80 if wanted.packed.name == "u8" else 0
    np.frombuffer(memoryview(frame.planes[0]), np.uint8)[:] = value
    return av.AudioResampler(format=sample_format).resample(frame)[0] if wanted.is_planar else frame


def part_of(frame: av.AudioFrame, skipped: int, kept: int) -> av.AudioFrame:
    """`kept` samples of a frame, after the first `skipped`."""
    if skipped == 0 and kept == frame.samples:
        return frame
    frame.pts = None
    fifo = av.AudioFifo()
    fifo.write(frame)
    if skipped:
        fifo.read(skipped)
    part = fifo.read(kept)
    assert part is not None
    return part
