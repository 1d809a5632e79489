"""Clips out: codecs, tags, times, and what is left on the disk when something goes wrong."""

import re
import shutil
import subprocess
from dataclasses import replace
from fractions import Fraction

import av
import pytest
import torch

from seedvr2_engine.errors import InvalidArgumentError, OutputError
from seedvr2_engine.quality.metrics import psnr
from seedvr2_engine.video import ColorRange, ColorTags, Matrix, SinkOptions, open_sink, open_source

from ..made.clips import ClipSpec, frame_of, noise, ramp, write_clip

FAST = {"preset": "ultrafast"}


def scene(index: int, height: int = 48, width: int = 64) -> torch.Tensor:
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    return torch.stack((x, y, (0.5 + 0.4 * torch.sin(4 * x + index / 5)) * torch.ones_like(y)))


def write_scene(path, count=5, size=(64, 48), source=None, **options):
    sink = open_sink(path, width=size[0], height=size[1], source=source, options=SinkOptions(**{**FAST, **options}))
    with sink:
        for index in range(count):
            sink.write(scene(index, size[1], size[0]))
    return sink


def copy_clip(source_path, target, *, start=0, frames=None, **options):
    """The main job without a model."""
    with open_source(source_path, start=start, frames=frames) as source:
        info = source.info
        sink = open_sink(
            target, width=info.width, height=info.height, source=info, options=SinkOptions(**{**FAST, **options})
        )
        with sink:
            for frame in source:
                sink.write(frame.rgb, pts=frame.pts, duration=frame.duration, alpha=frame.alpha)
    return sink


@pytest.mark.parametrize(
    ("name", "options", "codec", "pix_fmt", "floor_db"),
    [
        ("a.mp4", {}, "h264", "yuv420p", 40),
        ("a.m4v", {"chroma": "422"}, "h264", "yuv422p", 40),
        ("a.mov", {"bit_depth": 10}, "hevc", "yuv420p10le", 40),
        ("a.mp4", {"codec": "h264", "bit_depth": 10, "chroma": "444"}, "h264", "yuv444p10le", 40),
        ("a.mkv", {"codec": "h265"}, "hevc", "yuv420p", 40),
        ("a.mkv", {"codec": "ffv1"}, "ffv1", "bgr0", 58),
        ("a.mkv", {"codec": "ffv1", "bit_depth": 16}, "ffv1", "gbrp16le", 100),
        ("a.mkv", {"codec": "ffv1", "chroma": "444", "bit_depth": 12}, "ffv1", "yuv444p12le", 70),
        ("a.mov", {"codec": "prores"}, "prores", "yuv422p10le", 45),
        ("a.mov", {"codec": "prores", "chroma": "444"}, "prores", "yuv444p12le", 45),
        ("a.webm", {}, "vp9", "yuv420p", 35),
    ],
)
def test_every_codec_gives_the_pictures_back(tmp_path, name, options, codec, pix_fmt, floor_db):
    sink = write_scene(tmp_path / name, **options)
    assert (sink.frames_written, sink.warnings) == (5, [])
    with open_source(tmp_path / name) as source:
        info = source.info
        frames = list(source)
    assert (info.codec, info.pix_fmt, info.average_rate, len(frames)) == (codec, pix_fmt, 24, 5)
    for index, frame in enumerate(frames):
        assert psnr(frame.rgb, scene(index)) > floor_db
        assert (frame.rgb - scene(index)).mean(dim=(1, 2)).abs().max() < 0.004
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("codec", ["h264", "h265"])
def test_very_short_clips(tmp_path, codec, count):
    write_scene(tmp_path / "a.mp4", count, codec=codec, preset="medium")
    with open_source(tmp_path / "a.mp4") as source:
        assert len(list(source)) == count
        assert source.info.duration_s == pytest.approx(count / 24, abs=1e-3)


