"""HDR in files: static metadata and tags survive, depth is enough, and what cannot be kept is said at opening."""

import gc
import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from seedvr2_engine.errors import VideoError
from seedvr2_engine.video import (
    ColorRange,
    ColorTags,
    ContentLight,
    HdrMetadata,
    MasteringDisplay,
    Matrix,
    SinkOptions,
    open_sink,
    open_source,
)
from seedvr2_engine.video.reading import hdr_side_data
from seedvr2_engine.video.reading.hdr_side_data import read_hdr

from ..made.clips import ClipSpec, frame_of, write_clip

PQ = ColorTags(ColorRange.LIMITED, Matrix.BT2020_NCL, 9, 16)
HLG = ColorTags(ColorRange.LIMITED, Matrix.BT2020_NCL, 9, 18)
DISPLAY = "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(40000000,50)"
STATIC = HdrMetadata(
    MasteringDisplay(((0.68, 0.32), (0.265, 0.69), (0.15, 0.06)), (0.3127, 0.329), 0.005, 4000.0),
    ContentLight(3870, 512),
)


def grey(code: int, bits: int = 10, size: tuple[int, int] = (64, 48)) -> av.VideoFrame:
    kind = np.uint8 if bits == 8 else np.uint16
    chroma = np.full((size[1] // 2, size[0] // 2), 1 << (bits - 1), kind)
    luma = np.full((size[1], size[0]), code, kind)
    luma[:, 8:16] = code + 9
    pix_fmt = "yuv420p" if bits == 8 else f"yuv420p{bits}le"
    frame = frame_of(pix_fmt, [luma, chroma, chroma])
    frame.color_range, frame.colorspace, frame.color_primaries, frame.color_trc = 1, 9, 9, 16
    return frame


def hdr10(path: Path, metadata: bool = True, tags: ColorTags = PQ, count: int = 2) -> Path:
    """A clip whose metadata x265 writes by itself."""
    params = "log-level=none:bframes=0" + (f":master-display={DISPLAY}:max-cll=3870,512" if metadata else "")
    spec = ClipSpec("libx265", "yuv420p10le", tags=tags, options={"preset": "ultrafast", "x265-params": params})
    return write_clip(path, [grey(300 + index) for index in range(count)], spec)


def rewrite(source: Path, target: Path, **options) -> list[str]:
    """Copy a clip by our reader and writer; returns what was said when the output was opened."""
    with open_source(source) as clip:
        info = clip.info
        sink = open_sink(
            target,
            width=info.width,
            height=info.height,
            source=info,
            options=SinkOptions(preset="ultrafast", **options),
        )
        said = list(sink.warnings)
        with sink:
            for frame in clip:
                sink.write(frame.rgb, pts=frame.pts, duration=frame.duration)
    return said


def test_static_metadata_is_read(tmp_path):
    info = open_source(hdr10(tmp_path / "a.mp4")).info
    assert info.hdr == STATIC
    assert info.color == PQ
    assert info.hdr.describe() == "mastered at 0.005 to 4000 nits, MaxCLL 3870, MaxFALL 512"


def test_a_clip_without(tmp_path):
    assert open_source(hdr10(tmp_path / "a.mp4", metadata=False)).info.hdr == HdrMetadata()


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        *(("b" + suffix, codec) for suffix in (".mp4", ".mov", ".mkv") for codec in ("h265", "h264")),
        ("b.mp4", "vp9"),
        ("b.mkv", "ffv1"),
        ("b.webm", "vp9"),
    ],
)
def test_static_metadata_and_tags_survive(tmp_path, name, codec):
    source = hdr10(tmp_path / "a.mp4", count=3)
    rewrite(source, tmp_path / name, codec=codec)
    out = open_source(tmp_path / name)
    assert (out.info.hdr, out.info.color) == (STATIC, PQ)
    assert out.info.bit_depth == (8 if codec == "vp9" else 10)
    assert [float(frame.pts * out.info.time_base) for frame in out] == pytest.approx([0.0, 0.04, 0.08], abs=1e-3)


