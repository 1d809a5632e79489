"""NVENC without its hardware: what it is told, and the one sentence where there is none; AV1's own limits."""

from pathlib import Path

import pytest
import torch

from seedvr2_engine.errors import OutputError
from seedvr2_engine.quality.metrics import psnr
from seedvr2_engine.video import ColorTags, SinkOptions, open_sink, open_source
from seedvr2_engine.video.planes import coding_for, frame_of_codes
from seedvr2_engine.video.writing import encoders
from seedvr2_engine.video.writing.encoder_plan import plan_encoder
from seedvr2_engine.video.writing.encoders import encoder_options

SIZE = (64, 48)


@pytest.fixture
def told(monkeypatch):
    """What the probe tells the encoder, on a machine whose encoder takes everything."""
    seen = []
    monkeypatch.setattr(
        "seedvr2_engine.video.writing.encoder_plan.require_hardware", lambda *arguments: seen.append(arguments)
    )
    return seen


@pytest.mark.parametrize(
    ("codec", "bits", "stored"),
    [("h264_nvenc", 8, "yuv420p"), ("hevc_nvenc", 10, "p010le"), ("av1_nvenc", 10, "p010le")],
)
def test_what_is_probed_is_what_is_opened(tmp_path, told, codec, bits, stored):
    options = SinkOptions(codec=codec, bit_depth=bits, quality=30, preset="veryfast")
    plan = plan_encoder(tmp_path / "a.mp4", SIZE, None, options)
    assert told == [(codec, SIZE, stored, plan.options)]
    assert plan.stored_format == stored
    wanted = {"preset": "p2", "rc": "vbr", "cq": "30", "b": "0", "rc-lookahead": "10", "delay": "0"}
    assert wanted.items() <= plan.options.items()


@pytest.mark.parametrize(
    ("preset", "nvenc", "av1"), [("ultrafast", "p1", "9"), ("medium", "p5", "7"), ("placebo", "p7", "2")]
)
def test_presets_and_usual_qualities(preset, nvenc, av1):
    for codec, quality in (("h264_nvenc", "19"), ("hevc_nvenc", "21"), ("av1_nvenc", "25")):
        options = encoder_options(codec, "420", SinkOptions(codec=codec, preset=preset))
        assert (options["preset"], options["cq"]) == (nvenc, quality)
    options = encoder_options("av1", "420", SinkOptions(codec="av1", preset=preset))
    assert (options["preset"], options["crf"]) == (av1, "22")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"codec": "h264_nvenc", "quality": 52}, "quality 52: h264_nvenc takes 1 to 51"),
        ({"codec": "av1", "quality": 64}, "quality 64: av1 takes 1 to 63"),
        ({"codec": "h264_nvenc", "bit_depth": 10}, "h264_nvenc takes 8 bits"),
        ({"codec": "hevc_nvenc", "chroma": "444"}, "hevc_nvenc takes 420"),
        ({"codec": "av1", "chroma": "444"}, "av1 takes 420"),
    ],
)
def test_what_cannot_be_is_said_before(tmp_path, told, options, sentence):
    with pytest.raises(OutputError, match=sentence):
        plan_encoder(tmp_path / "a.mkv", SIZE, None, SinkOptions(**options))
    assert told == []


@pytest.mark.parametrize("codec", ["av1", "hevc_nvenc"])
def test_odd_sizes_are_refused(tmp_path, told, codec):
    with pytest.raises(OutputError, match=f"{codec} needs an even size, got 65x48"):
        plan_encoder(tmp_path / "a.mkv", (65, 48), None, SinkOptions(codec=codec))


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mov", "av1"), ("a.mov", "av1_nvenc"), ("a.webm", "hevc_nvenc"), ("a.m4v", "vp9")]
)
def test_containers_refuse_what_players_refuse(tmp_path, told, name, codec):
    with pytest.raises(OutputError, match=f"in this kind of file, got {codec}"):
        plan_encoder(tmp_path / name, SIZE, None, SinkOptions(codec=codec))


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        ("Cannot load libcuda.so.1", "expected an NVIDIA driver, found none; use --codec h265"),
        ("Cannot load libnvidia-encode.so.1", "expected the driver's encoding library, found none"),
        ("OpenEncodeSessionEx failed: unsupported device (2): (no details)", "expected a GPU with an encoder"),
        ("Driver does not support the required nvenc API version. Required: 13.0 Found: 12.1", "a newer NVIDIA driver"),
        ("Width 9000 exceeds 8192", "expected a size that the GPU's encoder takes, found 64x48"),
        ("10 bit encode not supported", "expected a GPU that encodes 10 bits in this codec"),
        ("Something new.", "expected an encoder that opens, found Something new; use --codec h265"),
    ],
)
def test_one_sentence_for_each_reason(message, sentence):
    assert sentence in encoders._sentence("hevc_nvenc", SIZE, ["first", message], "Invalid argument")


