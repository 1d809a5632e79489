"""Fonts, covers, crops, aspects, titles, languages, time codes, tags: kept where the container can, else said."""

import io
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from seedvr2_engine.video import SinkOptions, SourceInfo, open_source
from seedvr2_engine.video.reading.container.matroska import video_tracks
from seedvr2_engine.video.streams.finished.matroska_header import display_size
from seedvr2_engine.video.streams.languages import language_for
from seedvr2_engine.video.streams.metadata import moved_timecode
from seedvr2_engine.video.writing.output_plan import plan_output

from ..made.clips import ClipSpec, noise, write_clip
from ..made.sounds import heard, write_sound
from ..writing.test_writer import copy_clip

FONT = bytes(range(256)) * 300


def jpeg(value: int) -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mjpeg") as output:
        stream = output.add_stream("mjpeg", rate=1)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuvj420p"
        frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), value, np.uint8), "rgb24").reformat(format="yuvj420p")
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return buffer.getvalue()


def full_clip(path):
    """A Matroska file with titles, languages, a font and a cover."""
    with av.open(str(path), "w") as output:
        output.metadata.update({"title": "Film", "artist": "Someone", "mood": "calm"})
        video = output.add_stream("ffv1", rate=25)
        video.width, video.height, video.pix_fmt = 32, 32, "yuv420p"
        video.metadata.update({"title": "Main view", "language": "fra"})
        video.disposition = av.stream.Disposition.default
        for language, disposition in (("deu", "default"), ("hrv", "forced")):
            sound = output.add_stream("flac", rate=48000)
            sound.codec_context.layout = "mono"
            sound.metadata.update({"language": language, "title": f"In {language}"})
            sound.disposition = av.stream.Disposition[disposition]
        output.add_attachment("font.ttf", "application/x-truetype-font", FONT)
        output.add_attachment("cover.jpg", "image/jpeg", jpeg(200))
        for index in range(3):
            frame = av.VideoFrame(32, 32, "yuv420p")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            output.mux(video.encode(frame))
        output.mux(video.encode(None))
    return path


def cover_of(path):
    with av.open(str(path)) as container:
        for stream in container.streams.video:
            if stream.disposition & av.stream.Disposition.attached_pic:
                return next(bytes(packet) for packet in container.demux(stream) if packet.size)
    return None


def test_fonts_covers_titles_and_languages_reach_matroska(tmp_path):
    sink = copy_clip(full_clip(tmp_path / "a.mkv"), tmp_path / "b.mkv")
    assert sink.warnings == []
    with av.open(str(tmp_path / "b.mkv")) as container:
        assert container.metadata["title"] == "Film"
        tags = [(stream.metadata.get("title"), stream.language) for stream in container.streams][:3]
        assert tags == [("Main view", "fra"), ("In deu", "deu"), ("In hrv", "hrv")]
        flags = [stream.disposition.name for stream in container.streams][:3]
        assert flags == ["default", "default", "forced"]
        font = next(stream for stream in container.streams if stream.type == "attachment")
        assert (font.name, font.mimetype, bytes(font.data)) == ("font.ttf", "application/x-truetype-font", FONT)
    assert cover_of(tmp_path / "b.mkv") == jpeg(200)


def test_mp4_keeps_the_cover_and_says_what_it_cannot(tmp_path):
    sink = copy_clip(full_clip(tmp_path / "a.mkv"), tmp_path / "b.mp4")
    said = " ".join(sink.warnings)
    assert "font.ttf is left out" in said
    assert "no place for: MOOD" in said
    assert "cover" not in said
    assert cover_of(tmp_path / "b.mp4") == jpeg(200)
    with av.open(str(tmp_path / "b.mp4")) as container:
        assert container.metadata["title"] == "Film"
        assert [stream.type for stream in container.streams] == ["video", "audio", "audio", "video"]
        assert [stream.language for stream in container.streams][:3] == ["fra", "deu", "hrv"]
        assert len(list(container.decode(video=0))) == 3
    copy_clip(tmp_path / "b.mp4", tmp_path / "c.mkv")
    assert cover_of(tmp_path / "c.mkv") == jpeg(200)