@pytest.mark.parametrize("name", ["b.mp4", "b.mkv", "b.webm"])
def test_static_metadata_survives_in_av1s_stream(tmp_path, name):
    """It holds fractions of 16 bits for places of colours, and of 14 for the least light."""
    rewrite(hdr10(tmp_path / "a.mp4", count=3), tmp_path / name, codec="av1")
    info = open_source(tmp_path / name).info
    assert (info.color, info.bit_depth, info.hdr.light) == (PQ, 10, STATIC.light)
    found, wanted = info.hdr.mastering, STATIC.mastering
    assert sum(found.primaries, ()) == pytest.approx(sum(wanted.primaries, ()), abs=2**-16)
    assert found.white == pytest.approx(wanted.white, abs=2**-16)
    assert (found.min_nits, found.max_nits) == pytest.approx((wanted.min_nits, wanted.max_nits), abs=2**-14)


@pytest.mark.parametrize("name", ["b.mp4", "b.mov"])
def test_the_container_says_it_too(tmp_path, name):
    """Players and services that do not look into the stream find it in boxes of its sample entry."""
    rewrite(hdr10(tmp_path / "a.mp4"), tmp_path / name)
    data = (tmp_path / name).read_bytes()
    place = data.index(b"mdcv") + 4
    assert struct.unpack(">8H2I", data[place : place + 24]) == (
        13250, 34500, 7500, 3000, 34000, 16000, 15635, 16450, 40000000, 50,
    )  # fmt: skip
    place = data.index(b"clli") + 4
    assert struct.unpack(">2H", data[place : place + 4]) == (3870, 512)


@pytest.mark.parametrize(("codec", "decoder"), [("h265", "hevc"), ("h264", "h264")])
def test_the_stream_says_it_without_its_container(tmp_path, codec, decoder):
    rewrite(hdr10(tmp_path / "a.mp4"), tmp_path / "b.mp4", codec=codec)
    alone = av.CodecContext.create(decoder, "r")
    with av.open(str(tmp_path / "b.mp4")) as container:
        stream = container.streams.video[0]
        alone.extradata = stream.codec_context.extradata
        frames = [
            frame for packet in container.demux(stream) for frame in alone.decode(packet if packet.size else None)
        ]
    assert read_hdr(frames[0], "") == STATIC


def test_only_part_of_it_is_known(tmp_path):
    for metadata in (
        HdrMetadata(light=ContentLight(1000, 0)),
        HdrMetadata(mastering=MasteringDisplay(min_nits=0.01, max_nits=1000.0)),
        HdrMetadata(mastering=MasteringDisplay(STATIC.mastering.primaries, STATIC.mastering.white)),
    ):
        plain = open_source(hdr10(tmp_path / "a.mp4", metadata=False)).info
        info = type(plain)(**{**plain.__dict__, "hdr": metadata})
        target = tmp_path / "b.mkv"
        with open_sink(target, width=64, height=48, source=info, options=SinkOptions(overwrite=True)) as sink:
            sink.write(torch.rand(3, 48, 64))
        assert open_source(target).info.hdr == metadata


def test_metadata_survives_a_picture(tmp_path):
    source = hdr10(tmp_path / "a.mp4", count=1)
    assert rewrite(source, tmp_path / "b.png") == []
    info = open_source(tmp_path / "b.png").info
    assert info.hdr == STATIC
    assert (info.color.primaries, info.color.transfer, info.bit_depth) == (9, 16, 16)
    data = (tmp_path / "b.png").read_bytes()
    assert data.index(b"cICP") < data.index(b"IDAT")
    assert data.index(b"mDCV") < data.index(b"IDAT")
    again = rewrite(tmp_path / "b.png", tmp_path / "c.png")
    assert again == []
    assert open_source(tmp_path / "c.png").info.hdr == STATIC


@pytest.mark.parametrize(
    ("name", "codec", "sentence"),
    [("b.mov", "prores", "Mastering display and content light level are left out"), ("b.jpg", "auto", "left out")],
)
def test_what_cannot_be_kept_is_said_at_opening(tmp_path, name, codec, sentence):
    said = rewrite(hdr10(tmp_path / "a.mp4", count=1), tmp_path / name, codec=codec)
    assert any(sentence in line for line in said)


