"""`seedvr2 upscale --plan` says what a run would do, lose and refuse, and writes nothing."""

import json

import pytest
from PIL import Image

from ...video.made.sounds import write_sound
from ..test_commands import refused, seedvr2


def test_the_plan_says_everything_and_writes_nothing(clip, models, tmp_path):
    target = tmp_path / "out.mp4"
    result = seedvr2("upscale", clip, target, *models, "--scale", "2", "--plan")
    assert result.exit_code == 0, result.stderr
    said = " ".join(result.stdout.split())
    for words in (
        "32x24 to 64x48, 7 frames",
        "1 of up to 45 frames",
        "cpu, VAE in float32",
        "memory",
        "about",
        "TFLOP",
    ):
        assert words in said
    assert list(tmp_path.iterdir()) == []


def test_the_plan_for_a_gpu_that_is_not_here(clip, models, tmp_path):
    command = ["upscale", clip, tmp_path / "out.mp4", *models, "--scale", "2", "--chunk-frames", "5"]
    result = seedvr2(*command, "--plan", "--gpu", "rtx5070ti")
    assert result.exit_code == 0, result.stderr
    said = " ".join(result.stdout.split())
    for words in (
        "RTX 5070 Ti, 16.0 GiB, not this machine",
        "of 17.18 GB",
        "in int8 if its weights bear it",
        "the VAE in mxfp8 and the transformer in int8",
        "not measured",
    ):
        assert words in said
    in_16_bits = seedvr2(*command, "--plan", "--gpu", "rtx5070ti", "--dit-precision", "bf16", "--precision", "fp16")
    assert "the VAE in fp16 and the transformer in bf16" in " ".join(in_16_bits.stdout.split())
    plain = seedvr2(*command, "--plan", "--gpu", "h200", "--precision", "reference")
    assert "not known: the plain VAE would serve there" in " ".join(plain.stdout.split())
    assert list(tmp_path.iterdir()) == []
    assert "expected --plan beside --gpu" in refused(*command, "--gpu", "rtx5070ti")
    assert "expected a GPU of the table" in refused(*command, "--plan", "--gpu", "voodoo2")
    refusal = refused(*command, "--plan", "--gpu", "rtx3090", "--dit-precision", "fp8")
    assert "RTX 3090 (sm_86) computes int8, bf16" in " ".join(refusal.split())


@pytest.mark.parametrize("memory_mb", [12, 20, 100_000])
def test_the_run_cuts_as_the_plan_says(clip, models, tmp_path, monkeypatch, memory_mb):
    for name in ("seedvr2_engine.pipeline.setup", "seedvr2_engine.pipeline.upscaler"):
        monkeypatch.setattr(f"{name}.total_memory_bytes", lambda _: memory_mb * 10**6)
    command = ["upscale", clip, tmp_path / "out.mp4", *models, "--scale", "2", "--color", "none", "--frames", "6"]
    planned = seedvr2(*command, "--plan")
    done = seedvr2(*command, "--json")
    assert (planned.exit_code, done.exit_code) == (0, 0), planned.stderr + done.stderr
    said, facts = " ".join(planned.stdout.split()), json.loads(done.stdout)
    assert f"of up to {facts['chunk_frames']} frames; neighbours share {facts['overlap']};" in said


def test_the_plan_says_what_cannot_be_kept(models, tmp_path):
    source = write_sound(tmp_path / "a.mkv", "pcm_s16le")
    result = seedvr2("upscale", source, tmp_path / "b.webm", *models, "--scale", "2", "--plan")
    assert result.exit_code == 0, result.stderr
    assert "audio 1 (pcm_s16le) as libopus" in " ".join(result.stdout.split())
    assert "is encoded anew as libopus" in " ".join(result.stderr.split())
    assert [path.name for path in tmp_path.iterdir()] == ["a.mkv"]


def test_the_plan_says_where_the_output_has_no_place(clip, models, tmp_path):
    def said(source, target, *more):
        result = seedvr2("upscale", source, target, *models, "--scale", "2", "--plan", *more)
        assert result.exit_code == 0, result.stderr
        return " ".join(result.stderr.split())

    there, pictures = tmp_path / "out.mp4", tmp_path / "f_%03d.png"
    there.write_bytes(b"precious")
    (tmp_path / "f_002.png").write_bytes(b"precious")
    assert "it exists already" in said(clip, there)
    assert "exist already" not in said(clip, there, "--overwrite")
    assert "such pictures exist already" in said(clip, pictures)
    assert "its folder does not exist" in said(clip, tmp_path / "no" / "out.mp4")
    (tmp_path / "own.mkv").write_bytes(clip.read_bytes())
    assert "expected another place than the input's" in said(tmp_path / "own.mkv", tmp_path / "own.mkv", "--overwrite")
    assert there.read_bytes() == b"precious"


def test_the_plan_says_what_is_odd_about_the_source(models, tmp_path):
    Image.new("CMYK", (32, 32), (9, 99, 0, 0)).save(tmp_path / "a.jpg")
    result = seedvr2("upscale", tmp_path / "a.jpg", tmp_path / "b.png", *models, "--scale", "2", "--plan")
    assert result.exit_code == 0, result.stderr
    assert "CMYK is converted" in " ".join(result.stderr.split())


def test_the_plan_refuses_what_the_run_would(models, clip, tmp_path):
    assert "expected one frame" in refused("upscale", clip, tmp_path / "b.png", *models, "--scale", "2", "--plan")
