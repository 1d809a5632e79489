"""Clips for browsers: what every one of them plays, with key frames close to each other, so that any frame is near."""

from __future__ import annotations

from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import torch
from torch import Tensor

from ..color_tags import ColorRange, ColorTags, Matrix
from ..planes import coding_for, frame_of_codes
from .partial import write_errors

GROUP_FRAMES = 12
"""From one key frame to the next at most: a browser decodes from the one before the frame that it is asked for."""
_BT709 = 1
_TICKS = 90_000


def _encoder() -> tuple[str, str, dict[str, str]]:
    """Encoder, kind of file, and what it is told: H.264, or VP9 where FFmpeg is built without x264."""
    if "libx264" in av.codecs_available:
        # As in `encoders.py`: x264's mbtree takes plain C here, for the same bytes on every machine.
        params = f"cpu-independent=1:threads=4:rc-lookahead=10:sync-lookahead=0:keyint={GROUP_FRAMES}:bframes=0"
        return "libx264", "mp4", {"crf": "14", "preset": "veryfast", "x264-params": params}
    return (
        "libvpx-vp9",
        "webm",
        {"crf": "18", "b": "0", "deadline": "realtime", "cpu-used": "4", "g": str(GROUP_FRAMES)},
    )


class ProxyWriter:
    """A clip of evenly spaced 8-bit 4:2:0 frames without sound; the caller gives the file its name, and removes it.

    Frame n is shown from n / rate on. Odd edges grow by a repeated row or column.
    """

    def __init__(self, path: Path, width: int, height: int, rate: Fraction) -> None:
        """path: with `suffix()` as its ending. Raises OutputError where it cannot be written."""
        self.path = path
        self._pad = width % 2, height % 2
        size = width + self._pad[0], height + self._pad[1]
        tags = ColorTags(ColorRange.LIMITED, Matrix.BT709, _BT709, _BT709)
        self._coding = coding_for("yuv420p", size, tags)
        name, muxer, options = _encoder()
        self._rate, self._frames = rate, 0
        with write_errors(path):
            muxer_options = {"movie_timescale": str(_TICKS)} if muxer == "mp4" else {}
            self._file = path.open("xb")
            self._output = av.open(self._file, "w", format=muxer, options=muxer_options)
            stream = self._output.add_stream(name, rate=rate, options=options)
            assert isinstance(stream, av.VideoStream)
            stream.width, stream.height = size
            stream.pix_fmt = "yuv420p"
            stream.time_base = 1 / rate
            context = stream.codec_context
            context.time_base = 1 / rate
            context.color_range, context.colorspace = int(tags.range), int(tags.matrix)
            context.color_primaries, context.color_trc = tags.primaries, tags.transfer
            self._stream = stream

    @staticmethod
    def suffix() -> str:
        """The ending that the file has to have."""
        return f".{_encoder()[1]}"

    @property
    def mime(self) -> str:
        """What it is for a browser."""
        return f"video/{_encoder()[1]}"

    def describe(self) -> str:
        """What it is for people."""
        name, _, options = _encoder()
        return f"{'H.264' if name == 'libx264' else 'VP9'}, 8 bits, 4:2:0, CRF {options['crf']}"

    def write(self, rgb: Tensor) -> None:
        """Append a frame: float (3,H,W) in [0,1]."""
        right, bottom = self._pad
        if right or bottom:
            rgb = torch.nn.functional.pad(rgb[None], (0, right, 0, bottom), mode="replicate")[0]
        frame = frame_of_codes(self._coding.encoded(rgb, None).cpu(), self._coding)
        frame.pts, frame.time_base = self._frames, 1 / self._rate
        self._frames += 1
        with write_errors(self.path):
            self._output.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Complete the file."""
        with write_errors(self.path):
            self._output.mux(self._stream.encode(None))
            self._output.close()
            self._file.close()

    def __enter__(self) -> ProxyWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            with suppress(OSError, av.FFmpegError):
                self._output.close()
            self._file.close()
