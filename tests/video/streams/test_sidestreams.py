"""Audio, subtitles, chapters and metadata arrive with the pictures, in step with them."""

from fractions import Fraction
from itertools import pairwise

import av
import pytest

from seedvr2_engine.video import open_source
from seedvr2_engine.video.streams.copied import CopiedStream
from seedvr2_engine.video.streams.timing import Placed

from ..made.clips import ClipSpec, packets_of, ramp, write_clip
from ..writing.test_writer import copy_clip

WITH_AUDIO = ClipSpec(codec="libx264", pix_fmt="yuv420p", audio="aac", audio_s=2.0, options={"preset": "ultrafast"})


def starts_s(path) -> tuple[Fraction, Fraction]:
    """Where video and audio begin, in seconds."""
    first = []
    for kind in ("video", "audio"):
        packets = packets_of(path, kind)
        first.append(min(packet.pts * packet.time_base for packet in packets))
    return first[0], first[1]


def audio_clip(path, frames=50, **changes):
    spec = ClipSpec(**{**WITH_AUDIO.__dict__, **changes})
    return write_clip(path, [ramp(i) for i in range(frames)], spec)


@pytest.mark.parametrize("target", ["b.mp4", "b.mov", "b.mkv"])
def test_audio_is_copied_bit_by_bit(tmp_path, target):
    path = audio_clip(tmp_path / "a.mp4")
    sink = copy_clip(path, tmp_path / target)
    assert sink.warnings == []
    before, after = packets_of(path, "audio"), packets_of(tmp_path / target, "audio")
    assert [bytes(packet) for packet in before] == [bytes(packet) for packet in after]
    for old, new in zip(before, after, strict=True):
        assert float(old.pts * old.time_base) == pytest.approx(float(new.pts * new.time_base), abs=0.0011 + 0.022)


@pytest.mark.parametrize("target", ["b.mp4", "b.mkv"])
@pytest.mark.parametrize(("video_s", "audio_s"), [(Fraction(1, 5), Fraction(0)), (Fraction(0), Fraction(3, 10))])
def test_the_offset_between_sound_and_picture_is_kept(tmp_path, target, video_s, audio_s):
    pts = [round(video_s * 12800) + 512 * i for i in range(50)]
    path = audio_clip(
        tmp_path / "a.mkv",
        codec="libx264",
        time_base=Fraction(1, 12800),
        pts=pts,
        audio="pcm_s16le",
        audio_start_s=audio_s,
    )
    before = starts_s(path)
    assert float(before[1] - before[0]) == pytest.approx(float(audio_s - video_s), abs=0.002)
    copy_clip(path, tmp_path / target)
    after = starts_s(tmp_path / target)
    assert float(after[1] - after[0]) == pytest.approx(float(before[1] - before[0]), abs=0.002)
    assert float(min(after)) == pytest.approx(0, abs=0.001)


def test_trimming_cuts_the_sound_at_the_same_places(tmp_path):
    path = audio_clip(tmp_path / "a.mkv", audio="pcm_s16le")
    copy_clip(path, tmp_path / "b.mkv", start=10, frames=20)
    with open_source(tmp_path / "b.mkv") as source:
        assert len(list(source)) == 20
    old = b"".join(bytes(packet) for packet in packets_of(path, "audio"))
    packets = packets_of(tmp_path / "b.mkv", "audio")
    new = b"".join(bytes(packet) for packet in packets)
    begin = old.index(new) / (48000 * 4)
    start = float(packets[0].pts * packets[0].time_base)
    assert begin == pytest.approx(0.4 + start, abs=0.002)
    assert 0 <= start < 0.03
    assert len(new) / (48000 * 4) == pytest.approx(0.8, abs=0.045)


def test_trimming_only_the_start_keeps_the_rest_of_the_sound(tmp_path):
    path = audio_clip(tmp_path / "a.mkv", audio="pcm_s16le")
    copy_clip(path, tmp_path / "b.mkv", start=40)
    length = sum(packet.size for packet in packets_of(tmp_path / "b.mkv", "audio")) / (48000 * 4)
    assert length == pytest.approx(2.0 - 1.6, abs=0.03)


def test_sound_that_does_not_fit_is_encoded_anew(tmp_path):
    path = audio_clip(tmp_path / "a.mp4")
    sink = copy_clip(path, tmp_path / "b.webm", frames=20)
    assert any("encoded anew as libopus" in warning for warning in sink.warnings)
    with av.open(str(tmp_path / "b.webm")) as container:
        stream = container.streams.audio[0]
        frames = list(container.decode(stream))
    assert stream.codec_context.name in ("opus", "libopus")
    duration = sum(frame.samples for frame in frames) / 48000
    assert duration == pytest.approx(0.8, abs=0.06)
    assert max(abs(frame.to_ndarray()).max() for frame in frames) == pytest.approx(0.3, abs=0.05)


