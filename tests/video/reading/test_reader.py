"""What open_source says about a source, what it yields, and what it refuses."""

import struct
from fractions import Fraction
from types import SimpleNamespace

import av
import numpy as np
import pytest
import torch

from seedvr2_engine.errors import InvalidArgumentError, VideoError
from seedvr2_engine.video import ColorRange, ColorTags, Matrix, open_source
from seedvr2_engine.video.reading.clip_frames import _timed

from ..made.clips import ClipSpec, frame_of, noise, ramp, write_clip

H264 = ClipSpec(codec="libx264", pix_fmt="yuv420p", options={"preset": "ultrafast", "crf": "10"})


def as_uint8(rgb: torch.Tensor) -> np.ndarray:
    return (rgb * 255).round().byte().permute(1, 2, 0).numpy()


def test_a_lossless_rgb_clip_is_exact(tmp_path):
    frames = noise(5)
    path = write_clip(tmp_path / "a.mkv", frames)
    with open_source(path) as source:
        info = source.info
        read = list(source)
    assert (info.kind, info.width, info.height, info.frame_count, len(source)) == ("video", 64, 48, 5, 5)
    assert (info.codec, info.pix_fmt, info.bit_depth, info.has_alpha) == ("ffv1", "bgr0", 8, False)
    assert (info.average_rate, info.variable_rate, info.count_method) == (25, False, "packets")
    assert info.duration_s == pytest.approx(0.2)
    for frame, expected in zip(read, frames, strict=True):
        assert frame.rgb.shape == (3, 48, 64)
        assert frame.rgb.dtype == torch.float32
        assert frame.rgb.is_contiguous()
        assert np.array_equal(as_uint8(frame.rgb), expected)
    assert [frame.pts * info.time_base for frame in read] == [Fraction(i, 25) for i in range(5)]
    assert source.warnings == []


def test_b_frames_come_in_the_order_they_are_shown(tmp_path):
    spec = ClipSpec(codec="libx264", pix_fmt="yuv444p", options={"crf": "4", "bf": "3"})
    path = write_clip(tmp_path / "b.mp4", [np.full((48, 64, 3), 20 + 6 * i, np.uint8) for i in range(30)], spec)
    with open_source(path) as source:
        levels = [float(frame.rgb.mean()) for frame in source]
    assert len(levels) == 30
    assert levels == sorted(levels)


