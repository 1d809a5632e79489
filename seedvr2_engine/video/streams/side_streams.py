"""Audio, subtitles, chapters and metadata on their way from the source file into the output."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from fractions import Fraction

import av
from av.subtitles.stream import SubtitleStream

from ..info import SourceInfo
from ..reading.probe import codec_name, opened
from ..writing.options import Container, SinkOptions

# Facts about the old file, which its muxer wrote and the new one writes for itself; compared in lower case.
_OWN_METADATA = frozenset(
    ("major_brand", "minor_version", "compatible_brands", "encoder", "duration", "handler_name", "vendor_id")
) | {"bps", "number_of_frames", "number_of_bytes"}
# FFmpeg's names for layouts that only say how many channels there are.
_USUAL_LAYOUTS = {"1 channels": "mono", "2 channels": "stereo", "6 channels": "5.1", "8 channels": "7.1"}


class SideStreams:
    """Reads the side streams of one source and muxes them, interleaved with the video.

    Packets are copied where the container takes their codec; other audio is encoded anew, other subtitles are left
    out, both with a sentence to `warn`. Times are shifted by the same amount as the video's, so that the offset
    between them is kept. Cuts fall on packets (AAC: 21 ms).
    """

    def __init__(
        self,
        output: av.container.OutputContainer,
        source: SourceInfo,
        kind: Container,
        warn: Callable[[str], None],
    ) -> None:
        self._warn = warn
        self._output = output
        self._kind = kind
        self._stack = ExitStack()
        self._input = self._stack.enter_context(opened(source.path))
        self._copied: dict[int, av.stream.Stream] = {}
        self._encoded: dict[int, _AudioEncoder] = {}
        self._packets: Iterator[av.Packet] = iter(())
        self._waiting: av.Packet | None = None
        self._shift_s = Fraction(0)
        self._begin_s: Fraction | None = None
        self._filters: dict[int, av.BitStreamFilterContext] = {}
        self._last_dts: dict[int, int] = {}
        self._clocks = {stream.index: source.timeline.clock(stream.index) for stream in self._input.streams}

    def add_streams(self, options: SinkOptions) -> None:
        """Add an output stream for each side stream; before the first packet is muxed."""
        if options.copy_audio:
            for stream in self._input.streams.audio:
                self._add_audio(stream)
        if options.copy_subtitles:
            for subtitle in self._input.streams.subtitles:
                self._add_subtitle(subtitle)
        wanted = [self._input.streams[index] for index in (*self._copied, *self._encoded)]
        if wanted:
            self._packets = self._input.demux(*wanted)

    def add_metadata(self, chapter_shift_s: Fraction | None) -> None:
        """Copy the container's metadata, and the chapters, made earlier by `chapter_shift_s`; None leaves them out."""
        self._output.metadata.update(_carried(self._input.metadata))
        chapters = self._input.chapters()
        if chapters and chapter_shift_s is not None:
            for chapter in chapters:
                shift = round(chapter_shift_s / chapter["time_base"]) if chapter["time_base"] else 0
                chapter["start"], chapter["end"] = chapter["start"] - shift, chapter["end"] - shift
            self._output.set_chapters(chapters)
        elif chapters:
            self._warn("Chapters are left out, because the clip is trimmed.")

    def start(self, shift_s: Fraction, begin_s: Fraction | None) -> None:
        """Set what is subtracted from every time, and the time in the source before which packets are dropped."""
        self._shift_s = shift_s
        self._begin_s = begin_s

    def advance(self, until_s: Fraction | None) -> None:
        """Mux the packets that begin before this time of the source; None is all that are left."""
        while (packet := self._next()) is not None:
            time_s = packet.pts * packet.time_base if packet.pts is not None else None
            if time_s is not None and until_s is not None and time_s >= until_s:
                self._waiting = packet
                return
            if time_s is None or self._begin_s is None or time_s >= self._begin_s:
                self._mux(packet)

    def finish(self) -> None:
        """Flush the audio encoders."""
        for encoder in self._encoded.values():
            self._output.mux(encoder.finish())

    def close(self) -> None:
        """Close the source file."""
        self._stack.close()

    def _next(self) -> av.Packet | None:
        if self._waiting is not None:
            packet, self._waiting = self._waiting, None
            return packet
        for packet in self._packets:
            if packet.size and not self._clocks[packet.stream.index].move(packet):
                continue
            if packet.size and packet.dts is not None:
                return packet
        return None

    def _mux(self, packet: av.Packet) -> None:
        index = packet.stream.index
        if index in self._encoded:
            self._encode(packet, self._encoded[index])
        elif index in self._filters:
            for filtered in self._filters[index].filter(packet):
                self._mux_copy(filtered, index)
        else:
            self._mux_copy(packet, index)

    def _mux_copy(self, packet: av.Packet, index: int) -> None:
        shift = round(self._shift_s / packet.time_base)
        packet.dts = (packet.dts or 0) - shift
        packet.pts = packet.dts if packet.pts is None else packet.pts - shift
        last = self._last_dts.get(index)
        if last is not None and packet.dts <= last:
            self._warn(f"Stream {index} has a packet that is not later than the one before; moved behind it.")
            packet.dts = last + 1
            packet.pts = max(packet.pts, packet.dts)
        self._last_dts[index] = packet.dts
        packet.stream = self._copied[index]
        self._output.mux(packet)

    def _encode(self, packet: av.Packet, encoder: _AudioEncoder) -> None:
        try:
            packets = encoder.encode(packet, self._shift_s)
        except av.error.InvalidDataError:
            self._warn(f"Stream {packet.stream.index} has a damaged packet of sound, which is left out.")
            return
        self._output.mux(packets)

    def _add_audio(self, stream: av.AudioStream) -> None:
        if stream.codec_context is None:
            self._warn(f"Audio stream {stream.index} is of an unknown codec and is left out.")
            return
        target = self._copy(stream)
        if target is None:
            encoder = _AudioEncoder(self._output, stream, self._kind.audio_encoder)
            self._encoded[stream.index] = encoder
            target = encoder.stream
            self._warn(
                f"Audio stream {stream.index} ({codec_name(stream)}) does not fit into this kind of file and is "
                f"encoded anew as {self._kind.audio_encoder}."
            )
        _describe(target, stream)

    def _add_subtitle(self, stream: SubtitleStream) -> None:
        target = self._copy(stream) if stream.codec_context is not None else None
        if target is None:
            self._warn(
                f"Subtitle stream {stream.index} ({codec_name(stream)}) does not fit into this kind of file and "
                "is left out."
            )
            return
        _describe(target, stream)

    def _copy(self, stream: av.stream.Stream) -> av.stream.Stream | None:
        """An output stream that takes the packets as they are, or None if the container has no place for the codec."""
        try:
            target = self._output.add_stream_from_template(stream)
        except ValueError:
            return None
        if isinstance(target, av.AudioStream):
            target.codec_context.layout = _layout_name(target.codec_context.layout)
            if codec_name(stream) == "aac" and not stream.codec_context.extradata and self._kind.is_fragmented:
                # Broadcast AAC; FFmpeg converts it by itself, but not into fragments.
                self._filters[stream.index] = av.BitStreamFilterContext("aac_adtstoasc", stream)
        self._copied[stream.index] = target
        return target