def test_a_broadcast_stream_starts_at_zero_and_stays_in_step(tmp_path):
    pts = [12800 * 2 + 512 * i for i in range(50)]
    path = audio_clip(tmp_path / "a.ts", time_base=Fraction(1, 12800), pts=pts, audio_start_s=Fraction(21, 10))
    with open_source(path) as source:
        assert source.info.start_s > 1
    before = starts_s(path)
    for target in ("b.mp4", "b.mkv"):
        copy_clip(path, tmp_path / target)
        after = starts_s(tmp_path / target)
        assert float(after[1] - after[0]) == pytest.approx(float(before[1] - before[0]), abs=0.002)
        assert abs(min(after)) < 0.03
        with open_source(tmp_path / target) as source:
            assert len(list(source)) == 50
        with av.open(str(tmp_path / target)) as container:
            assert sum(frame.samples for frame in container.decode(audio=0)) == pytest.approx(96000, abs=3000)


def test_sound_whose_clock_begins_anew_goes_on(tmp_path):
    """Two recordings in one file: the second one's times begin anew."""
    first, second = audio_clip(tmp_path / "1.ts", 25, audio_s=1.0), audio_clip(tmp_path / "2.ts", 25, audio_s=1.0)
    joined = tmp_path / "joined.ts"
    joined.write_bytes(first.read_bytes() + second.read_bytes())
    sink = copy_clip(joined, tmp_path / "b.mkv")
    assert not any("not later than the ones before" in warning for warning in sink.warnings)
    times = [packet.pts for packet in packets_of(tmp_path / "b.mkv", "audio")]
    assert times == sorted(set(times))
    assert len(packets_of(joined, "audio")) - 2 <= len(times) <= len(packets_of(joined, "audio"))


def test_another_frame_rate_drops_the_sound_and_says_so(tmp_path):
    sink = copy_clip(audio_clip(tmp_path / "a.mp4"), tmp_path / "b.mp4", rate=Fraction(50))
    assert any("frame rate was changed" in warning for warning in sink.warnings)
    with open_source(tmp_path / "b.mp4") as source:
        assert (source.info.average_rate, source.info.audio) == (50, ())


def with_subtitles(folder):
    """A Matroska file with a picture, a sound, two subtitle lines, chapters and a title."""
    clip = audio_clip(folder / "plain.mkv")
    lines = "1\n00:00:00,200 --> 00:00:00,900\nfirst\n\n2\n00:00:01,000 --> 00:00:01,800\nsecond\n\n"
    (folder / "lines.srt").write_text(lines)
    path = folder / "a.mkv"
    with av.open(str(clip)) as main, av.open(str(folder / "lines.srt")) as text, av.open(str(path), "w") as output:
        output.metadata.update({"title": "A title", "artist": "Someone"})
        chapters = [
            {
                "id": i,
                "start": 1000 * i,
                "end": 1000 * (i + 1),
                "time_base": Fraction(1, 1000),
                "metadata": {"title": f"c{i}"},
            }
            for i in range(2)
        ]
        output.set_chapters(chapters)
        inputs = [main.streams.video[0], main.streams.audio[0], text.streams.subtitles[0]]
        targets = [output.add_stream_from_template(stream, opaque=True) for stream in inputs]
        targets[1].metadata["language"] = "deu"
        targets[2].metadata["language"] = "fra"
        for stream, target in zip(inputs, targets, strict=True):
            for packet in stream.container.demux(stream):
                if packet.dts is not None:
                    packet.stream = target
                    output.mux(packet)
    return path


def test_subtitles_chapters_languages_and_metadata_are_carried(tmp_path):
    path = with_subtitles(tmp_path)
    with open_source(path) as source:
        assert [stream.codec for stream in source.info.subtitles] == ["subrip"]
        assert source.info.chapter_count == 2
    sink = copy_clip(path, tmp_path / "b.mkv")
    assert sink.warnings == []
    with av.open(str(tmp_path / "b.mkv")) as container:
        assert container.metadata["title"] == "A title"
        assert [chapter["metadata"]["title"] for chapter in container.chapters()] == ["c0", "c1"]
        assert container.streams.audio[0].language == "deu"
        assert container.streams.subtitles[0].language == "fra"
    lines = packets_of(tmp_path / "b.mkv", "subtitle")
    assert [(bytes(line), line.pts, line.duration) for line in lines] == [(b"first", 200, 700), (b"second", 1000, 800)]


