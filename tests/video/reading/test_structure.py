"""Pictures that a file's own structure counts, in files made byte by byte."""

from pathlib import Path

import av
import numpy as np
import pytest

from seedvr2_engine.errors import VideoError
from seedvr2_engine.video import open_source
from seedvr2_engine.video.reading.container.counted import Collected
from seedvr2_engine.video.reading.container.damage import inspect
from seedvr2_engine.video.reading.container.scan import _measured
from seedvr2_engine.video.reading.timeline import Timeline

from ..made.clips import ClipSpec, ramp, write_clip


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


COUNT = 12


def frames_of(path):
    with open_source(path) as source:
        return len(list(source))


def tags_of(content):
    """(place, kind, bytes of data, ms) of each tag of an FLV file."""
    place, tags = 13, []
    while place < len(content):
        length = int.from_bytes(content[place + 1 : place + 4], "big")
        time_ms = int.from_bytes(content[place + 7 : place + 8] + content[place + 4 : place + 7], "big")
        tags.append((place, content[place], length, time_ms))
        place += 15 + length
    return tags


FLV_KINDS = [
    ("flv", "libmp3lame"),
    ("flv", None),
    ("libx264", "aac"),
    ("libx264", "libmp3lame"),
    ("flv", "pcm_s16le"),
    ("libx265", "aac"),
]


@pytest.mark.parametrize("kind", [8, 18], ids=["sound", "script"])
@pytest.mark.parametrize(("codec", "audio"), FLV_KINDS)
def test_a_picture_of_flv_whose_tag_becomes_another_is_missed(tmp_path, codec, audio, kind):
    path = flv(tmp_path / "a.flv", codec, audio)
    assert frames_of(path) == COUNT
    content = path.read_bytes()
    pictures = [place for place, tag, length, _ in tags_of(content) if tag == 9 and length > 5][-COUNT:]
    for lost in (pictures[1], pictures[5], pictures[-1]):
        changed = bytearray(content)
        changed[lost] = kind
        path.write_bytes(changed)
        with pytest.raises(VideoError, match=f"expected {COUNT} pictures, found {COUNT - 1}"):
            frames_of(path)


def flv(path, codec, audio, rate=44100, **spec):
    options = {"g": "6"} if codec == "flv" else {"g": "6", "preset": "ultrafast"}
    frames = [ramp(3 * i) for i in range(COUNT)]
    made = ClipSpec(codec, "yuv420p", audio=audio, audio_s=0.5, audio_rate=rate, options=options, **spec)
    return write_clip(path, frames, made)


def test_an_flv_that_is_cut_anywhere_lacks_bytes(tmp_path):
    content = flv(tmp_path / "a.flv", "flv", "libmp3lame").read_bytes()
    path = tmp_path / "b.flv"
    place = tags_of(content)[5][0]
    for size in range(place + 1, place + 20):
        path.write_bytes(content[:size])
        assert inspect(path).missing_bytes > 0


@pytest.mark.parametrize("audio", ["libmp3lame", "pcm_s16le"])
def test_a_joined_flv_whose_sound_changes_is_sound(tmp_path, audio):
    parts = [flv(tmp_path / f"{rate}.flv", "flv", audio, rate).read_bytes() for rate in (44100, 22050)]
    second = bytearray(parts[1])
    for place, *_, time_ms in tags_of(parts[1]):
        second[place + 4 : place + 7] = (time_ms + 480).to_bytes(3, "big")
    path = tmp_path / "a.flv"
    # The second goes on without the script at its start.
    begin = next(place for place, tag, *_ in tags_of(parts[1]) if tag != 18)
    path.write_bytes(without_noted_size(parts[0]) + second[begin:])
    assert frames_of(path) == 2 * COUNT


def without_noted_size(content):
    return content.replace(b"\0\x08filesize\0", b"\0\x08filesizf\0")


@pytest.mark.parametrize("pts", [None, [*range(5), *range(6, COUNT + 1)]], ids=["even", "hole"])
@pytest.mark.parametrize("byte", [0x2B, 0x22, 0x32])
def test_one_sound_of_flv_that_is_of_another_kind_is_sound(tmp_path, byte, pts):
    """Even where it could be a picture's by its first byte, if it goes on as sound does or none is due."""
    content = bytearray(flv(tmp_path / "a.flv", "flv", "libmp3lame", pts=pts).read_bytes())
    sounds = [(place, time_ms) for place, tag, _, time_ms in tags_of(content) if tag == 8]
    odd = min(sounds, key=lambda sound: abs(sound[1] - 220))[0]
    content[odd + 11] = byte
    path = tmp_path / "b.flv"
    path.write_bytes(content)
    assert inspect(path).pictures == (COUNT,)
    assert frames_of(path) == COUNT


@pytest.mark.parametrize(
    ("silent_ms", "has_hole"),
    [((200, 225), False), ((150, 175), True), ((190, 900), True)],
    ids=["none due", "beside a picture", "to the end"],
)
def test_silent_sound_of_flv_that_looks_like_pictures_is_sound(tmp_path, silent_ms, has_hole):
    pts = [*range(5), *range(6, COUNT + 1)] if has_hole else None
    content = bytearray(flv(tmp_path / "a.flv", "flv", "pcm_s16le", pts=pts).read_bytes())
    silent = [tag for tag in tags_of(content) if tag[1] == 8 and silent_ms[0] <= tag[3] < silent_ms[1]]
    assert (len(silent) == 1) == (silent_ms[1] < 900)
    for place, _, length, _ in silent:
        content[place + 11 : place + 11 + length] = b"\x32" + bytes(length - 1)
    path = tmp_path / "b.flv"
    path.write_bytes(content)
    assert inspect(path).pictures == (COUNT,)