class _AudioEncoder:
    """One audio stream, decoded, resampled and encoded."""

    def __init__(self, output: av.container.OutputContainer, source: av.AudioStream, encoder: str) -> None:
        context = source.codec_context
        rate = 48000 if encoder == "libopus" or context.sample_rate > 96000 else context.sample_rate
        stream = output.add_stream(encoder, rate=rate)
        assert isinstance(stream, av.AudioStream)
        self.stream = stream
        self._source = context
        layout = _layout_name(context.layout)
        stream.codec_context.layout = layout
        stream.codec_context.bit_rate = 96_000 * context.layout.nb_channels
        self._resampler = av.AudioResampler(format=stream.codec_context.format, layout=layout, rate=rate)

    def encode(self, packet: av.Packet, shift_s: Fraction) -> list[av.Packet]:
        packets: list[av.Packet] = []
        for frame in self._source.decode(packet):
            if frame.pts is not None and frame.time_base is not None:
                frame.pts -= round(shift_s / frame.time_base)
            for resampled in self._resampler.resample(frame):
                packets += self.stream.encode(resampled)
        return packets

    def finish(self) -> list[av.Packet]:
        packets: list[av.Packet] = []
        for resampled in self._resampler.resample(None):
            packets += self.stream.encode(resampled)
        return packets + self.stream.encode(None)


def _layout_name(layout: av.AudioLayout) -> str:
    """The layout, or the usual one of as many channels: AVI and Matroska leave it open for PCM, MP4 insists on one."""
    return _USUAL_LAYOUTS.get(layout.name, layout.name)


def _carried(metadata: dict[str, str]) -> dict[str, str]:
    return {
        key: value
        for key, value in metadata.items()
        if key.lower() not in _OWN_METADATA and not key.startswith("_STATISTICS")
    }


def _describe(target: av.stream.Stream, source: av.stream.Stream) -> None:
    target.metadata.update(_carried(source.metadata))
    target.disposition = source.disposition
