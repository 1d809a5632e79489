"""Sound of any codec in any kind of file plays, at its length, level and time, or a sentence came before the run."""

import io
import re
from fractions import Fraction
from itertools import pairwise

import av
import numpy as np
import pytest

from seedvr2_engine.video import SinkOptions, open_sink, open_source
from seedvr2_engine.video.streams.sound.encoder import AudioEncoder, silent_frame
from seedvr2_engine.video.streams.sound.table import (
    PLAYED,
    AudioTarget,
    audio_targets,
    is_lossless,
    is_played,
    usual_layout,
)
from seedvr2_engine.video.streams.timing import place

from ..made.clips import packets_of
from ..made.sounds import audio_encoders, clip_with, heard, write_sound
from ..writing.test_writer import copy_clip

TARGETS = [".mp4", ".mov", ".mkv", ".webm"]
MUXERS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}
SAMPLE = ["aac", "ac3", "libopus", "flac", "pcm_s24le", "adpcm_ms", "libmp3lame"]
# A second of a coarse codec, decoded and encoded anew; real_144 and AMR stay within it too.
LEVEL_TOLERANCE = 0.12


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Clips by encoder, made once."""
    folder = tmp_path_factory.mktemp("clips")
    known = {}

    def clip(encoder):
        if encoder not in known:
            known[encoder] = clip_with(folder, encoder)
        return known[encoder]

    return clip


def check_pair(clips, tmp_path, encoder, target):
    made = clips(encoder)
    if made is None:
        pytest.skip(f"no container here takes {encoder} beside a video")
    source, _ = made
    before = heard(source)
    sink = copy_clip(source, tmp_path / f"b{target}")
    after = heard(tmp_path / f"b{target}")
    assert after.rises
    assert after.tone_s == pytest.approx(before.tone_s, abs=0.006)
    assert after.length_s == pytest.approx(before.length_s, abs=0.06)
    assert after.level == pytest.approx(before.level, rel=LEVEL_TOLERANCE)
    with av.open(str(source)) as container:
        codec = container.streams.audio[0].codec_context.codec.canonical_name
    with av.open(str(tmp_path / f"b{target}")) as container:
        written = container.streams.audio[0].codec_context.codec.canonical_name
    assert written in PLAYED[MUXERS[target]]
    if codec in PLAYED[MUXERS[target]]:
        assert written == codec
    else:
        assert any("encoded anew" in warning for warning in sink.warnings)
        if is_lossless(codec) and target != ".webm":
            count = min(before.samples.shape[1], after.samples.shape[1])
            assert np.abs(before.samples[:, :count] - after.samples[:, :count]).max() < 2**-15


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("encoder", SAMPLE)
def test_sound_plays_in_every_kind_of_file(clips, tmp_path, encoder, target):
    check_pair(clips, tmp_path, encoder, target)


@pytest.mark.exhaustive
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("encoder", [name for name in audio_encoders() if name not in SAMPLE])
def test_sound_of_every_encoder_plays_in_every_kind_of_file(clips, tmp_path, encoder, target):
    check_pair(clips, tmp_path, encoder, target)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(("start_s", "video_s"), [(0.2, 0.0), (0.0, 0.2)])
def test_the_offset_of_the_sound_is_kept(tmp_path, target, start_s, video_s):
    source = write_sound(tmp_path / "a.mkv", "pcm_f32le", start_s=start_s, video_s=video_s)
    copy_clip(source, tmp_path / f"b{target}")
    before, after = heard(source), heard(tmp_path / f"b{target}")
    assert before.tone_s == pytest.approx(start_s - video_s + 0.3, abs=0.002)
    assert after.tone_s == pytest.approx(before.tone_s, abs=0.004)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("layout", ["5.1(side)", "5.1", "quad", "2.1", "7.1", "6.1", "mono"])
def test_channels_find_a_place(tmp_path, layout, target):
    source = write_sound(tmp_path / "a.mkv", "flac", layout=layout)
    copy_clip(source, tmp_path / f"b{target}")
    before, after = heard(source), heard(tmp_path / f"b{target}")
    assert after.length_s == pytest.approx(before.length_s, abs=0.06)
    if target != ".webm" or layout != "2.1":
        assert np.count_nonzero(np.abs(after.samples).max(1) > 0.05) >= min(before.samples.shape[0], 6)


def test_a_layout_that_nobody_names_is_guessed():
    assert usual_layout("6 channels") == "5.1"
    assert usual_layout("5.1(side)") == "5.1(side)"
    targets = {muxer: audio_targets(muxer, "ac3", "5.1(side)", "fltp", 44100)[0] for muxer in PLAYED}
    assert [targets[muxer].layout for muxer in PLAYED] == ["5.1"] * 4
    assert [targets[muxer].rate for muxer in PLAYED] == [44100, 44100, 44100, 48000]
    assert audio_targets("mp4", "pcm_s24le", "22.2", "s32", 48000)[0].layout == "5.1"


@pytest.mark.parametrize(("encoder", "said"), [("pcm_f32le", "in 24 bits"), ("pcm_s24le", "without loss")])
def test_fewer_bits_are_said(tmp_path, encoder, said):
    source = write_sound(tmp_path / "a.mkv", encoder)
    sink = copy_clip(source, tmp_path / "b.mp4")
    assert any(f"as alac ({said})" in warning for warning in sink.warnings)


@pytest.mark.parametrize("rate", [8000, 11025, 37800, 96000, 192000])
@pytest.mark.parametrize("target", [".mp4", ".webm"])
def test_any_rate_becomes_one_that_the_encoder_has(tmp_path, rate, target):
    source = write_sound(tmp_path / "a.mkv", "tta", rate=rate)
    copy_clip(source, tmp_path / f"b{target}")
    before, after = heard(source), heard(tmp_path / f"b{target}")
    assert after.length_s == pytest.approx(before.length_s, abs=0.06)
    assert after.tone_s == pytest.approx(before.tone_s, abs=0.006)


def test_sound_cut_off_by_an_edit_list_stays_silent(tmp_path):
    """What lies before the start is in the file, and no player plays it."""
    source = write_sound(tmp_path / "a.mp4", "aac", start_s=-0.5)
    with av.open(str(source)) as container:
        discarded = [packet.is_discard for packet in container.demux(audio=0) if packet.size]
    assert sum(discarded) > 20
    before = heard(source)
    for target in TARGETS:
        copy_clip(source, tmp_path / f"b{target}")
        after = heard(tmp_path / f"b{target}")
        assert after.length_s == pytest.approx(before.length_s, abs=0.03)
        assert after.start_s == pytest.approx(0, abs=0.03)
        assert after.level == pytest.approx(before.level, rel=0.1)


@pytest.mark.parametrize("target", [".mp4", ".webm"])
def test_encoded_sound_is_cut_to_the_frame(tmp_path, target):
    source = write_sound(tmp_path / "a.mkv", "pcm_s16le")
    copy_clip(source, tmp_path / f"b{target}", start=5, frames=10)
    after = heard(tmp_path / f"b{target}")
    assert after.tone_s == pytest.approx(0.1, abs=0.004)
    assert after.length_s == pytest.approx(0.4, abs=0.03)


def test_packets_of_coarse_times_do_not_fall_together(tmp_path):
    """AVI counts sound in packets; Opus packets are shorter than those of ADPCM."""
    source = write_sound(tmp_path / "a.avi", "adpcm_ms", layout="mono")
    copy_clip(source, tmp_path / "b.webm")
    with av.open(str(tmp_path / "b.webm")) as container:
        times = [packet.pts for packet in container.demux(audio=0) if packet.size]
    assert all(later > earlier for earlier, later in pairwise(times))
    assert max(np.diff(times)) <= 22


def test_a_gap_is_silence_and_an_overlap_is_cut(tmp_path):
    source = tmp_path / "a.mkv"
    with av.open(str(source), "w") as output:
        video = output.add_stream("mpeg4", rate=25)
        video.width, video.height, video.pix_fmt = 16, 16, "yuv420p"
        sound = output.add_stream("pcm_s16le", rate=48000)
        sound.codec_context.layout = "mono"
        for index in range(25):
            frame = av.VideoFrame(16, 16, "yuv420p")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            output.mux(video.encode(frame))
        output.mux(video.encode(None))
        # 0.0 to 0.2 s, then from 0.5 s on, then a packet that begins in the midst of the one before.
        for start in (0, 4800, 24000, 28800, 31200):
            part = silent_frame("s16", "mono", 48000, 4800)
            np.frombuffer(memoryview(part.planes[0]), np.int16)[:] = 8000
            part.pts, part.time_base = start, Fraction(1, 48000)
            output.mux(sound.encode(part))
        output.mux(sound.encode(None))
    copy_clip(source, tmp_path / "b.mp4", codec="h264")
    samples = heard(tmp_path / "b.mp4").samples[0]
    assert samples.size == 36000
    assert np.abs(samples[9600:24000]).max() == 0
    assert samples[:9600].min() > 0.2
    assert samples[24000:].min() > 0.2


def test_a_wrong_time_does_not_become_hours_of_silence(tmp_path):
    source = write_sound(tmp_path / "a.mkv", "pcm_s16le", layout="mono")
    late = tmp_path / "late.mkv"
    with av.open(str(source)) as old, av.open(str(late), "w") as new:
        targets = {stream.index: new.add_stream_from_template(stream, opaque=True) for stream in old.streams}
        for packet in old.demux():
            if packet.size:
                if packet.stream.type == "audio" and packet.pts > 500:
                    packet.pts, packet.dts = packet.pts + 10**7, packet.dts + 10**7
                packet.stream = targets[packet.stream.index]
                new.mux(packet)
    copy_clip(late, tmp_path / "b.webm")
    assert heard(tmp_path / "b.webm").length_s == pytest.approx(1.0, abs=0.05)


def test_no_channels_are_no_sound(tmp_path):
    """A forged header: the job goes on without it, and says so before the first frame."""
    source = write_sound(tmp_path / "a.mkv", "pcm_s16le", layout="mono")
    source.write_bytes(source.read_bytes().replace(b"\x9f\x81\x01", b"\x9f\x81\x00", 1))
    with open_source(source) as clip:
        sink = open_sink(tmp_path / "b.mp4", width=16, height=16, source=clip.info, options=SinkOptions())
        said = list(sink.warnings)
        with sink:
            for frame in clip:
                sink.write(frame.rgb, pts=frame.pts, duration=frame.duration)
    assert len(said) == 1
    assert "Audio stream 1 (pcm_s16le) has 0 channels" in said[0]
    with av.open(str(tmp_path / "b.mp4")) as container:
        assert not container.streams.audio


def test_sound_that_breaks_in_mid_run_ends_that_track_alone(tmp_path, monkeypatch):
    from seedvr2_engine.video.streams.sound.encoder import AudioEncoder

    source = write_sound(tmp_path / "a.mkv", "flac", copies=2)
    good, broken = AudioEncoder.packets, []

    def breaks(self, placed):
        if placed.packet.stream.index == 1 and placed.time_s is not None and placed.time_s > 0.5:
            broken.append(placed)
            raise av.error.PatchWelcomeError(1, "not supported")
        return good(self, placed)

    monkeypatch.setattr(AudioEncoder, "packets", breaks)
    sink = copy_clip(source, tmp_path / "b.webm")
    assert len(broken) == 1
    assert sum("the rest of it is left out" in warning for warning in sink.warnings) == 1
    assert heard(tmp_path / "b.webm", 0).length_s == pytest.approx(0.5, abs=0.12)
    assert heard(tmp_path / "b.webm", 1).length_s == pytest.approx(1.0, abs=0.03)


def test_what_is_said_is_said_before_the_first_frame(tmp_path):
    source = write_sound(tmp_path / "a.mkv", "pcm_s16le")
    with open_source(source) as clip:
        sink = open_sink(tmp_path / "b.webm", width=16, height=16, source=clip.info)
        assert any("encoded anew as libopus" in warning for warning in sink.warnings)
        sink.abort(keep_partial=False)


@pytest.mark.parametrize("target", [".mkv", ".mp4"])
@pytest.mark.parametrize("encoder", ["aac", "flac", "ac3"])
def test_damaged_sound_that_is_copied_is_said_once_with_its_count(tmp_path, encoder, target):
    if encoder == "flac" and target == ".mp4":
        pytest.skip("encoded anew there")
    source = write_sound(tmp_path / "a.mkv", encoder)
    assert not [
        sentence for sentence in copy_clip(source, tmp_path / f"whole{target}").warnings if "damaged" in sentence
    ]
    data = bytearray(source.read_bytes())
    with av.open(str(source)) as container:
        packets = [bytes(packet) for packet in container.demux(audio=0) if packet.size]
    first = round(0.45 / len_s(encoder))
    for packet in packets[first : first + 3]:
        begin = data.index(packet)
        data[begin : begin + len(packet)] = b"\xff" * len(packet)
    damaged = tmp_path / "damaged.mkv"
    damaged.write_bytes(data)
    (said,) = [sentence for sentence in copy_clip(damaged, tmp_path / f"b{target}").warnings if "damaged" in sentence]
    done = "copied as in the source"
    if (encoder, target) == ("ac3", ".mp4"):
        done = "left out, which this kind of file does not take"
    place = re.fullmatch(rf"Stream 1: 3 packets of sound are damaged \(the first at (.*) s\); they are {done}\.", said)
    assert float(place[1]) == pytest.approx(first * len_s(encoder), abs=0.03)
    left = len(packets) - 3 * (encoder == "ac3" and target == ".mp4")
    assert len(packets_of(tmp_path / f"b{target}", "audio")) == left


def len_s(encoder: str) -> float:
    """Seconds of one packet at 48 kHz."""
    return {"aac": 1024, "flac": 4608, "ac3": 1536}[encoder] / 48000


@pytest.mark.parametrize(
    ("muxer", "codec", "layout", "rate", "encoder", "bit_rate"),
    [
        ("mp4", "vorbis", "mono", 48000, "aac", 96_000),
        ("mp4", "vorbis", "stereo", 48000, "aac", 192_000),
        ("mp4", "dts", "5.1", 48000, "aac", 576_000),
        ("mp4", "vorbis", "stereo", 8000, "aac", 96_000),
        ("webm", "ac3", "5.1", 48000, "libopus", 576_000),
        ("mp4", "pcm_s16le", "stereo", 48000, "alac", None),
        ("mov", "flac", "stereo", 48000, "pcm_s16le", None),
    ],
)
def test_what_is_encoded_anew_gets_bits_for_every_channel(muxer, codec, layout, rate, encoder, bit_rate):
    kind = "s16" if bit_rate is None else "fltp"
    target = audio_targets(muxer, codec, layout, kind, rate)[0]
    assert (target.encoder, target.layout, target.rate, target.bit_rate) == (encoder, layout, rate, bit_rate)


@pytest.mark.parametrize(
    ("muxer", "rate", "is_kept"),
    [("mp4", 16000, True), ("mov", 12000, False), ("mp4", 8000, False), ("matroska", 8000, True)],
)
def test_mp3_of_the_lowest_rates_is_no_standard_in_mp4(muxer, rate, is_kept):
    assert is_played("mp3", muxer, rate) == is_kept


@pytest.mark.parametrize(("begin_ms", "end_ms"), [(0, 100), (10, 100), (0, 15), (10, 15), (30, 31)])
def test_sound_is_cut_to_the_sample_at_both_ends(tmp_path, begin_ms, end_ms):
    rate, counted = 48000, np.arange(9600, dtype=np.int16)
    with av.open(str(tmp_path / "a.wav"), "w") as made:
        stream = made.add_stream("pcm_s16le", rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(counted[None], format="s16", layout="mono")
        frame.sample_rate = rate
        made.mux(stream.encode(frame))
    with av.open(str(tmp_path / "a.wav")) as source, av.open(io.BytesIO(), "w", format="wav") as output:
        encoder = AudioEncoder(output, source.streams.audio[0], AudioTarget("pcm_s16le", "mono", "s16", rate))
        encoder.start(Fraction(begin_ms, 1000), Fraction(1))
        encoder.end(Fraction(end_ms, 1000))
        packets = [out for packet in source.demux() for out in encoder.packets(place(packet, Fraction(0)))]
        data = b"".join(bytes(packet) for packet in packets + encoder.finish())
    assert np.array_equal(np.frombuffer(data, np.int16), counted[begin_ms * 48 : end_ms * 48])
