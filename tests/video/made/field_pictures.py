"""H.264 whose fields are pictures of their own (PAFF), as broadcasts have them; no encoder of FFmpeg writes it."""

import re
from fractions import Fraction
from pathlib import Path

import av

_TICK = Fraction(1, 90000)
_COLUMNS, _ROWS = 4, 4
SIZE = (16 * _COLUMNS, 16 * _ROWS)
"""(width, height)"""


class _Bits:
    def __init__(self) -> None:
        self._bits = ""

    def u(self, count: int, value: int) -> "_Bits":
        self._bits += f"{value:0{count}b}"
        return self

    def ue(self, *values: int) -> "_Bits":
        for value in values:
            code = f"{value + 1:b}"
            self._bits += "0" * (len(code) - 1) + code
        return self

    def pcm(self, data: bytes) -> None:
        """Zeros up to a whole byte, then samples."""
        self._bits += "0" * (-len(self._bits) % 8) + "".join(f"{byte:08b}" for byte in data)

    def unit(self, header: int) -> bytes:
        """A NAL unit with its start code."""
        bits = self._bits + "1"
        bits += "0" * (-len(bits) % 8)
        payload = bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits), 8))
        return b"\0\0\0\1" + bytes([header]) + re.sub(rb"\0\0(?=[\0-\3])", b"\0\0\3", payload)


def _parameters() -> bytes:
    sequence = _Bits().u(24, 77 << 16 | 30).ue(0, 0, 2, 1).u(1, 0).ue(_COLUMNS - 1, _ROWS // 2 - 1)
    sequence.u(1, 0).u(1, 0).u(1, 1).u(1, 0).u(1, 0)  # Fields allowed, not per block; no crop, no VUI.
    picture = _Bits().ue(0, 0).u(2, 0).ue(0, 0, 0).u(3, 0).ue(0, 0, 0).u(3, 0b100)
    return sequence.unit(0x67) + picture.unit(0x68)


def _picture(frame: int, grey: int, field: int | None, *, starts: bool) -> bytes:
    """One field (0: top, 1: bottom), or a whole picture, of one grey in uncompressed blocks."""
    slice_ = _Bits().ue(0, 7, 0).u(4, frame % 16).u(1, field is not None)
    if field is not None:
        slice_.u(1, field)
    if starts:
        slice_.ue(0).u(2, 0)
    else:
        slice_.u(1, 0)
    slice_.ue(0, 1)  # No change of the quantiser, no deblocking.
    for _ in range(_COLUMNS * _ROWS // (1 if field is None else 2)):
        slice_.ue(25)
        slice_.pcm(bytes([grey]) * 256 + b"\x80" * 128)
    return slice_.unit(0x65 if starts else 0x21)


def write_field_pictures(path: Path, frames: int, *, whole: tuple[int, ...] = ()) -> Path:
    """A transport stream of `frames` frames, 25 a second, stored as two fields but for the frames `whole`."""
    with av.open(path, "w", format="mpegts") as output:
        stream = output.add_stream("libx264", rate=25, options={"x264-params": "interlaced=1"})
        stream.width, stream.height = SIZE
        for frame in range(frames):
            for field in (None,) if frame in whole else (0, 1):
                starts = frame == 0 and not field
                data = b"\0\0\0\1\x09\x10" + (_parameters() if starts else b"")
                packet = av.Packet(data + _picture(frame, 60 + 10 * frame, field, starts=starts))
                packet.stream, packet.time_base = stream, _TICK
                packet.pts = packet.dts = round((frame + (field or 0) / 2) / 25 / _TICK)
                packet.duration = round((1 if field is None else 0.5) / 25 / _TICK)
                packet.is_keyframe = starts
                output.mux(packet)
    return path