def test_mov_keeps_free_tags_and_says_what_it_cannot(tmp_path):
    sink = copy_clip(full_clip(tmp_path / "a.mkv"), tmp_path / "b.mov")
    said = " ".join(sink.warnings)
    assert "cover art (mjpeg) is left out" in said
    assert "language of stream 2 (hrv) is left out" in said
    with av.open(str(tmp_path / "b.mov")) as container:
        assert (container.metadata["title"], container.metadata["MOOD"]) == ("Film", "calm")
        assert [stream.language for stream in container.streams] == ["fra", "ger", None]


def test_apples_keys_stay_in_mov(tmp_path):
    keys = {
        "com.apple.quicktime.make": "Acme",
        "com.apple.quicktime.location.ISO6709": "+47.3769+008.5417+400/",
        "com.apple.quicktime.creationdate": "2023-05-06T09:08:09+0200",
    }
    spec = ClipSpec(codec="libx264", pix_fmt="yuv420p", metadata=keys)
    with av.open(str(tmp_path / "a.mov"), "w", options={"movflags": "use_metadata_tags"}) as output:
        output.metadata.update(keys)
        stream = output.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        stream.metadata["timecode"] = "01:02:03:04"
        for index in range(30):
            frame = av.VideoFrame(32, 32, spec.pix_fmt)
            frame.pts, frame.time_base = index, Fraction(1, 25)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    assert copy_clip(tmp_path / "a.mov", tmp_path / "b.mov").warnings == []
    with av.open(str(tmp_path / "b.mov")) as container:
        assert keys.items() <= container.metadata.items()
        assert container.streams.video[0].metadata["timecode"] == "01:02:03:04"
    assert any("quicktime.make" in said for said in copy_clip(tmp_path / "a.mov", tmp_path / "b.mp4").warnings)
    with av.open(str(tmp_path / "b.mp4")) as container:
        assert container.metadata["date"] == keys["com.apple.quicktime.creationdate"]
        assert container.metadata["location"].startswith("+47.3769+008.5417")
    copy_clip(tmp_path / "a.mov", tmp_path / "c.mov", start=22)
    with av.open(str(tmp_path / "c.mov")) as container:
        assert container.streams.video[0].metadata["timecode"] == "01:02:04:01"


@pytest.mark.parametrize(
    ("timecode", "rate", "skipped", "moved"),
    [
        ("00:00:59:29", Fraction(30), 1, "00:01:00:00"),
        ("00:00:59;29", Fraction(30000, 1001), 1, "00:01:00;02"),
        ("00:09:59;29", Fraction(30000, 1001), 1, "00:10:00;00"),
        ("00:00:00;00", Fraction(30000, 1001), 17982, "00:10:00;00"),
        ("00:10:00;00", Fraction(30000, 1001), 1, "00:10:00;01"),
        ("01:00:00;00", Fraction(30000, 1001), 1798, "01:00:59;28"),
        ("00:00:59;59", Fraction(60000, 1001), 1, "00:01:00;04"),
        ("23:59:59:24", Fraction(25), 1, "00:00:00:00"),
        ("one two", Fraction(25), 1, None),
    ],
)
def test_a_time_code_counts_on_for_a_trimmed_clip(tmp_path, timecode, rate, skipped, moved):
    path = write_clip(tmp_path / "a.mkv", noise(1, 16, 16))
    with open_source(path) as source:
        info = SourceInfo(**{**source.info.__dict__, "average_rate": rate, "first_frame": skipped})
    assert moved_timecode(timecode, info) == moved


@pytest.mark.parametrize(
    ("target", "options"), [("b.mkv", {}), ("b.mkv", {"codec": "ffv1"}), ("b.mkv", {"codec": "vp9"}), ("b.webm", {})]
)
def test_the_pixel_aspect_reaches_matroska(tmp_path, target, options):
    spec = ClipSpec(codec="libx264", pix_fmt="yuv420p", aspect=Fraction(16, 11))
    path = write_clip(tmp_path / "a.mp4", noise(3), spec)
    assert copy_clip(path, tmp_path / target, **options).warnings == []
    with open_source(tmp_path / target) as source:
        assert source.info.sample_aspect_ratio == Fraction(16, 11)
        assert len(list(source)) == 3
    with av.open(str(tmp_path / target)) as container:
        assert "title" not in container.streams.video[0].metadata


def test_a_title_survives_beside_the_pixel_aspect(tmp_path):
    with av.open(str(tmp_path / "a.mp4"), "w") as output:
        stream = output.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.metadata["title"] = "Seen from the left"
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)
        for index in range(3):
            frame = av.VideoFrame(64, 48, "yuv420p")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    copy_clip(tmp_path / "a.mp4", tmp_path / "b.mkv", codec="ffv1")
    with av.open(str(tmp_path / "b.mkv")) as container:
        video = container.streams.video[0]
        assert video.sample_aspect_ratio == Fraction(4, 3)
        assert video.metadata["title"] == "Seen from the left"


