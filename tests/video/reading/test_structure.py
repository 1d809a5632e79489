"""Pictures that a file's own structure counts, in files made byte by byte."""

from pathlib import Path

import av
import numpy as np
import pytest

from seedvr2_engine.video.reading.container.counted import Collected
from seedvr2_engine.video.reading.container.damage import inspect
from seedvr2_engine.video.reading.container.scan import _measured
from seedvr2_engine.video.reading.timeline import Timeline

from ..made.clips import ramp


def ogg_page(number: int, packets: list[bytes], flags: int = 0) -> bytes:
    """One page of whole packets (RFC 3533, 6)."""
    lacing = b"".join(b"\xff" * (len(packet) // 255) + bytes([len(packet) % 255]) for packet in packets)
    head = b"OggS\0" + bytes([flags]) + bytes(8) + (7).to_bytes(4, "little") + number.to_bytes(4, "little")
    rest = bytes([len(lacing)]) + lacing + b"".join(packets)
    total = 0
    for byte in head + bytes(4) + rest:
        total ^= byte << 24
        for _ in range(8):
            total = (total << 1 ^ (0x04C11DB7 if total >> 31 else 0)) & 0xFFFFFFFF
    return head + total.to_bytes(4, "little") + rest


@pytest.mark.parametrize(
    ("name", "lengths", "pictures"),
    [
        (b"\x80theora", (1, 254, 255, 256, 510, 511), (6,)),
        (b"\x80theora", (10, 0, 0, 20), (2,)),  # Empty ones show the picture before again.
        (b"\x01vorbis", (10, 20), ()),
    ],
)
def test_packets_of_theora_are_counted_by_their_lengths(tmp_path, name, lengths, pictures):
    pages = [
        ogg_page(0, [name + bytes(20)], flags=2),
        ogg_page(1, [b"\x81" + bytes(30), b"\x82" + bytes(300)]),
        ogg_page(2, [bytes(length) for length in lengths[:3]]),
        ogg_page(3, [bytes(length) for length in lengths[3:]], flags=4),
    ]
    path = tmp_path / "a.ogv"
    path.write_bytes(b"".join(pages))
    structure = inspect(path)
    assert (structure.pictures, structure.fault, structure.missing_bytes) == (pictures, None, 0)
    path.write_bytes(b"".join(pages[:2] + pages[3:]))
    assert "a part is missing before byte" in inspect(path).fault


def fragmented(path: Path, count: int) -> Path:
    options = {"movflags": "frag_every_frame+empty_moov+default_base_moof"}
    with av.open(str(path), "w", format="mp4", options=options) as container:
        sound = container.add_stream("aac", rate=48000)
        video = container.add_stream("libx264", rate=25, options={"bf": "0"})
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), format="fltp", layout="mono")
        silence.sample_rate = 48000
        container.mux(sound.encode(silence))
        for index in range(count):
            container.mux(video.encode(av.VideoFrame.from_ndarray(ramp(index, 64, 48), format="rgb24")))
        container.mux(video.encode(None))
        container.mux(sound.encode(None))
    return path


def test_pictures_of_fragments_are_those_of_the_picture_s_track(tmp_path):
    assert inspect(fragmented(tmp_path / "a.mp4", 7)).pictures == (7,)


@pytest.mark.parametrize(("lasting", "end"), [(0, 170), (25, 145)])
def test_a_last_picture_of_no_length_lasts_as_long_as_the_longest(lasting, end):
    collected = Collected(packets=4, shown=4)
    for index, pts in enumerate((0, 80, 30, 120)):  # 30, 50 and 40 ticks apart.
        for values, value in ((collected.pts, pts), (collected.dts, pts), (collected.durations, 0)):
            values.append(value)
        collected.numbers.append(index)
        collected.keys.append(index == 0)
    collected.durations[-1] = lasting
    scan = _measured(collected, Timeline(), None)
    assert (scan.first_pts, scan.end_pts, scan.shortest_step, scan.longest_step) == (0, end, 30, 50)
