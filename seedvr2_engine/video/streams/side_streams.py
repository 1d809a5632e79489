"""Audio, subtitles, chapters and metadata on their way from the source file into the output."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from fractions import Fraction
from functools import partial
from typing import Any

import av
from av.subtitles.stream import SubtitleStream

from ..demuxing import packets_of
from ..info import SourceInfo
from ..reading.probe import opened
from ..writing.containers import Container
from .attachments import Attachment, attached_file, read_covers
from .copied import CopiedStream
from .metadata import describe_stream, set_chapters
from .sound.encoder import AudioEncoder
from .sound.table import AudioTarget
from .stream_plan import StreamPlan, copy_audio
from .text.mov_text import CODEC, LineEnds, text_time_base
from .text.subtitles import SubtitleConverter
from .timing import Placed, place


class SideStreams:
    """Reads the side streams of one source and muxes them, interleaved with the video.

    What becomes of each was decided by `plan_streams`. Times are shifted by the same amount as the video's, so that
    the offset between them is kept. Copied sound is cut between packets (AAC: 21 ms), encoded sound to the sample.
    Trouble with one stream ends that stream, with a sentence to `warn`; it never ends the clip.
    """

    def __init__(
        self,
        output: av.container.OutputContainer,
        source: SourceInfo,
        kind: Container,
        plans: tuple[StreamPlan, ...],
        warn: Callable[[str], None],
    ) -> None:
        self._warn = warn
        self._output = output
        self._kind = kind
        self._plans = plans
        self._path = source.path
        self._stack = ExitStack()
        self._input = self._stack.enter_context(opened(source.path))
        self._tracks: dict[int, CopiedStream | AudioEncoder | SubtitleConverter] = {}
        self._line_ends: dict[int, LineEnds] = {}
        self.covers: list[Attachment] = []
        """Cover art that is put in when the file is complete."""
        self._packets: Iterator[av.Packet[Any]] = iter(())
        self._waiting: Placed | None = None
        self._damaged: set[int] = set()
        self._shift_s = Fraction(0)
        self._begin_s: Fraction | None = None
        self._clocks = {stream.index: source.timeline.clock(stream.index) for stream in self._input.streams}

    def add_streams(self, video_time_base: Fraction) -> None:
        """Add an output stream for each side stream; before the first packet is muxed."""
        covers = self._covers_of({plan.index: plan.codec for plan in self._plans if _is_kept(plan, "cover")})
        for plan in self._plans:
            if plan.action == "leave out":
                continue
            stream = self._input.streams[plan.index]
            if plan.kind == "attachment":
                self._attach(attached_file(stream))
            elif plan.kind == "cover":
                if plan.index in covers:
                    self._attach(covers[plan.index])
            else:
                track = self._track(plan, stream)
                describe_stream(track.stream, stream, self._kind.muxer)
                self._tracks[plan.index] = track
                if self._kind.is_fragmented and (plan.target or plan.codec) == CODEC:
                    track.stream.time_base = text_time_base(video_time_base)
                    self._line_ends[plan.index] = LineEnds(track.stream)
        if self._tracks:
            self._packets = packets_of(self._input, *(self._input.streams[index] for index in self._tracks))

    def add_chapters(self, shift_s: Fraction) -> None:
        """Copy the chapters, made earlier by `shift_s`."""
        set_chapters(self._output, self._input, shift_s)

    def start(self, shift_s: Fraction, begin_s: Fraction | None, picture_end_s: Fraction) -> None:
        """Set what is subtracted from every time, and two times of the source: before the first, sound is dropped;
        the second is about where the pictures end.
        """
        self._shift_s = shift_s
        self._begin_s = begin_s
        for track in self._tracks.values():
            if isinstance(track, AudioEncoder):
                track.start(None if begin_s is None else begin_s - shift_s, picture_end_s - shift_s)

    def advance(self, until_s: Fraction | None) -> None:
        """Mux the packets that begin before this time of the source; None is all that are left."""
        while (placed := self._next()) is not None:
            if placed.time_s is not None and until_s is not None and placed.time_s >= until_s:
                self._waiting = placed
                break
            self._end_lines(placed.time_s)
            self._pass(placed)
        self._end_lines(until_s)

    def finish(self, end_s: Fraction | None) -> None:
        """Mux the rest: up to this time of the source, or all of it."""
        for track in self._tracks.values():
            if isinstance(track, AudioEncoder) and end_s is not None:
                track.end(end_s - self._shift_s)
        self.advance(end_s)
        self.flush()

    def flush(self) -> None:
        """Write what the audio encoders hold, and say what of the copied sound was damaged."""
        for index, track in list(self._tracks.items()):
            if isinstance(track, AudioEncoder):
                self._guarded(index, track.finish, None)
            elif isinstance(track, CopiedStream):
                track.finish()

    def close(self) -> None:
        """Close the source file."""
        self._stack.close()

    def _track(self, plan: StreamPlan, stream: av.stream.Stream) -> CopiedStream | AudioEncoder | SubtitleConverter:
        if isinstance(stream, av.AudioStream) and isinstance(plan.target, AudioTarget):
            return AudioEncoder(self._output, stream, plan.target)
        if isinstance(stream, SubtitleStream) and isinstance(plan.target, str):
            return SubtitleConverter(self._output, stream, plan.target)
        if isinstance(stream, av.AudioStream):
            return CopiedStream(copy_audio(self._output, stream), stream, self._kind.muxer, self._warn)
        return CopiedStream(self._output.add_stream_from_template(stream), stream, self._kind.muxer, self._warn)

    def _covers_of(self, wanted: dict[int, str]) -> dict[int, Attachment]:
        if not wanted:
            return {}
        with opened(self._path) as container:
            return read_covers(container, wanted)

    def _attach(self, attachment: Attachment) -> None:
        if self._kind.muxer == "matroska":
            self._output.add_attachment(attachment.name, attachment.mime_type, attachment.data)
        else:
            self.covers.append(attachment)

    def _next(self) -> Placed | None:
        if self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            return waiting
        while True:
            try:
                packet = next(self._packets, None)
            except av.FFmpegError as error:
                self._warn(f"Sound and subtitles end early, the rest of them cannot be read ({error.strerror}).")
                self._packets = iter(())
                return None
            if packet is None:
                return None
            if packet.size and not self._clocks[packet.stream.index].move(packet):
                continue  # It overlaps with what came before a place where recordings were joined.
            if packet.size and packet.stream.index in self._tracks:
                return place(packet, self._shift_s)

    def _pass(self, placed: Placed) -> None:
        index, time_s = placed.packet.stream.index, placed.time_s
        track = self._tracks.get(index)
        if track is None:
            return
        # An encoder is given what lies before, to cut within it.
        is_before = time_s is not None and self._begin_s is not None and time_s < self._begin_s
        if is_before and not isinstance(track, AudioEncoder):
            return
        self._guarded(index, lambda: self._noted(index, track.packets(placed)), time_s)

    def _noted(self, index: int, packets: list[av.Packet[Any]]) -> list[av.Packet[Any]]:
        if index in self._line_ends:
            for packet in packets:
                self._line_ends[index].note(packet)
        return packets

    def _end_lines(self, until_s: Fraction | None) -> None:
        """Mux the ends of the lines that end before this time of the source."""
        for index, ends in self._line_ends.items():
            packet = ends.until(None if until_s is None else until_s - self._shift_s)
            if packet is not None and index in self._tracks:
                self._guarded(index, partial(list, (packet,)), None)

    def _guarded(self, index: int, make: Callable[[], list[av.Packet[Any]]], time_s: Fraction | None) -> None:
        """Mux what `make` gives; trouble is said once, and ends this stream alone."""
        place_s = f" at {float(time_s):.2f} s" if time_s is not None else ""
        try:
            packets = make()
        except av.error.InvalidDataError:
            if index not in self._damaged:
                self._damaged.add(index)
                self._warn(f"Stream {index} is damaged{place_s}; what does not decode is left out.")
            return
        except (av.FFmpegError, ValueError) as error:
            self._end(index, f"cannot be converted{place_s} ({error})")
            return
        try:
            self._output.mux(packets)
        except av.FFmpegError as error:
            self._end(index, f"cannot be written{place_s} ({error.strerror})")

    def _end(self, index: int, why: str) -> None:
        del self._tracks[index]
        self._warn(f"Stream {index} {why}; the rest of it is left out.")


def _is_kept(plan: StreamPlan, kind: str) -> bool:
    return plan.kind == kind and plan.action != "leave out"