def test_prores_keeps_the_tags(tmp_path):
    rewrite(hdr10(tmp_path / "a.mp4"), tmp_path / "b.mov", codec="prores")
    info = open_source(tmp_path / "b.mov").info
    assert (info.color.matrix, info.color.primaries, info.color.transfer) == (Matrix.BT2020_NCL, 9, 16)


@pytest.mark.parametrize(
    ("name", "codec"), [("b.mp4", "auto"), ("b.mkv", "ffv1"), ("b.webm", "auto"), ("b.png", "auto")]
)
def test_hybrid_log_gamma_keeps_its_tags(tmp_path, name, codec):
    rewrite(hdr10(tmp_path / "a.mp4", metadata=False, tags=HLG, count=1), tmp_path / name, codec=codec)
    info = open_source(tmp_path / name).info
    assert (info.color.primaries, info.color.transfer) == (9, 18)


def test_eight_bits_of_hdr_become_ten(tmp_path):
    spec = ClipSpec("ffv1", "yuv420p", tags=PQ)
    write_clip(tmp_path / "a.mkv", [grey(90, bits=8)], spec)
    assert rewrite(tmp_path / "a.mkv", tmp_path / "b.mp4") == []
    info = open_source(tmp_path / "b.mp4").info
    assert (info.codec, info.bit_depth) == ("hevc", 10)


@pytest.mark.parametrize(("name", "options"), [("b.webm", {}), ("b.mp4", {"bit_depth": 8}), ("b.jpg", {})])
def test_banding_is_said(tmp_path, name, options):
    said = rewrite(hdr10(tmp_path / "a.mp4", count=1), tmp_path / name, **options)
    assert any("8 bits per sample show bands" in line for line in said)


def test_side_data_outlives_its_frames(tmp_path):
    """Colour profiles in frames made PyAV free memory twice, some time later."""
    path = hdr10(tmp_path / "a.mp4")
    for _ in range(8):
        assert open_source(path).info.hdr == STATIC
        gc.collect()


def raw_h265() -> tuple[bytes, int]:
    """A stream of one picture, and where its first slice begins."""
    context = av.CodecContext.create("libx265", "w")
    context.width, context.height, context.pix_fmt = 64, 48, "yuv420p10le"
    context.time_base, context.framerate = Fraction(1, 25), Fraction(25)
    context.options = {"preset": "ultrafast", "x265-params": "log-level=none:repeat-headers=1:bframes=0"}
    frame = grey(400)
    frame.pts = 0
    stream = b"".join(bytes(packet) for packet in [*context.encode(frame), *context.encode(None)])
    # NAL types below 32 are slices.
    starts = [at for at in range(len(stream) - 4) if stream[at : at + 3] == b"\0\0\1" and (stream[at + 3] >> 1) < 32]
    return stream, starts[0] - (stream[starts[0] - 1] == 0)


def hdr10_plus(path: Path) -> Path:
    """A raw H.265 stream with an HDR10+ message before its first picture."""
    stream, place = raw_h265()
    # ITU-T T.35: USA, Samsung's HDR10+ of SMPTE ST 2094-40; one window, all values small and not zero.
    message = bytes.fromhex("b5003c000104 01") + _bits(
        (1, 2), (4000, 27), (0, 1), *[(1000, 17)] * 3, (500, 17), (0, 4), (1, 10), (0, 1), (0, 1), (0, 1)
    )
    sei = b"\x00\x00\x00\x01\x4e\x01\x04" + bytes([len(message)]) + _escaped(message) + b"\x80"
    path.write_bytes(stream[:place] + sei + stream[place:])
    return path


