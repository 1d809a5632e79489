"""Fewer frames than a file promises are never taken for all of them, and no sound file is refused."""

import itertools
import random
import re
from fractions import Fraction

import av
import pytest
from PIL import Image

from seedvr2_engine.errors import VideoError
from seedvr2_engine.video import open_source
from seedvr2_engine.video.reading import clip_frames
from seedvr2_engine.video.reading.container.damage import inspect
from seedvr2_engine.video.reading.decoders import decoder_of

from ..made.clips import ClipSpec, ramp, write_clip
from ..made.field_pictures import write_field_pictures

COUNT = 16
CROSSING = {"preset": "ultrafast", "bf": "2", "g": "6"}
H264 = ClipSpec("libx264", "yuv420p", audio="aac", audio_s=0.7, options=CROSSING)
KINDS = {
    "b.mp4": H264,
    "b.mov": ClipSpec("libx264", "yuv420p", audio="pcm_s16le", audio_s=0.7, options=CROSSING),
    "b.mkv": H264,
    "lossless.mkv": ClipSpec("ffv1", "bgr0", audio="flac", audio_s=0.7),
    "v.webm": ClipSpec("libvpx-vp9", "yuv420p", audio="libopus", audio_s=0.7, options={"cpu-used": "8"}),
    "m.avi": ClipSpec("mpeg4", "yuv420p", audio="mp2", audio_s=0.7, options={"bf": "2"}),
    "l.avi": ClipSpec("ffv1", "bgr0"),
    "h.flv": H264,
    "s.flv": ClipSpec("flv", "yuv420p"),
    "w.wmv": ClipSpec("wmv2", "yuv420p"),
    "b.ts": H264,
    "m.ts": ClipSpec("mpeg2video", "yuv420p", audio="mp2", audio_s=0.7, options={"bf": "2", "g": "6"}),
    "d.m2ts": H264,
    "p.mpg": ClipSpec("mpeg2video", "yuv420p", audio="mp2", audio_s=0.7, options={"bf": "2", "g": "6"}),
    "p.vob": ClipSpec("mpeg2video", "yuv420p", audio="ac3", audio_s=0.7),
    "y.y4m": ClipSpec("wrapped_avframe", "yuv420p"),
    "x.mxf": ClipSpec("mpeg2video", "yuv420p"),
    "c.3gp": ClipSpec("libx264", "yuv420p", options=CROSSING),
    "t.ogv": ClipSpec("libtheora", "yuv420p", audio="libvorbis", audio_s=0.7),
    "g.gif": ClipSpec("gif", "rgb8"),
    "a.apng": ClipSpec("apng", "rgb24"),
    "n.nut": ClipSpec("ffv1", "bgr0"),
    "i.ivf": ClipSpec("libvpx", "yuv420p"),
    "open.ts": ClipSpec("libx264", "yuv420p", options={"x264-params": "open-gop=1:keyint=6:bframes=3"}),
    "vfr.mkv": ClipSpec("libx264", "yuv420p", pts=[n * n for n in range(COUNT)], options={"bf": "2"}),
    "vfr.mp4": ClipSpec("libx264", "yuv420p", pts=[n * n for n in range(COUNT)], options={"bf": "2"}),
    "vfr.avi": ClipSpec("mjpeg", "yuvj420p", pts=[3 * n for n in range(COUNT)]),
}  # fmt: skip


def made(folder, name):
    spec = KINDS[name]
    for codec in (spec.codec, spec.audio):
        if codec and codec not in av.codecs_available:
            pytest.skip(f"this FFmpeg build has no {codec}")
    return write_clip(folder / name, [ramp(3 * i) for i in range(COUNT)], spec)


def frames_of(path) -> int:
    with open_source(path) as source:
        return sum(1 for _ in source)


@pytest.mark.parametrize("name", list(KINDS))
def test_a_sound_file_gives_all_its_frames(tmp_path, name):
    path = made(tmp_path, name)
    structure = inspect(path)
    assert (structure.missing_bytes, structure.fault, structure.is_forged) == (0, None, False)
    with open_source(path) as source:
        assert len(source) == len(list(source)) == COUNT
        assert source.missing_frames == 0
    assert source.warnings == []