def test_display_sizes_are_exact_where_they_can_be():
    assert display_size((64, 48), Fraction(4, 3)) == (85, 48) or display_size((64, 48), Fraction(4, 3)) == (64, 36)
    assert display_size((720, 576), Fraction(16, 15)) == (768, 576)
    assert display_size((64, 48), Fraction(16, 11)) == (64, 33)
    assert display_size((720, 576), Fraction(12, 11)) == (720, 528)


def cropped_clip(path, left, top, right, bottom):
    """A Matroska file with crop fields, for which its video track's title made room."""
    with av.open(str(path), "w", options={"fflags": "+bitexact"}) as output:
        stream = output.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "bgr0"
        stream.metadata["title"] = " " * 40
        for index in range(2):
            picture = np.zeros((48, 64, 3), np.uint8)
            picture[top : 48 - bottom, left : 64 - right] = 200 + index
            frame = av.VideoFrame.from_ndarray(picture, "rgb24").reformat(format="bgr0")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    data = path.read_bytes()
    fields = b"".join(
        key.to_bytes(2, "big") + b"\x81" + bytes([value])
        for key, value in ((0x54CC, left), (0x54BB, top), (0x54DD, right), (0x54AA, bottom))
    )
    title = data.index(b"\x53\x6e\xa8" + b" " * 40)
    begin = data.index(b"\xb0\x81\x40\xba\x81\x30")
    video = data.rindex(b"\xe0", title, begin)
    end = begin + (int.from_bytes(data[video + 1 : begin], "big") & ((1 << 7 * (begin - video - 1)) - 1))
    body = b"\xe0" + bytes([0x80 | len(fields) + end - begin]) + fields + data[begin:end]
    room = 43 + (end - video) - len(body)
    changed = data[:title] + data[title + 43 : video] + body + b"\xec" + bytes([0x80 | room - 2]) + bytes(room - 2)
    changed += data[end:]
    assert len(changed) == len(data)
    # The checksum of the old bytes becomes a field that readers skip.
    checksum = changed.index(b"\xbf\x84", changed.index(b"\x16\x54\xae\x6b"))
    path.write_bytes(changed[:checksum] + b"\xec" + changed[checksum + 1 :])
    return path


@pytest.mark.parametrize("crop", [(8, 0, 8, 0), (0, 2, 4, 6)])
def test_a_matroska_crop_is_applied(tmp_path, crop):
    path = cropped_clip(tmp_path / "a.mkv", *crop)
    left, top, right, bottom = crop
    assert [(track.width, track.height) for track in video_tracks(path)] == [(64, 48)]
    with open_source(path) as source:
        assert (source.info.width, source.info.height) == (64 - left - right, 48 - top - bottom)
        for frame in source:
            assert frame.rgb.shape == (3, 48 - top - bottom, 64 - left - right)
            assert float(frame.rgb.min()) > 0.7


def test_stereoscopic_pictures_stay_marked(tmp_path):
    with av.open(str(tmp_path / "a.mkv"), "w") as output:
        stream = output.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.metadata["stereo_mode"] = "right_left"
        frame = av.VideoFrame(64, 48, "yuv420p")
        frame.pts, frame.time_base = 0, Fraction(1, 25)
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    assert copy_clip(tmp_path / "a.mkv", tmp_path / "b.webm").warnings == []
    with av.open(str(tmp_path / "b.webm")) as container:
        assert container.streams.video[0].metadata["stereo_mode"] == "right_left"
    sink = copy_clip(tmp_path / "a.mkv", tmp_path / "b.mp4")
    assert any("stereoscopic pictures (right_left) is left out" in warning for warning in sink.warnings)


