"""Pictures as code values, packed without loss: FFV1 where it has the pixel format, else as they are."""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache

import av
import torch

from ..errors import VideoError
from .coded import Coding
from .planes import codes_of, frame_of_codes

_SLICES = 12
"""Parts of a picture that threads can pack at once."""


@lru_cache
def is_packed(pix_fmt: str) -> bool:
    """Whether pictures of a pixel format are packed, and not only kept."""
    try:
        formats = av.Codec("ffv1", "w").video_formats or []
    except av.FFmpegError:
        return False
    return pix_fmt in {known.name for known in formats}


class Packer:
    """Packs the pictures of one coding, one at a time; what it gives stands for itself."""

    def __init__(self, coding: Coding) -> None:
        self._coding = coding
        self._encoder = self._opened() if is_packed(coding.layout.name) else None
        self._count = 0

    @property
    def header(self) -> bytes:
        """What unpacking needs beside the pictures; empty where they are not packed."""
        return b"" if self._encoder is None else bytes(self._encoder.extradata or b"")

    def pack(self, codes: torch.Tensor) -> bytes:
        """Pack a picture: uint8 (bytes,) on the CPU."""
        if self._encoder is None:
            return codes.numpy().tobytes()
        frame = frame_of_codes(codes, self._coding)
        frame.pts, frame.time_base = self._count, Fraction(1, 25)
        self._count += 1
        packets = self._encoder.encode(frame)
        assert len(packets) == 1, "FFV1 holds no picture back"
        return bytes(packets[0])

    def _opened(self) -> av.VideoCodecContext:
        encoder = av.CodecContext.create("ffv1", "w")
        assert isinstance(encoder, av.VideoCodecContext)
        encoder.width, encoder.height = self._coding.width, self._coding.height
        encoder.pix_fmt = self._coding.layout.name
        encoder.time_base = Fraction(1, 25)
        encoder.framerate = Fraction(25)
        encoder.options = {"level": "3", "g": "1", "slicecrc": "1", "slices": str(_SLICES)}
        encoder.thread_type = "SLICE"
        encoder.open()
        return encoder


class Unpacker:
    """Gives back, bit for bit, what a `Packer` was given."""

    def __init__(self, coding: Coding, header: bytes) -> None:
        self._coding = coding
        self._decoder: av.VideoCodecContext | None = None
        if header:
            decoder = av.CodecContext.create("ffv1", "r")
            assert isinstance(decoder, av.VideoCodecContext)
            decoder.extradata = header
            decoder.width, decoder.height = coding.width, coding.height
            decoder.pix_fmt = coding.layout.name
            # Threads that each work on a picture of their own would hold pictures back.
            decoder.thread_type = "SLICE"
            self._decoder = decoder

    def unpack(self, data: bytes) -> torch.Tensor:
        """The picture of one packed one: uint8 (bytes,) on the CPU; raises VideoError where it is none."""
        if self._decoder is None:
            codes = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        else:
            try:
                frames = self._decoder.decode(av.Packet(data))
            except av.FFmpegError as error:
                raise VideoError(f"A packed picture cannot be read ({error.strerror}); run it again.") from error
            if len(frames) != 1 or frames[0].format.name != self._coding.layout.name:
                raise VideoError("A packed picture is not of the expected format; run it again.")
            codes = codes_of(frames[0], self._coding)
        if codes.numel() != self._coding.size_bytes:
            raise VideoError("A packed picture has not the expected size; run it again.")
        return codes
