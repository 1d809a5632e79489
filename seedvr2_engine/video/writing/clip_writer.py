"""Clips: one encoded video stream, and what travels with it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import av
import torch

from ...errors import InvalidArgumentError
from ...output.unfinished import PartialFile
from ...spans import span
from ..coded import Coding
from ..hdr_metadata import HdrMetadata
from ..info import SourceInfo
from ..planes import coding_for, frame_of_codes
from ..streams.finished.matroska_header import set_display_size
from ..streams.finished.mp4_cover import add_covers
from ..streams.finished.mp4_length import set_video_length
from ..streams.side_streams import SideStreams
from .containers import container_for
from .encoder_plan import EncoderPlan
from .hdr_output import metadata_template
from .options import SinkOptions
from .output_plan import plan_output
from .partial import PartialWriter, discard, write_errors
from .sink import FrameSink, Written

DEFAULT_RATE = Fraction(24)
# Fewer frames need no reordering, and x265 leaves their decoding times uninitialised.
_SHORTEST_REORDERED = 3


class VideoSink(FrameSink):
    """A clip, written under its partial name in a form that stays playable if the process is killed."""

    def __init__(self, path: Path, width: int, height: int, source: SourceInfo | None, options: SinkOptions) -> None:
        super().__init__(path, width, height)
        output_plan = plan_output(path, (width, height), source, options)
        assert output_plan.encoder is not None
        self._plan = output_plan.encoder
        self._output_plan = output_plan
        self._coding = coding_for(self._plan.pix_fmt, (width, height), self._plan.color)
        self.warnings += output_plan.losses
        self._source = source
        self._rate = options.rate or (source.average_rate if source is not None else None) or DEFAULT_RATE
        self._follows_source = output_plan.follows_time
        self._time_base = source.time_base if source is not None and self._follows_source else 1 / self._rate
        self._step = max(1, round(1 / (self._rate * self._time_base)))
        self._last_pts: int | None = None
        self._end_pts = 0
        self._shift = 0
        self._durations: dict[int, int] = {}
        self._side: SideStreams | None = None
        self._packets_written = 0
        self._written: tuple[int, int] | None = None
        self._is_flushed = False
        self._is_header_complete = False
        self._file = PartialFile(path, overwrite=options.overwrite)
        self._writer = PartialWriter(self._file)
        try:
            with write_errors(path):
                self._open()
        except BaseException:
            self._abort(keep_partial=False)
            raise

    def _open(self) -> None:
        kind, plan = container_for(self.path), self._output_plan
        muxer_options = {**plan.muxer_options, **kind.unit_options(self._rate)}
        self._output = av.open(self._writer, "w", format=kind.muxer, options=muxer_options)
        hdr = self._source.hdr if self._source is not None else HdrMetadata()
        with metadata_template(self._plan.encoder, (self.width, self.height), hdr) as template:
            whole = self._source is None or self._source.are_frames_whole
            self._stream = _add_video_stream(
                self._output, self._plan, self._rate, self._time_base, template, are_frames_whole=whole
            )
        self._stream.width, self._stream.height = self.width, self.height
        if self._source is not None:
            self._stream.codec_context.sample_aspect_ratio = self._source.sample_aspect_ratio
        self._stream.metadata.update(plan.video_tags)
        if self._source is not None and self._source.kind == "video":
            self._stream.disposition = av.stream.Disposition(plan.video_disposition)
            self._output.metadata.update(plan.file_tags)
            self._side = SideStreams(self._output, self._source, kind, plan.streams, self.warnings.append)
            self._side.add_streams(self._time_base)
            if plan.keeps_chapters:
                self._side.add_chapters(max(self._source.start_s, Fraction(0)))
        # PyAV leaves opening the encoder of a stream with a template to its user.
        if not self._stream.codec_context.is_open:
            self._stream.codec_context.open()
        # Opens the other encoders and writes the header, so that bad settings fail before hours of work.
        self._output.start_encoding()

    @property
    def coding(self) -> Coding:
        """The encoder's pixel format."""
        return self._coding

    @property
    def unfinished(self) -> Path:
        """The partial file."""
        return self._file.path

    def _write(self, frame: Written) -> None:
        pts = frame.pts if frame.pts is not None and self._follows_source else self._end_pts
        if self._last_pts is None:
            self._begin(pts)
        elif pts <= self._last_pts:
            raise InvalidArgumentError(f"pts: expected more than {self._last_pts}, got {pts}; write frames in order.")
        with span("host"):
            codes = frame.rgb if frame.rgb.dtype == torch.uint8 else self._coding.encoded(frame.rgb, frame.alpha)
            coded = frame_of_codes(codes.cpu(), self._coding)
            if self._plan.stored_format != self._plan.pix_fmt:
                # Samples are only moved. One thread, as in `planes.as_direct`.
                coded = coded.reformat(format=self._plan.stored_format, threads=1)
        coded.pts = pts - self._shift
        coded.time_base = self._time_base
        self._last_pts = pts
        self._end_pts = pts + (frame.duration if frame.duration is not None and self._follows_source else self._step)
        self._durations[pts] = self._end_pts - pts
        with span("codec"):
            self._mux(coded)

    def _begin(self, first_pts: int) -> None:
        """Let a trimmed clip start at its first frame, and a whole one at its earliest stream."""
        if self._source is None or not self._follows_source:
            return
        start_s = max(self._source.start_s, Fraction(0))
        self._shift = first_pts if self._source.is_trimmed_at_start else round(start_s / self._time_base)
        if self._side is not None:
            begin_s = first_pts * self._time_base if self._source.is_trimmed_at_start else None
            end_s = first_pts * self._time_base + Fraction(self._source.duration_s)
            self._side.start(self._shift * self._time_base, begin_s, end_s)

    def _mux(self, frame: av.VideoFrame | None) -> None:
        for packet in self._stream.encode(frame):
            if packet.pts is not None:
                packet.duration = self._durations.pop(packet.pts + self._shift, self._step)
                begin, end = self._written or (packet.pts, packet.pts)
                self._written = min(begin, packet.pts), max(end, packet.pts + packet.duration)
            if frame is None and self.frames_written < _SHORTEST_REORDERED:
                packet.dts = packet.pts
            if self._side is not None and packet.dts is not None:
                # In step with what comes out of the encoder, or the file would wait for one or the other.
                self._side.advance((packet.dts + self._shift) * self._time_base)
            self._output.mux(packet)
            self._packets_written += 1

    def _complete_header(self) -> None:
        """Write what FFmpeg's muxers cannot: Matroska's pixel aspect, length and covers of an MP4 made of fragments.

        Once, since the file may be kept after it. Every step leaves a file that plays, wherever it breaks off.
        """
        if self._is_header_complete:
            return
        self._is_header_complete = True
        if container_for(self.path).is_fragmented and self._written is not None:
            set_video_length(self._file.path, (self._written[1] - self._written[0]) * self._time_base)
        shown, covers = self._output_plan.display_size, self._side.covers if self._side is not None else []
        if shown is not None and not set_display_size(self._file.path, shown):
            self.warnings.append("The pixel aspect ratio is left out, because the file's header has no room for it.")
        if covers and not add_covers(self._file.path, covers):
            self.warnings.append("The cover art is left out, because the disk or the file's index has no room for it.")

    def _finish(self) -> None:
        self._is_flushed = True
        with span("codec"):
            self._mux(None)
        if self._side is not None:
            is_cut = self._source is not None and self._source.is_trimmed_at_end
            self._side.finish(self._end_pts * self._time_base if is_cut else None)
        self._output.close()
        if self._writer.error is not None:
            raise self._writer.error
        self._complete_header()
        self._release()
        self._file.commit()

    def _abort(self, *, keep_partial: bool) -> Path | None:
        if keep_partial:
            self._close_what_goes()
        self._release()
        if keep_partial and self._packets_written and self._writer.holds_frames:
            return self._file.keep()
        self._discard()
        return None

    def _close_what_goes(self) -> None:
        """Bring what the encoders hold into the file and complete it; what fails keeps nothing else from it."""
        if not self._is_flushed:
            self._try(lambda: self._mux(None))
            if self._side is not None:
                self._try(self._side.flush)
        with suppress(Exception):
            self._output.close()
        self._try(self._complete_header)

    def _try(self, step: Callable[[], object]) -> None:
        """Whatever a codec, a container or a disk has to say: what is in the file is worth more.

        After an error of the disk nothing more gets in, and streams would be called faulty for it.
        """
        if self._writer.error is None:
            with suppress(Exception):
                step()

    def _discard(self) -> None:
        discard(getattr(self, "_output", None), self._file)

    def _release(self) -> None:
        if self._side is not None:
            self._side.close()