@pytest.mark.parametrize(("start", "frames"), [(0, 3), (4, None), (4, 2), (9, 5)])
def test_start_and_frames_are_exact(tmp_path, start, frames):
    path = write_clip(tmp_path / "a.mkv", [ramp(i) for i in range(10)])
    with open_source(path, start=start, frames=frames) as source:
        numbers = [int(as_uint8(frame.rgb)[0, 0, 2]) // 5 for frame in source]
        info = source.info
    expected = list(range(10))[start : None if frames is None else start + frames]
    assert numbers == expected
    assert (info.frame_count, info.first_frame, info.selected_frames) == (10, start, len(expected))
    assert info.is_trimmed_at_start == (start > 0)
    assert info.is_trimmed_at_end == (expected[-1] < 9)


def test_variable_rate_times_are_kept(tmp_path):
    pts = [0, 3000, 4500, 9000, 9900]
    spec = ClipSpec(
        codec="libx264",
        pix_fmt="yuv420p",
        rate=Fraction(30),
        time_base=Fraction(1, 90000),
        pts=pts,
        options=H264.options,
    )
    with open_source(write_clip(tmp_path / "v.mp4", [ramp(i) for i in range(5)], spec)) as source:
        assert source.info.variable_rate
        assert [frame.pts * source.info.time_base for frame in source] == [Fraction(p, 90000) for p in pts]


def test_a_steady_rate_rounded_to_milliseconds_is_not_variable(tmp_path):
    spec = ClipSpec(rate=Fraction(30000, 1001))
    with open_source(write_clip(tmp_path / "a.mkv", [ramp(i) for i in range(30)], spec)) as source:
        assert source.info.time_base == Fraction(1, 1000)
        assert not source.info.variable_rate
        assert source.info.average_rate == Fraction(30000, 1001)


@pytest.mark.parametrize(
    ("pix_fmt", "bits", "tags"),
    [
        ("yuv444p", 8, ColorTags(ColorRange.LIMITED, Matrix.BT709, 1, 1)),
        ("yuv444p10le", 10, ColorTags(ColorRange.LIMITED, Matrix.BT2020_NCL, 9, 16)),
        ("yuv444p12le", 12, ColorTags(ColorRange.FULL, Matrix.SMPTE170M, 6, 6)),
    ],
)
def test_colour_tags_are_read_and_applied(tmp_path, pix_fmt, bits, tags):
    scale = 1 << (bits - 8)
    kind = np.uint8 if bits == 8 else np.uint16
    grey = [np.full((48, 64), value * scale, kind) for value in (16, 128, 128)]
    spec = ClipSpec(
        codec="libx265", pix_fmt=pix_fmt, tags=tags, options={"x265-params": "lossless=1:bframes=0:log-level=none"}
    )
    with open_source(write_clip(tmp_path / "t.mp4", [frame_of(pix_fmt, grey)], spec)) as source:
        assert source.info.color == tags
        assert source.info.conversion == tags
        assert source.info.bit_depth == bits
        rgb = next(iter(source)).rgb
    black = 0.0 if tags.range is ColorRange.LIMITED else 16 * scale / ((1 << bits) - 1)
    assert rgb.flatten().tolist() == pytest.approx([black] * rgb.numel(), abs=1e-6)


def turn_mp4(path, matrix: tuple[int, int, int, int]) -> None:
    """Write a display matrix into the first track header of an MP4 file, ISO/IEC 14496-12, 8.3.2."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40
    a, b, c, d = (value << 16 for value in matrix)
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("matrix", "degrees", "at"),
    [
        ((1, 0, 0, 1), 0, (2, 3)),
        ((0, 1, -1, 0), 90, (2, -3)),
        ((-1, 0, 0, -1), 180, (-3, -3)),
        ((0, -1, 1, 0), 270, (-3, 2)),
        ((-1, 0, 0, 1), 0, (2, -3)),
        ((0, 1, 1, 0), 270, (2, 3)),
    ],
)
def test_a_phone_clip_is_turned_upright(tmp_path, matrix, degrees, at):
    """A mark at the top left, and where it is seen: turned clockwise by 90 degrees it is at the top right."""
    picture = np.full((48, 64, 3), 100, np.uint8)
    picture[:8, :8] = 250
    path = write_clip(tmp_path / "p.mp4", [picture] * 2, H264)
    turn_mp4(path, matrix)
    with open_source(path) as source:
        size = (48, 64) if matrix[0] == 0 else (64, 48)
        assert (source.info.width, source.info.height, source.info.orientation.degrees) == (*size, degrees)
        rgb = next(iter(source)).rgb
    marked = [corner for corner in ((2, 3), (2, -3), (-3, 2), (-3, -3)) if rgb[:, corner[0], corner[1]].mean() > 0.9]
    assert [(row < 0, column < 0) for row, column in marked] == [(at[0] < 0, at[1] < 0)]


def test_aspect_and_side_streams_are_described(tmp_path):
    spec = ClipSpec(
        codec="libx264",
        pix_fmt="yuv420p",
        audio="aac",
        options=H264.options,
        aspect=Fraction(4, 3),
        metadata={"title": "x"},
    )
    with open_source(write_clip(tmp_path / "a.mp4", [ramp(i) for i in range(25)], spec)) as source:
        assert source.info.sample_aspect_ratio == Fraction(4, 3)
        (audio,) = source.info.audio
        assert (audio.codec, audio.sample_rate, audio.channels) == ("aac", 48000, 2)
        assert source.info.subtitles == ()


def test_a_codec_with_hidden_packets_is_counted_by_decoding(tmp_path):
    spec = ClipSpec(
        codec="libvpx", pix_fmt="yuv420p", options={"auto-alt-ref": "1", "lag-in-frames": "16", "b": "200k"}
    )
    if "libvpx" not in av.codecs_available:
        pytest.skip("this FFmpeg build has no VP8 encoder")
    with open_source(write_clip(tmp_path / "v.webm", noise(40), spec)) as source:
        assert source.info.count_method == "decoding"
        assert source.info.frame_count == 40
        assert len(list(source)) == 40


def test_frames_are_given_once(tmp_path):
    with open_source(write_clip(tmp_path / "a.mkv", noise(3))) as source:
        assert len(list(source)) == 3
        assert list(source) == []


def bad_inputs(folder):
    clip = write_clip(folder / "good.mkv", noise(4))
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("this is no clip " * 100)
    (folder / "cut.mkv").write_bytes(clip.read_bytes()[:-5000])
    mp4 = write_clip(folder / "good.mp4", noise(12), H264)
    (folder / "cut.mp4").write_bytes(mp4.read_bytes()[:-400])
    (folder / "headless.mp4").write_bytes(mp4.read_bytes()[:600])
    (folder / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 20)
    (folder / "nothing").mkdir()
    (folder / "list.m3u8").write_text("#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n")
    with av.open(str(folder / "sound.mka"), "w") as output:
        stream = output.add_stream("pcm_s16le", rate=48000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 9600), np.int16), format="s16", layout="stereo")
        frame.sample_rate = 48000
        output.mux(stream.encode(frame))


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("missing.mp4", "no such file"),
        ("empty.mp4", "empty file"),
        ("text.mp4", "expected a clip or a picture"),
        ("cut.mkv", "truncated, its last 5000 bytes"),
        ("cut.mp4", "truncated"),
        ("headless.mp4", "truncated"),
        ("cut.png", "found none that decodes"),
        ("nothing", "found none; name a folder"),
        ("sound.mka", "expected a video stream, found audio"),
        ("list.m3u8", "expected a clip or a picture"),
        ("frame_%03d.png", "no picture matches"),
        ("%d_%d.png", "one number field"),
        ("*.jpg", "no picture matches"),
    ],
)
def test_bad_input_gets_one_sentence(tmp_path, name, sentence):
    bad_inputs(tmp_path)
    with pytest.raises(VideoError, match=sentence) as caught:
        list(open_source(tmp_path / name))
    message = str(caught.value)
    assert name in message
    assert "\n" not in message
    assert message.endswith(".")


def test_bad_arguments_are_refused(tmp_path):
    path = write_clip(tmp_path / "a.mkv", noise(3))
    for wrong in ({"start": -1}, {"frames": 0}, {"sequence_rate": Fraction(0)}):
        with pytest.raises(InvalidArgumentError):
            open_source(path, **wrong)
    with pytest.raises(VideoError, match="more than 3 frames"):
        open_source(path, start=3)


def test_damage_in_the_middle_is_named_or_kept(tmp_path):
    spec = ClipSpec(codec="libx264", pix_fmt="yuv420p", options={"crf": "18"})
    path = write_clip(tmp_path / "d.mp4", [ramp(i) for i in range(20)], spec)
    data = bytearray(path.read_bytes())
    for index in range(len(data) // 2, len(data) // 2 + 40):
        data[index] ^= 0x5A
    path.write_bytes(data)
    with pytest.raises(
        VideoError,
        match=r"frame \d+ \(\d\.\d+ s\) or one close to it is damaged \(.*\); copy it again, take what comes before "
        r"\(--frames\), or take what can be read \(`upscale --keep-damaged`\)\.$",
    ):
        list(open_source(path))
    with open_source(path, damaged="keep") as source:
        kept = list(source)
    assert 15 <= len(kept) < 20
    assert "damaged" in source.warnings[0]
    assert "expected 20 frames" in source.warnings[-1]
    assert len(set(source.warnings)) == len(source.warnings)


def test_a_truncated_file_can_be_kept(tmp_path):
    path = write_clip(tmp_path / "a.mkv", noise(10))
    path.write_bytes(path.read_bytes()[:-20000])
    with open_source(path, damaged="keep") as source:
        count = len(list(source))
    assert 5 <= count < 10


def test_a_clip_that_changes_size_is_refused(tmp_path):
    first = write_clip(tmp_path / "1.ts", noise(5), H264)
    second = write_clip(tmp_path / "2.ts", noise(5, 96, 80), H264)
    joined = tmp_path / "joined.ts"
    joined.write_bytes(first.read_bytes() + second.read_bytes())
    with pytest.raises(VideoError, match="expected 64x48 throughout, found 96x80 at frame 5"):
        list(open_source(joined))


def test_timestamps_are_made_increasing(tmp_path):
    path = write_clip(tmp_path / "a.avi", [ramp(i) for i in range(6)], ClipSpec(codec="mpeg4", pix_fmt="yuv420p"))
    with open_source(path) as source:
        times = [frame.pts for frame in source]
    assert len(times) == 6
    assert times == sorted(set(times))


def test_raw_video_is_read(tmp_path):
    picture = ramp(3)
    path = write_clip(tmp_path / "raw.avi", [picture], ClipSpec(codec="rawvideo", pix_fmt="bgr24"))
    with open_source(path) as source:
        assert np.array_equal(as_uint8(next(iter(source)).rgb), picture)


def test_every_frame_lasts_until_the_next_one(tmp_path):
    spec = ClipSpec(
        "libx264",
        "yuv420p",
        time_base=Fraction(1, 12800),
        pts=[0, 512, 2048, 2560, 4096],
        options={"bf": "0"},
    )
    with open_source(write_clip(tmp_path / "a.mp4", [ramp(i) for i in range(5)], spec)) as source:
        times = [(frame.pts, frame.duration) for frame in source]
    assert times[:4] == [(0, 512), (512, 1536), (2048, 512), (2560, 1536)]


def test_frames_without_timestamps_follow_each_other_at_the_rate(tmp_path):
    spec = ClipSpec("libx264", "yuv420p", options={"bf": "0"})
    with open_source(write_clip(tmp_path / "a.h264", [ramp(i) for i in range(5)], spec)) as source:
        times_s = [frame.pts * source.info.time_base for frame in source]
    assert times_s == [Fraction(i, 25) for i in range(5)]


def test_frames_without_a_time_at_the_start_count_back_from_the_first_that_has_one():
    def frames(*times):
        return [SimpleNamespace(pts=time, dts=None) for time in times]

    assert [pts for _, pts in _timed(frames(None, None, 80, None, 160), 40)] == [0, 40, 80, None, 160]
    assert [pts for _, pts in _timed(frames(None, None), 40)] == [None, None]
    given = frames(None, 5)
    assert [frame for frame, _ in _timed(given, 40)] == given
    assert [pts for _, pts in _timed(frames(*[None] * 50, 7), 1)][-1] == 7
