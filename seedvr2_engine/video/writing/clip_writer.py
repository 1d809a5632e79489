"""Clips: one encoded video stream, and what travels with it."""

from __future__ import annotations

from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import av
import torch

from ...errors import InvalidArgumentError
from ..info import SourceInfo
from ..planes import encode_frame
from ..streams.side_streams import SideStreams
from .options import Container, EncoderPlan, SinkOptions, container_for, plan_encoder
from .partial import PartialFile, write_errors
from .sink import FrameSink

DEFAULT_RATE = Fraction(24)
# Fewer frames need no reordering, and x265 leaves their decoding times uninitialised.
_SHORTEST_REORDERED = 3


class VideoSink(FrameSink):
    """A clip, written under its partial name in a form that stays playable if the process is killed."""

    def __init__(self, path: Path, width: int, height: int, source: SourceInfo | None, options: SinkOptions) -> None:
        super().__init__(path, width, height)
        plan = plan_encoder(path, (width, height), source, options)
        self._plan = plan
        self.warnings += plan.warnings
        self._source = source
        self._rate = options.rate or (source.average_rate if source is not None else None) or DEFAULT_RATE
        follows_source = source is not None and source.average_rate is not None and options.rate is None
        self._time_base = source.time_base if source is not None and follows_source else 1 / self._rate
        self._follows_source = follows_source
        self._step = max(1, round(1 / (self._rate * self._time_base)))
        self._last_pts: int | None = None
        self._end_pts = 0
        self._shift = 0
        self._durations: dict[int, int] = {}
        self._side: SideStreams | None = None
        self._file = PartialFile(path, overwrite=options.overwrite)
        try:
            with write_errors(path):
                self._open(options)
        except BaseException:
            self._abort(keep_partial=False)
            raise

    def _open(self, options: SinkOptions) -> None:
        kind = container_for(self.path)
        self._output = av.open(self._file.writer, "w", format=kind.muxer, options=kind.options)
        self._stream = _add_video_stream(self._output, self._plan, self._rate, self._time_base)
        self._stream.width, self._stream.height = self.width, self.height
        if self._source is not None and self._source.kind == "video":
            self._set_aspect(kind, self._source.sample_aspect_ratio)
            if self._follows_source:
                self._side = SideStreams(self._output, self._source, kind, self.warnings.append)
                self._side.add_streams(options)
                is_trimmed = self._source.is_trimmed_at_start or self._source.is_trimmed_at_end
                self._side.add_metadata(None if is_trimmed else max(self._source.start_s, Fraction(0)))
            elif self._source.audio or self._source.subtitles:
                self.warnings.append("Audio and subtitles are left out, because the frame rate was changed.")
        # Opens the encoders and writes the header, so that bad settings fail before hours of work.
        self._output.start_encoding()

    def _set_aspect(self, kind: Container, aspect: Fraction) -> None:
        self._stream.codec_context.sample_aspect_ratio = aspect
        # Matroska takes it from a field that PyAV does not reach; H.264 and H.265 carry it themselves.
        if aspect != 1 and kind.muxer in ("matroska", "webm") and not self._plan.encoder.startswith("libx26"):
            self.warnings.append(
                f"The pixel aspect ratio {aspect} is left out, which {self.path.suffix} holds for h264 and h265 only."
            )

    def _write(self, rgb: torch.Tensor, alpha: torch.Tensor | None, pts: int | None, duration: int | None) -> None:
        pts = pts if pts is not None and self._follows_source else self._end_pts
        if self._last_pts is None:
            self._begin(pts)
        elif pts <= self._last_pts:
            raise InvalidArgumentError(f"pts: expected more than {self._last_pts}, got {pts}; write frames in order.")
        frame = encode_frame(rgb, alpha, self._plan.pix_fmt, self._plan.color)
        frame.pts = pts - self._shift
        frame.time_base = self._time_base
        self._last_pts = pts
        self._end_pts = pts + (duration if duration is not None and self._follows_source else self._step)
        self._durations[pts] = self._end_pts - pts
        if self._side is not None:
            self._side.advance(pts * self._time_base)
        self._mux(frame)

    def _begin(self, first_pts: int) -> None:
        """Let a trimmed clip start at its first frame, and a whole one at its earliest stream."""
        if self._source is None or not self._follows_source:
            return
        start_s = max(self._source.start_s, Fraction(0))
        self._shift = first_pts if self._source.is_trimmed_at_start else round(start_s / self._time_base)
        if self._side is not None:
            begin_s = first_pts * self._time_base if self._source.is_trimmed_at_start else None
            self._side.start(self._shift * self._time_base, begin_s)

    def _mux(self, frame: av.VideoFrame | None) -> None:
        for packet in self._stream.encode(frame):
            if packet.pts is not None:
                packet.duration = self._durations.pop(packet.pts + self._shift, self._step)
            if frame is None and self.frames_written < _SHORTEST_REORDERED:
                packet.dts = packet.pts
            self._output.mux(packet)

    def _close_streams(self, *, with_rest: bool) -> None:
        self._mux(None)
        if self._side is not None:
            if with_rest:
                is_cut = self._source is not None and self._source.is_trimmed_at_end
                self._side.advance(self._end_pts * self._time_base if is_cut else None)
            self._side.finish()
        self._output.close()

    def _finish(self) -> None:
        self._close_streams(with_rest=True)
        self._release()
        self._file.commit()

    def _abort(self, *, keep_partial: bool) -> Path | None:
        try:
            if keep_partial:
                with write_errors(self.path):
                    self._close_streams(with_rest=False)
                return self._file.keep()
        finally:
            self._release()
            if not keep_partial:
                self._discard()
        return None

    def _discard(self) -> None:
        output = getattr(self, "_output", None)
        if output is not None:
            # A full disk fails the trailer too; the file is on its way out.
            with suppress(OSError, av.FFmpegError):
                output.close()
        with suppress(OSError):
            self._file.discard()

    def _release(self) -> None:
        if self._side is not None:
            self._side.close()


def _add_video_stream(
    output: av.container.OutputContainer, plan: EncoderPlan, rate: Fraction, time_base: Fraction
) -> av.VideoStream:
    stream = output.add_stream(plan.encoder, rate=rate, options=plan.options)
    assert isinstance(stream, av.VideoStream)
    stream.pix_fmt = plan.pix_fmt
    context = stream.codec_context
    context.time_base = time_base
    context.thread_type = "AUTO"
    context.color_range = int(plan.color.range)
    context.colorspace = int(plan.color.matrix)
    context.color_primaries = plan.color.primaries
    context.color_trc = plan.color.transfer
    if hasattr(context, "field_order"):
        # Says progressive where the codec itself does not; AV_FIELD_PROGRESSIVE. PyAV 17.1 has no such field.
        context.field_order = 1
    if plan.encoder == "libx265" and output.format.name in ("mp4", "mov"):
        # Apple's players refuse the hev1 tag that FFmpeg writes by default.
        context.codec_tag = "hvc1"
    return stream