def _bits(*fields: tuple[int, int]) -> bytes:
    text = "".join(f"{value:0{width}b}" for value, width in fields)
    text += "0" * (-len(text) % 8)
    return int(text, 2).to_bytes(len(text) // 8, "big")


def _escaped(data: bytes) -> bytes:
    out = bytearray()
    for byte in data:
        if byte <= 3 and out[-2:] == b"\0\0":
            out.append(3)
        out.append(byte)
    return bytes(out)


def test_dynamic_metadata_is_named_and_said_to_be_left_out(tmp_path):
    path = hdr10_plus(tmp_path / "a.hevc")
    assert open_source(path).info.hdr.dynamic == ("HDR10+",)
    said = rewrite(path, tmp_path / "b.mp4")
    assert any("The HDR10+ metadata of the source is left out" in line for line in said)


def dolby_vision(path: Path, profile: int, full_range: int) -> Path:
    """A raw H.265 stream with a Dolby Vision RPU after its picture: identity mappings, no display management.

    Source: ETSI GS CCM 001, annex; profile 5 has vdr_rpu_profile 0 and full range, profile 8 has 1 and limited range.
    """
    stream, _ = raw_h265()
    one, two = (1, 1), (3, 3)  # Exp-Golomb: 0 and 2.
    mapping = [one, one, (0, 1), one, (0, 23), _signed(1), (0, 23)]
    fields = [
        *[(25, 8), (2, 6), (18, 11), (profile, 4), (0, 4), (1, 1), (0, 1), (0, 2), (24, 9), (1, 2), (full_range, 1)],
        *[two, two, (5, 5), (0, 1), (0, 3), (0, 1), (1, 1), (0, 1), (0, 1), one, one, one],
        *[(1, 1), (0, 10), (1023, 10)] * 3,
        *[one, one],
        *mapping * 3,
    ]
    text = "".join(f"{value:0{width}b}" for value, width in fields)
    text += "0" * (-len(text) % 8)
    rpu = int(text, 2).to_bytes(len(text) // 8, "big")
    rpu += _crc32_mpeg(rpu[1:]).to_bytes(4, "big") + b"\x80"
    path.write_bytes(stream + b"\0\0\0\1\x7c\x01" + _escaped(rpu))
    return path


def _signed(value: int) -> tuple[int, int]:
    """The code se(v) of 0 or 1, as (bits, width)."""
    return (1, 1) if value == 0 else (2, 3)


def _crc32_mpeg(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1) ^ (0x04C11DB7 if crc & 0x80000000 else 0)
            crc &= 0xFFFFFFFF
    return crc


def test_dolby_vision_in_a_stream(tmp_path):
    assert open_source(dolby_vision(tmp_path / "p8.hevc", 1, 0)).info.hdr.dynamic == ("Dolby Vision",)
    with pytest.raises(VideoError, match=r"p5\.hevc: expected a picture .* Dolby Vision profile 5"):
        open_source(dolby_vision(tmp_path / "p5.hevc", 0, 1))


def dovi(profile: int, full_range: int) -> bytes:
    """AVDOVIMetadata with a header alone."""
    offsets = struct.pack("5Pi", 64, 128, 192, 256, 0, 0).ljust(64, b"\0")
    header = struct.pack("=BxHBBBBBBB", 2, 18, profile, 0, 0, 0, 23, 1, full_range)
    return (offsets + header).ljust(256, b"\0")


def test_dolby_vision_with_a_picture_of_its_own_is_named(tmp_path, monkeypatch):
    with av.open(str(hdr10(tmp_path / "a.mp4"))) as container:
        frame = next(container.decode(video=0))
    for tag in ("dvh1", "dvhe", "dva1", "dvav", "dav1"):
        assert read_hdr(frame, tag).dynamic == ("Dolby Vision",)
    assert read_hdr(frame, "hvc1").dynamic == ()
    kind = hdr_side_data.Type.DOVI_METADATA
    monkeypatch.setattr(hdr_side_data, "_side_data", lambda frame: {kind: dovi(1, 0)})
    assert read_hdr(frame, "hvc1").dynamic == ("Dolby Vision",)
    monkeypatch.setattr(hdr_side_data, "_side_data", lambda frame: {kind: dovi(0, 1)})
    with pytest.raises(VideoError, match="Dolby Vision profile 5"):
        read_hdr(frame, "dvh1")
    for short in (b"", b"\1", dovi(0, 1)[:60]):
        monkeypatch.setattr(hdr_side_data, "_side_data", lambda frame, data=short: {kind: data})
        assert read_hdr(frame, "hvc1").dynamic == ("Dolby Vision",)


@pytest.mark.parametrize("data", [b"", b"\0" * 88, b"\xff" * 88, b"\0" * 12])
def test_metadata_without_sense_is_none(data):
    assert hdr_side_data._mastering(data) is None
    assert hdr_side_data._light(data[:8] if data[:1] != b"\xff" else b"") is None