def _add_video_stream(
    output: av.container.OutputContainer,
    plan: EncoderPlan,
    rate: Fraction,
    time_base: Fraction,
    template: av.VideoStream | None,
    *,
    are_frames_whole: bool,
) -> av.VideoStream:
    if template is None:
        stream = output.add_stream(plan.encoder, rate=rate, options=plan.options)
        assert isinstance(stream, av.VideoStream)
        context = stream.codec_context
    else:
        stream = output.add_stream_from_template(template, opaque=False)
        context = stream.codec_context
        context.options = dict(plan.options)
        context.framerate = rate
        context.flags |= av.codec.context.Flags.global_header
    stream.pix_fmt = plan.stored_format
    context.time_base = time_base
    # Threads that each work on a frame of their own would hold as many frames back as there are cores.
    context.thread_type = "SLICE" if plan.encoder in ("ffv1", "prores_ks") else "AUTO"
    context.color_range = int(plan.color.range)
    context.colorspace = int(plan.color.matrix)
    context.color_primaries = plan.color.primaries
    context.color_trc = plan.color.transfer
    if are_frames_whole and hasattr(context, "field_order"):
        # Says progressive where the codec itself does not; AV_FIELD_PROGRESSIVE. PyAV 17.1 has no such field.
        context.field_order = 1
    if plan.encoder in ("libx265", "hevc_nvenc") and output.format.name in ("mp4", "mov"):
        # Apple's players refuse the hev1 tag that FFmpeg writes by default.
        context.codec_tag = "hvc1"
    return stream