@pytest.mark.parametrize("target", ["b.mkv", "b.mp4", "b.webm"])
def test_chapters_that_begin_before_the_clip_begin_with_it(tmp_path, target):
    source = write_sound(tmp_path / "plain.mkv", "aac", start_s=2.0, video_s=2.0)
    with av.open(str(source)) as old, av.open(str(tmp_path / "a.mkv"), "w") as new:
        times = [(0, 2500), (2500, 3000)]
        new.set_chapters(
            [
                {"id": i, "start": start, "end": end, "time_base": Fraction(1, 1000), "metadata": {"title": f"c{i}"}}
                for i, (start, end) in enumerate(times)
            ]
        )
        targets = {stream.index: new.add_stream_from_template(stream, opaque=True) for stream in old.streams}
        for packet in old.demux():
            if packet.size:
                packet.stream = targets[packet.stream.index]
                new.mux(packet)
    copy_clip(tmp_path / "a.mkv", tmp_path / target)
    with av.open(str(tmp_path / target)) as container:
        starts = [float(chapter["start"] * chapter["time_base"]) for chapter in container.chapters()]
    assert starts == [0.0, pytest.approx(0.5, abs=0.05)]


def test_languages_in_each_containers_spelling():
    assert [language_for("deu", muxer) for muxer in ("mp4", "mov", "matroska")] == ["deu", "ger", "deu"]
    assert language_for("sve", "mp4") == "swe"
    assert language_for("hrv", "mov") is None
    assert language_for("en-US", "mp4") is None
    assert language_for("en-US", "matroska") == "en-US"


def test_the_plan_says_all_before_anything_is_written(tmp_path):
    source = write_sound(tmp_path / "a.mkv", "pcm_s16le")
    with open_source(source) as clip:
        plan = plan_output(tmp_path / "b.webm", (16, 16), clip.info, SinkOptions())
        assert [(stream.index, stream.action, stream.target.encoder) for stream in plan.streams] == [
            (1, "encode", "libopus")
        ]
        assert "audio 1 (pcm_s16le) as libopus" in plan.describe()
        assert any(
            "Sound is left out" in loss
            for loss in plan_output(tmp_path / "p", (16, 16), clip.info, SinkOptions()).losses
        )
        faster = plan_output(tmp_path / "b.mkv", (16, 16), clip.info, SinkOptions(rate=Fraction(50)))
        assert any("frame rate was changed" in loss for loss in faster.losses)
    assert [path.name for path in tmp_path.iterdir()] == ["a.mkv"]


def test_alpha_in_mov_is_advised_to_be_prores(tmp_path):
    path = write_clip(tmp_path / "a.mov", noise(2), ClipSpec(codec="qtrle", pix_fmt="argb"))
    with open_source(path) as clip:
        losses = plan_output(tmp_path / "b.mov", (64, 48), clip.info, SinkOptions()).losses
    assert any("use codec prores" in loss for loss in losses)


@pytest.mark.parametrize(
    ("name", "options", "advice"),
    [
        ("b.mp4", {}, "write .mov with codec prores, .webm, or .mkv with codec ffv1"),
        ("b.mkv", {}, "use codec ffv1"),
        ("b.webm", {"chroma": "444"}, "use chroma 420"),
        ("b.mov", {"codec": "prores", "chroma": "422"}, "use chroma 444"),
    ],
)
def test_what_would_keep_alpha_is_said_for_each_kind_of_file(tmp_path, name, options, advice):
    path = write_clip(tmp_path / "a.mov", noise(2), ClipSpec(codec="qtrle", pix_fmt="argb"))
    with open_source(path) as clip:
        losses = plan_output(tmp_path / name, (64, 48), clip.info, SinkOptions(**options)).losses
    assert any(advice in loss for loss in losses)


@pytest.mark.parametrize("name", ["b.mp4", "b.gif"])
def test_what_pictures_say_of_themselves_is_said_to_be_left_out_of_a_clip(tmp_path, name):
    exif = Image.Exif()
    exif[0x010F] = "Acme"
    for number in (1, 2):
        Image.new("RGBA", (64, 48), (10, 20, 30, 255)).save(tmp_path / f"{number}.png", exif=exif, dpi=(300, 300))
    with open_source(tmp_path) as pictures:
        losses = plan_output(tmp_path / name, (64, 48), pictures.info, SinkOptions()).losses
    assert any(loss.startswith("The pictures' EXIF and resolution are left out") for loss in losses)
    assert not any("; it is left out" in loss for loss in losses), "nobody knows yet whether all are opaque"


def test_two_tracks_of_sound_stay_two(tmp_path):
    source = write_sound(tmp_path / "a.mkv", "flac", copies=2)
    copy_clip(source, tmp_path / "b.mov")
    for number in range(2):
        before, after = heard(source, number), heard(tmp_path / "b.mov", number)
        assert np.abs(before.samples - after.samples).max() < 2**-15