TAGS = [
    ColorTags(ColorRange.LIMITED, Matrix.BT709, 1, 1),
    ColorTags(ColorRange.FULL, Matrix.SMPTE170M, 6, 6),
    ColorTags(ColorRange.LIMITED, Matrix.BT2020_NCL, 9, 16),
    ColorTags(),
]


@pytest.mark.parametrize("tags", TAGS)
@pytest.mark.parametrize("target", ["b.mp4", "b.mkv"])
def test_colour_tags_are_carried_and_the_pixels_do_not_shift(tmp_path, tags, target):
    planes = [torch.full((48, 64), value, dtype=torch.uint8).numpy() for value in (90, 100, 150)]
    spec = ClipSpec(codec="libx264", pix_fmt="yuv444p", tags=tags, options={"qp": "0"})
    path = write_clip(tmp_path / "a.mp4", [frame_of("yuv444p", planes) for _ in range(3)], spec)
    copy_clip(path, tmp_path / target, chroma="444", quality=1)
    with open_source(path) as before, open_source(tmp_path / target) as after:
        assert after.info.color == before.info.conversion
        for old, new in zip(before, after, strict=True):
            assert (old.rgb - new.rgb).abs().max() < 1.5 / 255


def test_an_untagged_clip_does_not_shift_when_it_grows(tmp_path):
    """BT.601 by the rule for small pictures must not be taken for BT.709 once the picture is large."""
    planes = [torch.full((48, 64), value, dtype=torch.uint8).numpy() for value in (81, 90, 240)]
    spec = ClipSpec(codec="libx264", pix_fmt="yuv444p", options={"qp": "0"})
    path = write_clip(tmp_path / "a.mp4", [frame_of("yuv444p", planes)] * 1, spec)
    with open_source(path) as source:
        red = next(iter(source)).rgb
    big = red[:, :1, :1].expand(3, 720, 1280)
    with open_sink(tmp_path / "b.mp4", width=1280, height=720, source=source.info, options=SinkOptions(**FAST)) as sink:
        sink.write(big)
    with open_source(tmp_path / "b.mp4") as source:
        assert source.info.color.matrix is Matrix.SMPTE170M
        assert (next(iter(source)).rgb - big).abs().max() < 4 / 255


def test_variable_times_and_the_time_base_are_kept(tmp_path):
    pts = [0, 3000, 4500, 9000, 9900, 20000]
    spec = ClipSpec(codec="libx264", pix_fmt="yuv420p", rate=Fraction(30), time_base=Fraction(1, 90000), pts=pts)
    path = write_clip(tmp_path / "a.mp4", [ramp(i) for i in range(6)], spec)
    copy_clip(path, tmp_path / "b.mp4", preset="medium")
    with open_source(tmp_path / "b.mp4") as source:
        assert source.info.time_base == Fraction(1, 90000)
        assert [frame.pts for frame in source] == pts
    copy_clip(path, tmp_path / "b.mkv")
    with open_source(tmp_path / "b.mkv") as source:
        assert [frame.pts for frame in source] == [round(p / 90) for p in pts]


def test_the_last_frame_lasts_as_long_as_it_should(tmp_path):
    spec = ClipSpec(codec="libx264", pix_fmt="yuv420p", time_base=Fraction(1, 90000), pts=[0, 3600, 7200])
    with open_source(write_clip(tmp_path / "a.mp4", noise(3), spec)) as source:
        frames = list(source)
    with open_sink(tmp_path / "b.mp4", width=64, height=48, source=source.info) as sink:
        for frame, duration in zip(frames, (3600, 3600, 36000), strict=True):
            sink.write(frame.rgb, pts=frame.pts, duration=duration)
    with open_source(tmp_path / "b.mp4") as source:
        assert source.info.duration_s == pytest.approx(43200 / 90000)


