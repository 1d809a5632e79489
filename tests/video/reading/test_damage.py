"""What a file's outermost structure says about its end."""

import pytest

from seedvr2_engine.video.reading.container.damage import missing_bytes

_HEAD = b"\x00\x00\x00\x10ftypisom\x00\x00\x02\x00"
_EBML = b"\x1a\x45\xdf\xa3\x82\x00\x00"


def box(kind: bytes, payload: bytes, *, long: bool = False) -> bytes:
    if long:
        return b"\x00\x00\x00\x01" + kind + (16 + len(payload)).to_bytes(8, "big") + payload
    return (8 + len(payload)).to_bytes(4, "big") + kind + payload


WHOLE = {
    "iso": _HEAD + box(b"moov", bytes(20)) + box(b"mdat", bytes(50)),
    "iso, 64-bit length": _HEAD + box(b"mdat", bytes(50), long=True),
    "avi": b"RIFF" + (4 + 60).to_bytes(4, "little") + b"AVI " + bytes(60),
    "webp": b"RIFF" + (4 + 60).to_bytes(4, "little") + b"WEBP" + bytes(60),
    "matroska": _EBML + b"\x18\x53\x80\x67" + b"\x01" + (60).to_bytes(7, "big") + bytes(60),
}


@pytest.mark.parametrize("kind", WHOLE)
@pytest.mark.parametrize("cut", [0, 1, 30])
def test_a_cut_is_counted_to_the_byte(tmp_path, kind, cut):
    path = tmp_path / "file"
    path.write_bytes(WHOLE[kind][: len(WHOLE[kind]) - cut])
    assert missing_bytes(path) == cut


@pytest.mark.parametrize(
    "data",
    [
        _HEAD + b"\x00\x00\x00\x00mdat" + bytes(10),  # a last box that reaches to the end, however far that is
        WHOLE["iso"] + b"\xff\xff\xff\xff\xff\xff\xff\xff",  # something after the last box
        _EBML + b"\x18\x53\x80\x67" + b"\x01" + b"\xff" * 7 + bytes(60),  # a live recording
        b"RIFF" + (1000).to_bytes(4, "little") + b"WAVE" + bytes(60),
        b"\xff\xd8\xff\xe0",
        b"",
    ],
)
def test_what_does_not_say_lacks_nothing(tmp_path, data):
    path = tmp_path / "file"
    path.write_bytes(data)
    assert missing_bytes(path) == 0
