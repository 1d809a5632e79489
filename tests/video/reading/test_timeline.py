"""Times that wrap, jump, run backwards or are missing become one timeline for all streams."""

from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

import pytest

from seedvr2_engine.video import open_sink, open_source
from seedvr2_engine.video.reading.timeline import Clock, Shift, TimelineBuilder

from ..made.clips import ClipSpec, packets_of, ramp, write_clip

VIDEO, AUDIO = 0, 1
TICKS = Fraction(1, 90000)
MPEG2 = ClipSpec("mpeg2video", "yuv420p", audio="mp2", options={"b": "1M", "bf": "2"})


@dataclass
class FakePacket:
    pts: int | None
    dts: int | None
    duration: int | None
    time_base: Fraction = TICKS


def recording(frames: int, start: int, *, reorder: bool = True) -> list[tuple[int, int, int, int]]:
    """(stream, pts, dts, duration) of a recording at 25 frames a second, sound 24 ms a packet, in the file's order."""
    packets = []
    for index in range(frames):
        dts = start + 3600 * index
        # I P B B P B B: a P is shown three frames after its turn, a B at once.
        shown = (0 if index == 0 else 3 if index % 3 == 1 else 0) if reorder else 0
        packets.append((dts, VIDEO, dts + 3600 * (shown + 1 if reorder else 0), dts, 3600))
    for index in range(frames * 40 // 24):
        time = start + 2160 * index
        packets.append((time, AUDIO, time, time, 2160))
    return [packet[1:] for packet in sorted(packets)]


def mapped(recordings, *, jumps=True, first_pts=None):
    builder = TimelineBuilder(VIDEO, jumps=jumps, steps_back=True)
    packets = [packet for one in recordings for packet in one]
    for stream, pts, dts, duration in packets:
        builder.add(stream, pts, dts, duration, TICKS, is_steady=True)
    timeline = builder.build(first_pts=first_pts)
    clocks = {stream: timeline.clock(stream) for stream in (VIDEO, AUDIO)}
    times: dict[int, list[tuple[int, int]]] = {VIDEO: [], AUDIO: []}
    for stream, pts, dts, duration in packets:
        packet = FakePacket(pts, dts, duration)
        if clocks[stream].move(packet):
            times[stream].append((packet.pts, packet.dts))
    return timeline, times


@pytest.mark.parametrize("jumps", [False, True])
def test_a_sound_recording_keeps_every_time(jumps):
    packets = recording(50, 129600)
    timeline, times = mapped([packets], jumps=jumps)
    assert timeline.shifts == {}
    assert times[VIDEO] == [(pts, dts) for stream, pts, dts, _ in packets if stream == VIDEO]


@pytest.mark.parametrize("second_start", [0, 126000, 129600 - 4000, 10**7, 2**33 - 90000])
@pytest.mark.parametrize("reorder", [False, True])
def test_joined_recordings_go_on_after_the_last_frame(second_start, reorder):
    """Whether the second clock begins before, just before, or long after the end of the first."""
    parts = [recording(40, 129600, reorder=reorder), recording(40, second_start, reorder=reorder)]
    timeline, times = mapped([*parts, parts[0]])
    assert len(timeline.joins_s) == 2
    shown = sorted(pts for pts, _ in times[VIDEO])
    assert len(shown) == 120
    assert {after - before for before, after in pairwise(shown)} <= {3600, 7200, 10800}
    heard = [pts for pts, _ in times[AUDIO]]
    assert heard == sorted(set(heard))
    # In each part, sound and picture stand to each other as they did.
    begin_s = [pts for pts, _ in times[VIDEO][::40]]
    for begin, part in zip(begin_s, [parts[0], parts[1]], strict=False):
        offset = part[0][1] - next(pts for stream, pts, _, _ in part if stream == VIDEO)
        moved = begin - next(pts for stream, pts, _, _ in part if stream == VIDEO)
        own = {pts + moved for stream, pts, _, _ in part if stream == AUDIO}
        assert len(own & set(heard)) >= len(own) - 3
        assert offset <= 0


def test_a_clock_that_begins_before_zero_begins_at_zero():
    packets = recording(25, -40000)
    timeline, times = mapped([packets], first_pts=min(p[1] for p in packets if p[0] == VIDEO))
    assert timeline.first_shift_s == Fraction(40000, 90000) or timeline.first_shift_s == -min(
        Fraction(pts, 90000) for _, pts, _, _ in packets
    )
    assert min(pts for pts, _ in times[VIDEO] + times[AUDIO]) == 0


def test_a_gap_is_no_jump_where_clocks_cannot_jump():
    timeline, _ = mapped([recording(10, 0), recording(10, 90 * 90000)], jumps=False)
    assert timeline.shifts == {}


def test_sound_that_runs_on_beyond_its_picture_gives_way_to_the_next_part():
    clock = Clock((Shift(0, Fraction(0)), Shift(2, Fraction(10))))
    packets = [FakePacket(t, t, 9000) for t in (0, 9000, -895500, -886500)]
    assert [clock.move(packet) for packet in packets] == [True, True, False, True]
    assert packets[3].pts == 13500


@pytest.mark.parametrize(("begin", "is_played"), [(9400, False), (13400, False), (13600, True)])
def test_half_a_packet_over_the_end_decides(begin, is_played):
    clock = Clock((Shift(0, Fraction(0)), Shift(2, Fraction(10))))
    packets = [FakePacket(t, t, 9000) for t in (0, 9000, begin - 900000)]
    assert [clock.move(packet) for packet in packets] == [True, True, is_played]
    assert packets[2].dts == packets[2].pts == begin


@pytest.mark.parametrize(
    ("jumps", "gap_s", "is_join"),
    [(True, 9, False), (True, 11, True), (False, 11, False), (False, -0.09, False), (False, -0.11, True)],
)
def test_ten_seconds_forwards_and_a_tenth_backwards_are_jumps(jumps, gap_s, is_join):
    builder = TimelineBuilder(VIDEO, jumps=jumps, steps_back=True)
    # Back from the last one's beginning, forward from its end.
    second = 24 * 3600 + round(gap_s * 90000) + (3600 if gap_s > 0 else 0)
    for start in (0, second):
        for index in range(25):
            time = start + 3600 * index
            builder.add(VIDEO, time, time, 3600, TICKS, is_steady=True)
    timeline = builder.build()
    assert timeline.joins_s == ((1.0,) if is_join else ())
    assert timeline.joins_packet == ((25,) if is_join else ())


def joined(folder, *names, frames=25):
    path = folder / "joined.ts"
    parts = [write_clip(folder / name, [ramp(i) for i in range(frames)], MPEG2) for name in names]
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


@pytest.mark.parametrize("ending", [".mp4", ".mkv"])
def test_two_joined_recordings_become_one_clip_with_one_sentence(tmp_path, ending):
    path = joined(tmp_path, "1.ts", "2.ts")
    with open_source(path) as source:
        (sentence,) = source.warnings
        assert "jumps 1 time (at 1.0" in sentence, "counted from the clip's start, as players do"
        with open_sink(tmp_path / f"out{ending}", width=64, height=48, source=source.info) as sink:
            for frame in source:
                sink.write(frame.rgb, pts=frame.pts, duration=frame.duration)
    assert all("is encoded anew" in warning for warning in sink.warnings)
    assert source.warnings == [sentence]
    video = sorted(float(p.pts * p.time_base) for p in packets_of(sink.path, "video"))
    assert len(video) == 50
    assert all(0.035 < after - before < 0.13 for before, after in pairwise(video))
    sound = [float(p.pts * p.time_base) for p in packets_of(sink.path, "audio")]
    assert all(0.011 < after - before < 0.1 for before, after in pairwise(sound))
    assert abs(sound[-1] - video[-1]) < 0.3


def wrapped(path, seconds_before: float):
    """Move all times of a transport stream so that its 33-bit clock wraps after some seconds; PCR, PTS and DTS."""
    data = bytearray(path.read_bytes())
    first = None
    for at in range(0, len(data), 188):
        begin = at + 4
        if data[at + 3] & 0x20:
            if data[at + 4] >= 7 and data[at + 5] & 0x10:
                base = int.from_bytes(data[at + 6 : at + 11], "big") >> 7
                rest = data[at + 10] & 0x7F
                first = base if first is None else first
                new = (base - first + 2**33 - round(seconds_before * 90000)) % 2**33
                data[at + 6 : at + 11] = (new << 7 | rest).to_bytes(5, "big")
            begin = at + 5 + data[at + 4]
        if not data[at + 1] & 0x40 or data[begin : begin + 3] != b"\0\0\1" or first is None:
            continue
        for place in (begin + 9, begin + 14)[: data[begin + 7] >> 6 if data[begin + 7] >> 6 < 3 else 2][:2]:
            if place == begin + 14 and data[begin + 7] >> 6 != 3:
                continue
            b = data[place : place + 5]
            old = (b[0] >> 1 & 7) << 30 | b[1] << 22 | (b[2] >> 1) << 15 | b[3] << 7 | b[4] >> 1
            new = (old - first + 2**33 - round(seconds_before * 90000)) % 2**33
            mark = b[0] & 0xF1
            data[place : place + 5] = bytes(
                (
                    mark | (new >> 30) << 1,
                    new >> 22 & 255,
                    (new >> 15 & 127) << 1 | 1,
                    new >> 7 & 255,
                    (new & 127) << 1 | 1,
                )
            )
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("seconds_before", [2.5, 0.9, 1.2])
def test_a_recording_across_the_end_of_the_clock_plays_from_its_start(tmp_path, seconds_before):
    path = wrapped(write_clip(tmp_path / "w.ts", [ramp(i) for i in range(25)], MPEG2), seconds_before)
    with open_source(path) as source:
        assert source.info.start_s >= 0
        with open_sink(tmp_path / "out.mp4", width=64, height=48, source=source.info) as sink:
            for frame in source:
                sink.write(frame.rgb, pts=frame.pts, duration=frame.duration)
    with open_source(sink.path) as result:
        times = [float(frame.pts * result.info.time_base) for frame in result]
    assert len(times) == 25
    assert 0 <= times[0] < 0.1
    sound = packets_of(sink.path, "audio")
    assert abs(float(sound[-1].pts * sound[-1].time_base) - times[-1]) < 0.15


@pytest.mark.parametrize(("codec", "ending"), [("libx264", "h264"), ("libx265", "h265"), ("mpeg2video", "m2v")])
def test_a_raw_stream_has_the_rate_that_it_says(tmp_path, codec, ending):
    options = {"x265-params": "log-level=none"} if codec == "libx265" else {}
    spec = ClipSpec(codec, "yuv420p", rate=Fraction(30000, 1001), options=options)
    with open_source(write_clip(tmp_path / f"a.{ending}", [ramp(i) for i in range(8)], spec)) as source:
        assert source.info.average_rate == Fraction(30000, 1001)
        assert [f.pts * source.info.time_base for f in source] == [Fraction(1001 * i, 30000) for i in range(8)]
    assert source.warnings == []


def test_a_raw_stream_that_says_no_rate_gets_a_sentence(tmp_path):
    spec = ClipSpec("mjpeg", "yuvj420p", rate=Fraction(10))
    with open_source(write_clip(tmp_path / "a.mjpeg", [ramp(i) for i in range(4)], spec)) as source:
        assert (source.info.average_rate, len(list(source))) == (25, 4)
    assert source.warnings == ["The file does not say how many frames a second it has; 25 are taken."]


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_avi_of_uneven_steps_and_reordered_pictures_keeps_its_order(tmp_path, codec):
    """AVI stores when pictures are decoded; when they are shown, FFmpeg reckons as if all steps were even."""
    pts = [index + index // 3 for index in range(20)]
    spec = ClipSpec(codec, "yuv420p", pts=pts, options={"bf": "2", "b": "9M"})
    with open_source(write_clip(tmp_path / "a.avi", [ramp(2 * index) for index in range(20)], spec)) as source:
        frames = list(source)
    assert source.warnings == []
    shown = [frame.pts - frames[0].pts for frame in frames]
    # How long the last three are shown is nowhere in the file.
    assert shown[:17] == pts[:17]
    assert all(after > before for before, after in pairwise(shown))
    # In their order: the third value names the frame.
    named = [float(frame.rgb[2].mean()) for frame in frames]
    assert named == sorted(named)