@pytest.mark.parametrize("codec", ["h264_nvenc", "hevc_nvenc", "av1_nvenc"])
def test_a_machine_without_a_driver_says_so_and_writes_nothing(tmp_path, codec):
    if Path("/proc/driver/nvidia").exists():
        pytest.skip("this machine has an NVIDIA driver")
    with pytest.raises(OutputError, match=f"Encoder {codec}: expected an NVIDIA driver, found none; use --codec "):
        open_sink(tmp_path / "a.mp4", width=256, height=256, options=SinkOptions(codec=codec))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.cuda
@pytest.mark.parametrize("codec", ["h264_nvenc", "hevc_nvenc", "av1_nvenc"])
def test_a_gpu_with_an_encoder_writes_what_plays(tmp_path, codec):
    try:
        sink = open_sink(tmp_path / "a.mp4", width=256, height=256, options=SinkOptions(codec=codec))
    except OutputError as error:
        pytest.skip(str(error))
    with sink:
        for _ in range(5):
            sink.write(torch.full((3, 256, 256), 0.5))
    with open_source(tmp_path / "a.mp4") as source:
        frames = list(source)
    assert len(frames) == 5
    assert all((frame.rgb - 0.5).abs().max() < 0.02 for frame in frames)


@pytest.mark.parametrize(("name", "bits"), [("a.mp4", 8), ("a.mkv", 10), ("a.webm", 8)])
def test_av1_gives_the_pictures_back(tmp_path, name, bits):
    picture = torch.linspace(0, 1, 64).expand(3, 48, 64)
    options = SinkOptions(codec="av1", bit_depth=bits, preset="ultrafast")
    with open_sink(tmp_path / name, width=64, height=48, options=options) as sink:
        for _ in range(9):
            sink.write(picture)
    assert sink.warnings == []
    with open_source(tmp_path / name) as source:
        frames = list(source)
        assert (source.info.codec, source.info.bit_depth, source.info.average_rate) == ("av1", bits, 24)
    assert [float(frame.pts * source.info.time_base * 24) for frame in frames] == pytest.approx(range(9), abs=0.05)
    assert min(psnr(frame.rgb, picture) for frame in frames) > 38


def test_the_order_that_nvenc_wants_keeps_every_code_value():
    coding = coding_for("yuv420p10le", SIZE, ColorTags())
    codes = torch.randint(0, 1024, (coding.size_bytes // 2,)).to(torch.int16).view(torch.uint8)
    there = frame_of_codes(codes, coding)
    back = there.reformat(format="p010le", threads=1).reformat(format="yuv420p10le", threads=1)
    assert [bytes(plane) for plane in back.planes] == [bytes(plane) for plane in there.planes]
    assert (back.colorspace, back.color_range) == (there.colorspace, there.color_range)


def test_av1_gives_the_same_bytes_with_any_number_of_threads(tmp_path, monkeypatch):
    def encoded(name, lp):
        monkeypatch.setattr(
            "seedvr2_engine.video.writing.encoders._AV1_PARAMS", f"lp={lp}:lookahead=0:hierarchical-levels=3"
        )
        torch.manual_seed(0)
        options = SinkOptions(codec="av1", preset="ultrafast")
        with open_sink(tmp_path / name, width=320, height=192, options=options) as sink:
            for _ in range(12):
                sink.write(torch.rand(3, 24, 40).repeat_interleave(8, 1).repeat_interleave(8, 2))
        return (tmp_path / name).read_bytes()

    assert encoded("a.mkv", 1) == encoded("b.mkv", 2) == encoded("c.mkv", 4)