@pytest.mark.parametrize("rate", [Fraction(24000, 1001), Fraction(30000, 1001), Fraction(50), Fraction(12)])
@pytest.mark.parametrize("target", ["b.mp4", "b.mkv"])
def test_frame_rates_are_kept_exactly(tmp_path, rate, target):
    spec = ClipSpec(codec="libx264", pix_fmt="yuv420p", rate=rate, options=FAST)
    path = write_clip(tmp_path / "a.mp4", [ramp(i) for i in range(12)], spec)
    copy_clip(path, tmp_path / target)
    with open_source(tmp_path / target) as source:
        assert source.info.average_rate == rate
        assert not source.info.variable_rate
        assert source.info.duration_s == pytest.approx(12 / float(rate), abs=2e-3)


def test_bit_depth_and_alpha_follow_the_source(tmp_path):
    planes = [(torch.rand(48, 64) * 1023).numpy().astype("uint16") for _ in range(4)]
    spec = ClipSpec(pix_fmt="gbrap10le")
    path = write_clip(tmp_path / "a.mkv", [frame_of("gbrap10le", planes)] * 1, spec)
    copy_clip(path, tmp_path / "b.mkv", codec="ffv1")
    with open_source(path) as before, open_source(tmp_path / "b.mkv") as after:
        assert after.info.pix_fmt == "gbrap10le"
        old, new = next(iter(before)), next(iter(after))
    assert torch.equal(old.rgb, new.rgb)
    assert torch.equal(old.alpha, new.alpha)
    sink = copy_clip(path, tmp_path / "c.mp4")
    assert any("holds no alpha" in warning for warning in sink.warnings)
    with open_source(tmp_path / "c.mp4") as source:
        assert (source.info.codec, source.info.bit_depth) == ("hevc", 10)


def test_the_pixel_aspect_ratio_follows_the_source(tmp_path):
    spec = ClipSpec(codec="libx264", pix_fmt="yuv420p", aspect=Fraction(16, 15))
    path = write_clip(tmp_path / "a.mp4", noise(2), spec)
    codecs = {"b.mp4": "h264", "b.mkv": "h265", "b.mov": "prores", "c.mkv": "ffv1", "b.webm": "vp9"}
    for target, codec in codecs.items():
        assert copy_clip(path, tmp_path / target, codec=codec).warnings == []
        with open_source(tmp_path / target) as source:
            assert source.info.sample_aspect_ratio == Fraction(16, 15)


def test_a_depth_that_no_codec_holds_is_a_warning(tmp_path):
    planes = [(torch.rand(48, 64) * 65535).numpy().astype("uint16") for _ in range(3)]
    path = write_clip(tmp_path / "a.mkv", [frame_of("gbrp16le", planes)] * 1, ClipSpec(pix_fmt="gbrp16le"))
    sink = copy_clip(path, tmp_path / "b.mp4")
    assert any("16 bits per sample, h265 takes 12" in warning for warning in sink.warnings)


@pytest.mark.parametrize("size", [(63, 48), (64, 47), (63, 47)])
def test_odd_sizes_are_never_cropped(tmp_path, size):
    sink = write_scene(tmp_path / "a.mp4", 2, size)
    assert any("odd" in warning for warning in sink.warnings)
    write_scene(tmp_path / "b.mkv", 2, size, codec="ffv1", chroma="420")
    for name in ("a.mp4", "b.mkv"):
        with open_source(tmp_path / name) as source:
            assert (source.info.width, source.info.height) == size
            assert psnr(next(iter(source)).rgb, scene(0, size[1], size[0])) > 38
    with pytest.raises(OutputError, match="needs an even size"):
        write_scene(tmp_path / "c.mp4", 2, size, chroma="420")


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("a.xyz", {}, "expected a name ending in one of .apng .gif .jpeg .jpg .m4v .mkv"),
        ("a.mp4", {"codec": "ffv1"}, "expected one of the codecs h264, h265, vp9"),
        ("a.mp4", {"bit_depth": 16}, "bit_depth 16: h265 takes 8, 10, 12 bits"),
        ("a.mp4", {"chroma": "rgb"}, "chroma rgb: h264 takes 420, 422, 444"),
        ("missing/a.mp4", {}, "its folder does not exist"),
        ("a.gif%d.gif", {}, "expected a picture ending in"),
    ],
)
def test_impossible_outputs_get_one_sentence(tmp_path, name, options, sentence):
    with pytest.raises(OutputError, match=sentence) as caught:
        write_scene(tmp_path / name, **options)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_the_endings_that_are_named_are_those_that_are_taken(tmp_path):
    with pytest.raises(OutputError, match="expected a name ending") as caught:
        write_scene(tmp_path / "a.xyz")
    named = re.findall(r"\.\w+", str(caught.value).split("one of")[1].split(", found")[0])
    assert {".gif", ".apng", ".mp4", ".png", ".tif"} <= set(named)
    for ending in named:
        write_scene(tmp_path / f"a{ending}", 1)
    assert len(list(tmp_path.iterdir())) == len(named)


