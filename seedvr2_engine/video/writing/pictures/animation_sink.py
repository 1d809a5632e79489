"""Animated pictures: GIF, APNG and WebP."""

from __future__ import annotations

import struct
import zlib
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import av

from ....errors import InvalidArgumentError, OutputError
from ....output.unfinished import PartialFile
from ...color_tags import ColorRange, ColorTags, Matrix
from ...info import SourceInfo
from ...planes import encode_frame
from ...profiles import name_of, tags_of
from ..options import SinkOptions
from ..partial import PartialWriter, discard, write_errors
from ..sink import FrameSink, Written
from .kinds import ANIMATIONS

_SRGB = (1, 13)
_DEFAULT_RATE = Fraction(24)
_RGB = ColorTags(ColorRange.FULL, Matrix.RGB)


def is_animation(path: Path, source: SourceInfo | None) -> bool:
    """Return whether this output is animated: by its ending, or a WebP file for more than one frame."""
    suffix = path.suffix.lower()
    return suffix in (".gif", ".apng") or (suffix == ".webp" and source is not None and source.selected_frames > 1)


class AnimationSink(FrameSink):
    """An animated picture; its frames last as long as the source's, and it is shown as often, or for ever."""

    def __init__(self, path: Path, width: int, height: int, source: SourceInfo | None, options: SinkOptions) -> None:
        super().__init__(path, width, height)
        self._kind = ANIMATIONS[path.suffix.lower()]
        if max(width, height) > self._kind.longest_edge:
            raise OutputError(
                f"{path}: expected at most {self._kind.longest_edge} pixels a side in this kind of file, got {width}x"
                f"{height}; write a clip."
            )
        self._alpha = source is not None and source.has_alpha
        depth = options.bit_depth or (source.bit_depth if source is not None else 8)
        self._is_deep = depth > 8 and self._kind.encoder == "apng"
        self._pix_fmt = self._choose_pix_fmt()
        self._source_tick = source.time_base if source is not None and options.rate is None else None
        rate = options.rate or (source.average_rate if source is not None else None) or _DEFAULT_RATE
        self._step = self._kind.ticks / rate
        self._next = Fraction(0)
        self._first_pts: int | None = None
        self._last_tick = -1
        self._last_length = 1
        self._file = PartialFile(path, overwrite=options.overwrite)
        self._writer = PartialWriter(self._file, has_units=False)
        try:
            with write_errors(path):
                self._open(_plays(source), options, rate)
        except BaseException:
            self._abort(keep_partial=False)
            raise

    def _choose_pix_fmt(self) -> str:
        if self._kind.encoder == "libwebp_anim":
            return "bgra"
        if self._is_deep:
            return "rgba64be" if self._alpha else "rgb48be"
        return "rgba" if self._alpha or self._kind.encoder == "gif" else "rgb24"

    def _open(self, plays: int, options: SinkOptions, rate: Fraction) -> None:
        if self._kind.encoder == "gif":
            # A GIF without a count is shown once; a count says how often it is shown again.
            container_options = {"loop": str(0 if plays == 0 else -1 if plays == 1 else plays - 1)}
        else:
            container_options = {"plays" if self._kind.encoder == "apng" else "loop": str(plays)}
        container_options["flush_packets"] = "1"  # What is finished is in the file, should the process be killed.
        self._output = av.open(self._writer, "w", format=self._kind.muxer, options=container_options)
        quality = 95.0 if options.quality is None else max(1.0, options.quality)
        settings = {}
        if self._kind.encoder == "libwebp_anim":
            settings = {"lossless": "1"} if quality == 100 else {"quality": f"{quality:g}"}
        stream = self._output.add_stream(self._kind.encoder, rate=rate, options=settings)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height = self.width, self.height
        stream.pix_fmt = "pal8" if self._kind.encoder == "gif" else self._pix_fmt
        stream.codec_context.time_base = Fraction(1, self._kind.ticks)
        self._stream = stream
        self._palettes = self._palette_graph() if self._kind.encoder == "gif" else None
        self._output.start_encoding()

    def _palette_graph(self) -> av.filter.Graph:
        """Each frame through a palette of its own."""
        graph = av.filter.Graph()
        source = graph.add_buffer(
            width=self.width,
            height=self.height,
            format=av.VideoFormat(self._pix_fmt),
            time_base=Fraction(1, self._kind.ticks),
        )
        split, make = graph.add("split"), graph.add("palettegen", "stats_mode=single")
        use, sink = graph.add("paletteuse", "new=1"), graph.add("buffersink")
        source.link_to(split)
        split.link_to(make, 0, 0)
        split.link_to(use, 1, 0)
        make.link_to(use, 0, 1)
        use.link_to(sink)
        graph.configure()
        return graph

    def _write(self, frame: Written) -> None:
        coded = encode_frame(frame.rgb, frame.alpha if self._alpha else None, self._pix_fmt, _RGB)
        start, length = self._time(frame.pts, frame.duration)
        self._place(coded, start, length)
        if self._palettes is not None:
            self._palettes.vpush(coded)
            coded = self._palettes.vpull()
            self._place(coded, start, length)
        for packet in self._stream.encode(coded):
            packet.duration = packet.duration or length
            self._output.mux(packet)

    def _place(self, coded: av.VideoFrame, start: int, length: int) -> None:
        coded.pts, coded.time_base, coded.duration = start, Fraction(1, self._kind.ticks), length

    def _time(self, pts: int | None, duration: int | None) -> tuple[int, int]:
        """When a frame is shown and for how long, in ticks of the file."""
        length = self._step
        if self._source_tick is not None and pts is not None:
            self._first_pts = pts if self._first_pts is None else self._first_pts
            scale = self._source_tick * self._kind.ticks
            begin = (pts - self._first_pts) * scale
            length = duration * scale if duration is not None else length
        else:
            begin = self._next
        tick = round(begin)
        if tick <= self._last_tick:
            if begin < self._last_tick - 1:
                raise InvalidArgumentError(f"pts: expected a later time than the frame before, got {pts}.")
            tick = self._last_tick + 1
        self._last_tick, self._next = tick, begin + length
        self._last_length = max(1, round(length))
        return tick, self._last_length

    def _finish(self) -> None:
        self._close()
        if self._writer.error is not None:
            raise self._writer.error
        self._file.commit()

    def _close(self) -> None:
        for packet in self._stream.encode(None):
            self._output.mux(packet)
        self._output.close()
        if self._kind.encoder != "gif":
            with self._file.path.open("r+b") as file:
                _set_right(file, self._last_length, has_alpha=self._alpha)

    def _abort(self, *, keep_partial: bool) -> Path | None:
        if keep_partial:
            # Whatever the codec or a full disk has to say: what is in the file is worth more.
            with suppress(Exception):
                self._close()
            return self._file.keep()
        discard(getattr(self, "_output", None), self._file)
        return None