def mutated(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    at, length = rng.randrange(len(data)), rng.choice((1, 20, 188, 1500))
    kind = rng.choice(("cut", "zero", "ones", "twice", "gone", "flip"))
    if kind == "cut":
        return data[:at]
    if kind == "twice":
        changed[at:at] = data[at : at + length]
    elif kind == "gone":
        del changed[at : at + length]
    elif kind == "flip":
        for _ in range(6):
            changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    else:
        changed[at : at + length] = (b"\0" if kind == "zero" else b"\xff") * len(data[at : at + length])
    return bytes(changed)


# Of NUT the end alone is known, and a bare stream of pictures promises nothing.
@pytest.mark.parametrize("name", [name for name in KINDS if not name.startswith(("n.", "vfr", "open"))])
def test_a_damaged_file_is_refused_or_whole(tmp_path, name):
    data = made(tmp_path, name).read_bytes()
    rng = random.Random(name)
    path = tmp_path / f"damaged{name[name.index('.') :]}"
    for _ in range(12):
        path.write_bytes(mutated(data, rng))
        try:
            count = frames_of(path)
        except VideoError:
            continue
        assert count >= COUNT


@pytest.mark.parametrize(
    "name", ["b.mp4", "b.mkv", "y.y4m", "h.flv", "w.wmv", "b.ts", "m.avi", "t.ogv", "g.gif", "x.mxf"]
)
@pytest.mark.parametrize("share", [0.55, 0.8, 0.97])
def test_a_cut_file_is_refused_and_with_keep_says_what_is_missing(tmp_path, name, share):
    path = made(tmp_path, name)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(VideoError, match=r"truncated|damaged|missing|found none"):
        frames_of(path)
    try:
        with open_source(path, damaged="keep") as source:
            count = sum(1 for _ in source)
    except VideoError:
        return  # An index at the end that is gone takes the pictures with it.
    assert count <= COUNT
    assert source.warnings
    assert source.is_incomplete


def test_frames_that_a_y4m_file_lacks_are_counted(tmp_path):
    path = made(tmp_path, "y.y4m")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(VideoError, match="cut off"):
        open_source(path)
    with open_source(path, damaged="keep") as source:
        assert len(list(source)) == COUNT - 1
        assert source.missing_frames == 1


def test_a_lost_packet_of_a_transport_stream_is_found(tmp_path):
    data = made(tmp_path, "m.ts").read_bytes()
    pid_of = [int.from_bytes(data[at + 1 : at + 3], "big") & 0x1FFF for at in range(0, len(data), 188)]
    begins = [data[at + 1] & 0x40 for at in range(0, len(data), 188)]
    middle = next(n for n in range(8, len(pid_of)) if pid_of[n] == 256 and pid_of[n + 1] == 256 and not begins[n + 1])
    path = tmp_path / "lost.ts"
    path.write_bytes(data[: middle * 188] + data[(middle + 1) * 188 :])
    with pytest.raises(VideoError, match="out of order at byte"):
        open_source(path)


def test_frames_all_of_one_time_follow_each_other_at_the_rate(tmp_path):
    spec = ClipSpec("ffv1", "bgr0", rate=Fraction(20))
    path = write_clip(tmp_path / "a.mkv", [ramp(i) for i in range(8)], spec)
    data = bytearray(path.read_bytes())
    at = 0
    while (at := data.find(b"\x81\0", at)) >= 0:
        # SimpleBlock of track 1: time within its cluster, flags.
        if data[at + 3] in (0x00, 0x80) and data[at - 9 : at].find(b"\xa3") >= 0:
            data[at + 1 : at + 3] = b"\0\0"
        at += 1
    path.write_bytes(data)
    with open_source(path) as source:
        times = [frame.pts * source.info.time_base for frame in source]
    assert times == [Fraction(i, 20) for i in range(8)]
    assert len(source.warnings) == 1


def test_a_recording_that_begins_between_key_frames_begins_at_the_first(tmp_path):
    spec = ClipSpec("mpeg2video", "yuv420p", options={"b": "1M", "g": "50", "sc_threshold": "1000000000"})
    path = write_clip(tmp_path / "a.ts", [ramp(i) for i in range(70)], spec)
    data = path.read_bytes()
    path.write_bytes(data[len(data) // 188 // 3 * 188 :])
    with open_source(path) as source:
        assert len(source) > 20
        assert len(list(source)) == 20
    (sentence,) = source.warnings
    assert "before the start of the recording" in sentence


def cut_at_second_key(folder, *, closed):
    """Of MPEG-2 with open groups; `closed` says of the first one that its leading pictures refer to nothing before."""
    options = {"g": "6", "bf": "2", "sc_threshold": "1000000000"}
    path = write_clip(
        folder / "a.mpg", [ramp(3 * i) for i in range(24)], ClipSpec("mpeg2video", "yuv420p", options=options)
    )
    with av.open(path) as source, av.open(folder / "b.mkv", "w") as output:
        stream = output.add_stream_from_template(source.streams.video[0])
        packets = [packet for packet in source.demux(video=0) if packet.size]
        second = [index for index, packet in enumerate(packets) if packet.is_keyframe][1]
        for packet in packets[second:]:
            content = bytearray(packet)
            if closed and (group := content.find(b"\0\0\1\xb8")) >= 0:
                content[group + 7] |= 0x40
            changed = av.Packet(bytes(content))
            changed.pts, changed.dts, changed.time_base = packet.pts, packet.dts, packet.time_base
            changed.is_keyframe, changed.stream = packet.is_keyframe, stream
            output.mux(changed)
    return folder / "b.mkv", len(packets) - second


@pytest.mark.parametrize(("closed", "lost", "excused"), [
    (False, None, 2), (False, 9, None), (True, None, 0), (True, 0, 1), (True, 2, None), (True, 9, None),
    (True, -1, None),
])  # fmt: skip
def test_only_pictures_before_the_first_key_frame_may_be_left_out(tmp_path, monkeypatch, closed, lost, excused):
    """As many others may not be lost in their stead, where a decoder says nothing of one (`lost`, in order)."""
    path, count = cut_at_second_key(tmp_path, closed=closed)
    with open_source(path) as source:
        times = [frame.pts for frame in source]
    assert len(times) == (count if closed else count - 2)

    def without_one(stream):
        decode = decoder_of(stream)
        return lambda packet: [frame for frame in decode(packet) if lost is None or frame.pts != times[lost]]

    monkeypatch.setattr(clip_frames, "decoder_of", without_one)
    if excused is None:
        with pytest.raises(VideoError, match=f"expected {count} frames, found {len(times) - 1} that decode"):
            frames_of(path)
        return
    with open_source(path) as source:
        assert len(list(source)) == count - excused
    assert len(source.warnings) == (excused > 0)
    assert not source.is_incomplete


@pytest.mark.parametrize("whole", [(), (2, 3, 7)], ids=["fields", "fields and frames"])
def test_fields_that_are_coded_apart_are_counted_as_frames(tmp_path, whole):
    path = write_field_pictures(tmp_path / "a.ts", 10, whole=whole)
    with open_source(path) as source:
        frames = list(source)
        info = source.info
    assert (info.frame_count, info.average_rate, source.warnings) == (10, 25, [])
    assert [frame.pts - frames[0].pts for frame in frames] == [3600 * n for n in range(10)]
    assert {frame.duration for frame in frames} == {3600}


def test_fields_that_were_copied_into_another_container_are_counted_as_frames(tmp_path):
    path = write_field_pictures(tmp_path / "a.ts", 10)
    for name in ("a.mkv", "a.mp4", "a.h264"):
        with av.open(path) as source, av.open(tmp_path / name, "w") as output:
            stream = output.add_stream_from_template(source.streams.video[0])
            for packet in source.demux(video=0):
                if packet.size:
                    packet.stream = stream
                    output.mux(packet)
        assert frames_of(tmp_path / name) == 10, name


@pytest.mark.parametrize("name", ["m.ts", "p.mpg", "b.ts", "b.mkv"])
def test_a_clip_of_one_frame_has_the_rate_that_the_frame_is_shown_at(tmp_path, name):
    path = write_clip(tmp_path / name, [ramp(0)], KINDS[name])
    with open_source(path) as source:
        assert source.info.average_rate == pytest.approx(24, rel=0.05)


def test_a_page_of_ogg_whose_sum_is_wrong_is_found(tmp_path):
    if "libvpx" not in av.codecs_available:
        pytest.skip("this FFmpeg build has no libvpx")
    path = write_clip(tmp_path / "a.ogv", [ramp(3 * i) for i in range(COUNT)], ClipSpec("libvpx", "yuv420p"))
    assert frames_of(path) == COUNT
    data = bytearray(path.read_bytes())
    data[len(data) * 2 // 3] ^= 4
    path.write_bytes(data)
    with pytest.raises(VideoError, match="out of order at byte"):
        open_source(path)


@pytest.mark.parametrize("group", [1, 2])
def test_pictures_without_a_header_are_missed_by_the_numbers_of_the_others(tmp_path, group):
    spec = ClipSpec("mpeg2video", "yuv420p", options={"bf": "2", "g": "6", "sc_threshold": "1000000000"})
    path = write_clip(tmp_path / "a.mpg", [ramp(3 * i) for i in range(36)], spec)
    groups = path.read_bytes().split(b"\0\0\1\xb8")
    first, *others = groups[group].split(b"\0\0\1\0")
    # The last picture of a group leaves no gap in its own group's numbers.
    groups[group] = b"\0\0\1\0".join((first, *others[:-1])) + b"\0\0\xff\0" + others[-1]
    path.write_bytes(b"\0\0\1\xb8".join(groups))
    with pytest.raises(VideoError, match="by their numbers"):
        open_source(path)


def test_a_picture_that_a_transport_stream_times_and_does_not_hold_is_missed(tmp_path):
    path = made(tmp_path, "b.ts")
    data = bytearray(path.read_bytes())
    # A picture whose first start code is gone is a part of the one before.
    starts = [at for at in range(0, len(data), 188) if data[at + 1] & 0x40 and data[at + 2] == 0 and data[at + 1] & 1]
    at = data.find(b"\0\0\1\x09", starts[5])
    data[at : at + 188 - at % 188] = b"\xff" * (188 - at % 188)
    path.write_bytes(data)
    with pytest.raises(VideoError):
        frames_of(path)


def test_a_key_frame_that_does_not_decode_leaves_a_clip_incomplete(tmp_path):
    path = made(tmp_path, "c.3gp")
    with av.open(str(path)) as container:
        first = next(packet for packet in container.demux(video=0))
        begin, size = first.pos, first.size
    data = bytearray(path.read_bytes())
    data[begin : begin + size] = b"\xff" * size
    path.write_bytes(data)
    with open_source(path, damaged="keep") as source:
        assert len(list(source)) < COUNT
        assert source.is_incomplete
        assert source.missing_frames
    assert not any("left out" in warning for warning in source.warnings)


def test_a_transport_stream_that_begins_within_a_packet_is_whole_and_one_that_begins_with_rubbish_is_not(tmp_path):
    data = made(tmp_path, "m.ts").read_bytes()
    path = tmp_path / "begun.ts"
    path.write_bytes(b"\1" * 90 + data)
    assert frames_of(path) == COUNT
    path.write_bytes(bytes(188 * 14) + data[188 * 14 :])
    with pytest.raises(VideoError, match="its start is damaged"):
        open_source(path)


def test_what_is_cut_out_of_the_middle_of_a_nut_file_is_found(tmp_path):
    path = made(tmp_path, "n.nut")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] + data[len(data) // 2 + 500 :])
    with pytest.raises(VideoError, match=r"out of order|damaged"):
        open_source(path)


def test_an_avi_written_to_a_pipe_is_whole(tmp_path):
    path = made(tmp_path, "m.avi")
    data = bytearray(path.read_bytes())
    for mark in (b"RIFF", b"LIST"):
        at = data.find(mark) if mark == b"RIFF" else data.find(b"movi") - 8
        data[at + 4 : at + 8] = b"\xff" * 4
    path.write_bytes(data[: data.find(b"idx1")])
    assert frames_of(path) == COUNT


def test_one_picture_in_the_name_of_a_clip_is_refused(tmp_path):
    path = tmp_path / "a.y4m"
    Image.new("RGB", (8, 8)).save(path, "TIFF")
    with pytest.raises(VideoError, match="found one TIFF picture"):
        open_source(path)
    Image.new("RGB", (8, 8)).save(tmp_path / "a.gif", "PNG")
    with open_source(tmp_path / "a.gif") as source:
        assert len(list(source)) == 1


def test_a_tiff_that_claims_millions_of_rows_is_refused_at_once(tmp_path):
    path = tmp_path / "a.tif"
    Image.new("RGB", (32, 24)).save(path)
    data = path.read_bytes()
    rows = data.index(bytes.fromhex("010104000100000018000000")) if b"\x01\x01\x04\x00" in data else -1
    if rows < 0:
        rows = data.index(bytes.fromhex("01010300010000001800"))
    path.write_bytes(data[: rows + 2] + bytes.fromhex("04000100000000002a00") + data[rows + 12 :])
    with pytest.raises(VideoError, match="next to nothing"):
        open_source(path, damaged="keep")


def test_a_picture_that_says_it_is_not_coded_and_holds_one_is_damaged(tmp_path):
    """MPEG-4 stands in for a picture that is shown again by a header alone; the decoder says nothing of either."""
    path = made(tmp_path, "m.avi")
    content = bytearray(path.read_bytes())
    starts = [i for i in range(len(content)) if content.startswith(b"\x00\x00\x01\xb6", i)]
    at = starts[COUNT // 2]
    content[at + 5 : at + 17] = bytes(12)
    path.write_bytes(content)
    with pytest.raises(VideoError, match=f"expected {COUNT} frames|picture|frame"), open_source(path) as source:
        assert len(list(source)) == COUNT
    with open_source(path, damaged="keep") as source:
        assert len(list(source)) == COUNT - 1
        assert source.is_incomplete
        assert source.missing_frames == 1


def test_a_picture_that_is_not_coded_and_only_shown_again_is_none(tmp_path):
    path = write_clip(tmp_path / "m.avi", [ramp(3 * i) for i in range(COUNT)], ClipSpec("mpeg4", "yuv420p"))
    again = COUNT // 2
    # P, no second that ends, marker, five bits of time, marker, not coded, stuffing.
    header = 0b01_0_1 << 12 | again << 7 | 0b1_0_01111
    with av.open(str(path)) as source, av.open(str(tmp_path / "n.avi"), "w") as target:
        copy = target.add_stream_from_template(source.streams.video[0])
        for index, packet in enumerate(packet for packet in source.demux(video=0) if packet.size):
            taken = packet
            if index == again:
                taken = av.Packet(b"\x00\x00\x01\xb6" + header.to_bytes(2, "big"))
                taken.pts, taken.dts, taken.time_base = packet.pts, packet.dts, packet.time_base
            taken.stream = copy
            target.mux(taken)
    with open_source(tmp_path / "n.avi") as source:
        assert len(source) == len(list(source)) == COUNT - 1
        assert not source.is_incomplete


def test_a_group_that_has_lost_its_pictures_is_missed(tmp_path):
    """Where the first pictures are overwritten, no number is left but their group's header, before another's."""
    spec = ClipSpec("mpeg1video", "yuv420p", audio="mp2", audio_s=0.7, options={"g": "6"})
    path = write_clip(tmp_path / "g.mpg", [ramp(3 * i) for i in range(COUNT)], spec)
    content = path.read_bytes()
    first, second = (match.start() for match in itertools.islice(re.finditer(b"\x00\x00\x01\xb8", content), 2))
    path.write_bytes(content[: first + 8] + b"\xff" * (second - first - 8) + content[second:])
    with pytest.raises(VideoError, match="expected"), open_source(path) as source:
        assert len(list(source)) == COUNT
    with open_source(path, damaged="keep") as source:
        assert 0 < len(list(source)) < COUNT
        assert source.is_incomplete