@pytest.mark.parametrize("name", ["a.mp4", "a.mov"])
def test_h265_has_the_tag_that_apple_plays(tmp_path, name):
    write_scene(tmp_path / name, codec="h265")
    with av.open(str(tmp_path / name)) as container:
        assert container.streams.video[0].codec_context.codec_tag == "hvc1"


@pytest.mark.parametrize(("primaries", "matrix"), [(1, Matrix.BT709), (9, Matrix.BT2020_NCL)])
def test_rgb_becomes_the_matrix_of_its_primaries(tmp_path, primaries, matrix):
    tags = ColorTags(ColorRange.FULL, Matrix.RGB, primaries, 16)
    path = write_clip(tmp_path / "a.mkv", [ramp(0)], ClipSpec(tags=tags))
    copy_clip(path, tmp_path / "b.mp4")
    with open_source(tmp_path / "b.mp4") as source:
        assert source.info.color == ColorTags(ColorRange.LIMITED, matrix, primaries, 16)


@pytest.mark.parametrize("name", ["a.mkv", "a.png", "pictures", "pictures/%06d.png"])
def test_the_input_is_never_replaced(tmp_path, name):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    write_scene(path, 1 if name.endswith("a.png") else 2, **({"codec": "ffv1"} if name.endswith(".mkv") else {}))
    before = {entry: entry.read_bytes() for entry in tmp_path.rglob("*") if entry.is_file()}
    with pytest.raises(OutputError, match="another place than the input's"):
        copy_clip(path, path, overwrite=True)
    assert {entry: entry.read_bytes() for entry in tmp_path.rglob("*") if entry.is_file()} == before
    elsewhere = tmp_path / "elsewhere" / path.name
    elsewhere.parent.mkdir()
    copy_clip(path, elsewhere, overwrite=True)
    copy_clip(path, elsewhere, overwrite=True)


def test_an_unknown_preset_gets_one_sentence():
    with pytest.raises(InvalidArgumentError, match="preset: expected one of ultrafast"):
        SinkOptions(preset="bogus")


def test_a_codec_that_the_build_lacks_gets_one_sentence(tmp_path, monkeypatch):
    from seedvr2_engine.video.writing import encoders

    absent = replace(encoders.ENCODERS["h264"], encoder="no_such_encoder")
    monkeypatch.setitem(encoders.ENCODERS, "h264", absent)
    with pytest.raises(OutputError, match="Encoder no_such_encoder: expected it in FFmpeg"):
        write_scene(tmp_path / "a.mp4")


def test_bad_options_are_refused_when_they_are_made():
    for wrong in ({"bit_depth": 7}, {"quality": 101.0}, {"rate": Fraction(0)}):
        with pytest.raises(InvalidArgumentError):
            SinkOptions(**wrong)