def _plays(source: SourceInfo | None) -> int:
    """How often it is shown, 0 for ever, as clips that become pictures are expected to be."""
    return source.loop_count if source is not None and source.loop_count is not None else 0


def animation_losses(path: Path, source: SourceInfo | None, options: SinkOptions) -> list[str]:
    """Sentences about what an animated picture cannot keep."""
    suffix = path.suffix.lower()
    depth = options.bit_depth or (source.bit_depth if source is not None else 8)
    sentences = []
    if suffix == ".gif":
        sentences.append("GIF holds 256 colours a frame and times of 1/100 s; use .webp or .apng to keep more.")
    if suffix == ".webp" and depth > 8:
        sentences.append(f"webp holds 8 bits per sample, {depth} were wanted; use .apng to keep them.")
    if source is not None and source.sample_aspect_ratio != 1:
        sentences.append(
            f"The pixel aspect ratio {source.sample_aspect_ratio} is left out: pixels of {suffix} count as square."
        )
    profile = source.metadata.icc if source is not None and source.metadata is not None else None
    if profile is not None and tags_of(profile) != _SRGB:
        sentences.append(
            f"The pictures' colour profile ({name_of(profile)}) is left out of {suffix}, so colours will look "
            "different; convert the pictures to sRGB first."
        )
    return sentences


def _set_right(file: BinaryIO, duration_ms: int, *, has_alpha: bool) -> None:
    """Write into a finished APNG or animated WebP file what FFmpeg's writers get wrong.

    The last frame lasts as long as others did there; and a WebP file of frames that cover their opaque parts only says
    that it has no alpha.
    """
    is_png = file.read(4) == b"\x89PNG"
    # A RIFF header has 12 bytes. Lengths and names come in opposite orders.
    position, found = 8 if is_png else 12, None
    while len(head := _at(file, position, 8)) == 8:
        name, length = (head[4:], head[:4]) if is_png else (head[:4], head[4:])
        if name in (b"fcTL", b"ANMF"):
            found = position
        elif name == b"VP8X" and has_alpha:
            flags = _at(file, position + 8, 1)[0] | 0x10
            file.seek(position + 8)
            file.write(bytes([flags]))
        size = int.from_bytes(length, "big" if is_png else "little")
        position += 12 + size if is_png else 8 + size + size % 2
    if found is None:
        return
    if is_png:
        # Sequence number, size and place come before the delay, as a fraction; disposal and blending behind it.
        chunk = bytearray(_at(file, found + 4, 30))
        chunk[24:28] = struct.pack(">HH", min(65535, duration_ms), 1000)
        file.seek(found + 4)
        file.write(bytes(chunk) + struct.pack(">I", zlib.crc32(chunk)))
    else:
        # Place and size of the frame take twelve bytes.
        file.seek(found + 8 + 12)
        file.write(min((1 << 24) - 1, duration_ms).to_bytes(3, "little"))


def _at(file: BinaryIO, position: int, length: int) -> bytes:
    file.seek(position)
    return file.read(length)