@pytest.mark.parametrize("target", ["b.mp4", "b.mov", "b.webm"])
def test_text_subtitles_become_the_text_of_the_container(tmp_path, target):
    path = with_subtitles(tmp_path)
    sink = copy_clip(path, tmp_path / target)
    assert not any("ubtitle" in warning for warning in sink.warnings)
    with av.open(str(tmp_path / target)) as container:
        stream = container.streams.subtitles[0]
        assert stream.language == "fra"
        assert [chapter["metadata"]["title"] for chapter in container.chapters()] == ["c0", "c1"]
        lines = [
            (packet.pts * packet.time_base, subtitle.dialogue)
            for packet in container.demux(stream)
            if packet.size
            for subtitle in packet.decode()
        ]
    assert [(float(start), text) for start, text in lines if text] == [
        (pytest.approx(0.2, abs=0.002), b"first"),
        (pytest.approx(1.0, abs=0.002), b"second"),
    ]


def test_a_trimmed_clip_says_that_chapters_are_left_out(tmp_path):
    sink = copy_clip(with_subtitles(tmp_path), tmp_path / "b.mkv", start=5)
    assert any("Chapters are left out" in warning for warning in sink.warnings)
    lines = packets_of(tmp_path / "b.mkv", "subtitle")
    assert [bytes(line) for line in lines] == [b"first", b"second"]
    assert lines[0].pts == 0


def with_many_lines(path, codec):
    """Six seconds of picture and sound with a line of half a second every 0.7 s."""
    spec = ClipSpec(**{**WITH_AUDIO.__dict__, "audio": codec, "audio_s": 6.0, "options": {"preset": "ultrafast"}})
    clip = write_clip(path.with_name("plain.mkv"), [ramp(i) for i in range(150)], spec)
    lines = path.with_name("lines.srt")
    starts = [0.1 + 0.7 * i for i in range(8)]
    copies: list[list[av.stream.Stream]] = []
    lines.write_text(
        "".join(
            f"{i}\n00:00:{t:06.3f} --> 00:00:{t + 0.5:06.3f}\na line\n\n".replace(".", ",")
            for i, t in enumerate(starts)
        )
    )
    with av.open(str(clip)) as main, av.open(str(lines)) as text, av.open(str(path), "w") as output:
        for container in (main, text):
            targets = [output.add_stream_from_template(stream, opaque=True) for stream in container.streams]
            copies.append(targets)
        for container, targets in zip((main, text), copies, strict=True):
            for packet in container.demux():
                if packet.dts is not None:
                    packet.stream = targets[packet.stream.index]
                    output.mux(packet)
    return path


@pytest.mark.parametrize("target", ["b.mp4", "b.mov"])
@pytest.mark.parametrize("codec", ["aac", "flac"])
def test_lines_of_text_move_neither_pictures_nor_sound(tmp_path, codec, target):
    copy_clip(with_many_lines(tmp_path / "a.mkv", codec), tmp_path / target)
    for kind in ("video", "audio"):
        packets = [packet for packet in packets_of(tmp_path / target, kind) if packet.pts is not None]
        times = [packet.dts * packet.time_base for packet in packets]
        steps = {after - before for before, after in pairwise(times)}
        assert max(steps) - min(steps) < 0.003, kind  # The source has times in milliseconds.
    lines = packets_of(tmp_path / target, "subtitle")
    shown = [packet for packet in lines if bytes(packet)[2:] == b"a line"]
    assert [round(float(packet.pts * packet.time_base), 2) for packet in shown] == [
        round(i * 0.7 + 0.1, 2) for i in range(8)
    ]
    assert {round(float(packet.duration * packet.time_base), 2) for packet in shown} == {0.5}


def test_packets_shorter_than_a_tick_are_nobodys_fault(tmp_path):
    """Those of TrueHD are, in Matroska: 0.83 ms each, in ticks of 1 ms."""
    said = []
    with av.open(str(tmp_path / "a.mkv"), "w") as output:
        stream = output.add_stream("pcm_s16le", rate=48000)
        copied = CopiedStream(stream, stream, "matroska", said.append)
        for dts in (0, 1, 1, 2, 3, 3):
            packet = av.Packet(bytes(160))
            packet.pts = packet.dts = dts
            packet.time_base = Fraction(1, 1000)
            copied.packets(Placed(packet, None, Fraction(0)))
        assert said == []
        packet = av.Packet(bytes(160))
        packet.pts, packet.dts, packet.time_base = 1, 1, Fraction(1, 1000)
        copied.packets(Placed(packet, None, Fraction(0)))
    assert len(said) == 1