def test_bad_frames_are_refused(tmp_path):
    with open_sink(tmp_path / "a.mkv", width=64, height=48, options=SinkOptions(codec="ffv1")) as sink:
        sink.write(scene(0))
        with pytest.raises(InvalidArgumentError, match=r"expected floating point \(3, 48, 64\)"):
            sink.write(scene(0)[:, :40])
        with pytest.raises(InvalidArgumentError, match="floating point"):
            sink.write((scene(0) * 255).byte())
        with pytest.raises(InvalidArgumentError, match="alpha"):
            sink.write(scene(0), alpha=torch.ones(48, 64))
    with pytest.raises(InvalidArgumentError, match="closed"):
        sink.write(scene(0))


def test_times_must_increase(tmp_path):
    path = write_clip(tmp_path / "a.mkv", noise(3))
    with open_source(path) as source:
        sink = open_sink(tmp_path / "b.mkv", width=64, height=48, source=source.info)
    sink.write(scene(0), pts=40)
    with pytest.raises(InvalidArgumentError, match="expected more than 40, got 40"):
        sink.write(scene(1), pts=40)
    sink.abort(keep_partial=False)


@pytest.mark.skipif(shutil.which("ffprobe") is None, reason="ffprobe is not installed")
def test_ffprobe_agrees(tmp_path):
    spec = ClipSpec(codec="libx264", pix_fmt="yuv420p", tags=TAGS[0], audio="aac")
    path = write_clip(tmp_path / "a.mp4", [ramp(i) for i in range(25)], spec)
    copy_clip(path, tmp_path / "b.mp4")
    entries = "stream=width,height,nb_read_frames,avg_frame_rate,color_range,color_space,color_transfer,color_primaries"
    found = [
        subprocess.run(
            ["ffprobe", "-v", "error", "-count_frames", "-show_entries", entries, "-of", "csv=p=0", str(file)],
            capture_output=True, text=True, check=True,
        ).stdout
        for file in (path, tmp_path / "b.mp4")
    ]  # fmt: skip
    assert found[0] == found[1]
    assert found[0].startswith("64,48,tv,bt709,bt709,bt709,25/1,25")


@pytest.mark.parametrize("ending", [".mp4", ".mov"])
@pytest.mark.parametrize("count", [5, 25, 29, 30])
def test_the_last_frames_are_shown_wherever_the_last_fragment_begins(tmp_path, ending, count):
    clip = write_clip(tmp_path / "a.ts", [ramp(i) for i in range(count)], ClipSpec("mpeg2video", "yuv420p"))
    with (
        open_source(clip) as source,
        open_sink(tmp_path / f"b{ending}", width=64, height=48, source=source.info) as sink,
    ):
        for frame in source:
            sink.write(frame.rgb, pts=frame.pts, duration=frame.duration)
    with av.open(str(sink.path)) as container:
        assert sum(len(packet.decode()) for packet in container.demux(container.streams.video[0])) == count
        stream = container.streams.video[0]
        assert float(stream.duration * stream.time_base) == pytest.approx(count / 25, abs=0.012)


@pytest.mark.parametrize("name", ["a.mp4", "a.mov"])
@pytest.mark.parametrize("codec", ["h264", "h265"])
def test_players_show_the_last_frame_wherever_the_last_fragment_begins(tmp_path, name, codec):
    """Frames are reordered, so that the last one to be shown may lie before the last fragment."""
    for count in range(1, 14):
        sink = open_sink(
            tmp_path / name, width=64, height=48, options=SinkOptions(codec=codec, preset="fast", overwrite=True)
        )
        with sink:
            for index in range(count):
                sink.write(scene(7 * index) + (0.2 * torch.rand(3, 48, 64, generator=torch.manual_seed(index))))
        with av.open(tmp_path / name) as clip:
            stream = clip.streams.video[0]
            assert abs(stream.duration * stream.time_base - Fraction(count, 24)) <= Fraction(1, 1000)
            assert sum(1 for _ in clip.decode(stream)) == count
