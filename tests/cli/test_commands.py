"""The command line as a user meets it: results, and one sentence with exit code 2 for bad input."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from seedvr2_engine.checkpoint.locating.registry import MODEL_FILES
from seedvr2_engine.cli.app import app
from seedvr2_engine.cli.commands import clips
from seedvr2_engine.errors import VideoError
from seedvr2_engine.loading_dit import NANO_DIT
from seedvr2_engine.version import __version__
from seedvr2_engine.video import SinkOptions, open_sink, open_source

from ..conftest import GOLDEN

TINY_VAE = str(GOLDEN / "vae_tiny.safetensors")


def seedvr2(*arguments: str | Path, **environment: str):
    """Run a command in this process."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], env=environment or None)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def refused(*arguments: str | Path, **environment: str) -> str:
    """Run a command that must be refused, and return its one sentence."""
    result = seedvr2(*arguments, **environment)
    assert result.exit_code == 2, result.stderr
    sentences = re.findall(r"^error: (.*)", result.stderr, flags=re.MULTILINE)
    assert len(sentences) == 1, result.stderr
    return sentences[0]


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("clips") / "clip.mkv"
    rows, columns = torch.meshgrid(torch.linspace(0, 1, 36), torch.linspace(0, 1, 50), indexing="ij")
    with open_sink(path, width=50, height=36, options=SinkOptions(codec="ffv1")) as sink:
        for index in range(7):
            sink.write(torch.stack([rows, columns, torch.full_like(rows, index / 7)]))
    return path


def test_version_and_help():
    assert seedvr2("--version").stdout.strip() == f"seedvr2-engine {__version__}"
    assert "reconstruct" in seedvr2("--help").stdout
    assert seedvr2("upscal").exit_code == 2


def test_the_installed_command_prints_one_sentence_and_no_traceback(tmp_path):
    command = [sys.executable, "-m", "seedvr2_engine", "info", str(tmp_path / "nowhere")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stderr.startswith("error: ")
    assert len(result.stderr.splitlines()) == 1


def test_reconstruct_keeps_count_and_size_and_reports(clip, tmp_path):
    target = tmp_path / "out.mkv"
    result = seedvr2("reconstruct", clip, target, "--vae", TINY_VAE, "--codec", "ffv1", "--json")
    assert result.exit_code == 0, result.stderr
    facts = json.loads(result.stdout)
    assert facts["frames"] == 7
    assert facts["psnr_db"] < 60
    with open_source(target) as source:
        assert (source.info.width, source.info.height, source.info.frame_count) == (50, 36, 7)
    assert [path.name for path in tmp_path.iterdir()] == ["out.mkv"]


def test_reconstruct_in_tiles_and_longer_slices(clip, tmp_path):
    whole, other = tmp_path / "whole.mkv", tmp_path / "other.mkv"
    common = ("--vae", TINY_VAE, "--codec", "ffv1", "--frames", "5")
    assert seedvr2("reconstruct", clip, whole, *common).exit_code == 0
    assert seedvr2("reconstruct", clip, other, *common, "--slice-frames", "8").exit_code == 0
    assert whole.stat().st_size == pytest.approx(other.stat().st_size, rel=0.01)
    tiled = seedvr2("reconstruct", clip, tmp_path / "tiled.mkv", *common, "--tile", "32", "--tile-overlap", "8")
    assert tiled.exit_code == 0, tiled.stderr


def test_a_picture_stays_a_picture_with_its_alpha(tmp_path):
    source, target = tmp_path / "in.png", tmp_path / "out.png"
    rgb, alpha = torch.rand(3, 20, 30), torch.rand(1, 20, 30)
    with open_sink(tmp_path / "plain.png", width=30, height=20) as sink:
        sink.write(rgb)
    _write_rgba(source, rgb, alpha)
    result = seedvr2("reconstruct", source, target, "--vae", TINY_VAE)
    assert result.exit_code == 0, result.stderr
    with open_source(source) as before, open_source(target) as after:
        assert after.info.has_alpha
        assert torch.equal(next(iter(before)).alpha, next(iter(after)).alpha)


def _write_rgba(path: Path, rgb: torch.Tensor, alpha: torch.Tensor) -> None:
    import av
    import numpy as np

    pixels = (torch.cat([rgb, alpha]).permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
    with av.open(str(path), "w", format="image2", options={"update": "1"}) as container:
        stream = container.add_stream("png", rate=1)
        stream.width, stream.height, stream.pix_fmt = rgb.shape[2], rgb.shape[1], "rgba"
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgba")
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)


def test_existing_output_is_kept_unless_told(clip, tmp_path):
    target = tmp_path / "out.mp4"
    target.write_bytes(b"precious")
    assert "overwrite" in refused("reconstruct", clip, target, "--vae", TINY_VAE)
    assert target.read_bytes() == b"precious"
    assert seedvr2("reconstruct", clip, target, "--vae", TINY_VAE, "--overwrite").exit_code == 0
    assert target.read_bytes() != b"precious"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere.mp4", "out.mp4"], "nowhere.mp4"),
        (["{clip}", "out.unknown"], "ending"),
        (["{clip}", "missing/folder/out.mp4"], "missing/folder"),
        (["{clip}", "out.mp4", "--vae", "nowhere.safetensors"], "no such model file"),
        (["{clip}", "out.mp4", "--vae", "{clip}"], "expected"),
        (["{clip}", "out.mp4", "--device", "tpu"], "device"),
        (["{clip}", "out.mp4", "--device", "cuda:99"], "CUDA"),
        (["{clip}", "out.mp4", "--dtype", "int8"], "dtype"),
        (["{clip}", "out.mp4", "--precision", "fp8", "--device", "cpu"], "fp8 was asked for"),
        (["{clip}", "out.mp4", "--precision", "fp4", "--device", "cpu"], "expected one of auto"),
        (["{clip}", "out.mp4", "--precision", "fp8", "--dtype", "float16"], "leave one of them out"),
        (["{clip}", "out.mp4", "--slice-frames", "6", "--vae", TINY_VAE], "multiple of 4"),
        (["{clip}", "out.mp4", "--tile", "64", "--tile-overlap", "64"], "less than the tile size"),
        (["{clip}", "out.mp4", "--start", "99"], "99"),
        (["{clip}", "out.mp4", "--frames", "0"], "frames"),
        (["{clip}", "out.mp4", "--codec", "mjpeg9"], "codec"),
        (["{clip}", "out.mp4", "--bit-depth", "32"], "bit_depth"),
    ],
)
def test_bad_arguments_of_reconstruct(clip, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    sentence = refused("reconstruct", *(argument.format(clip=clip) for argument in arguments))
    assert words in sentence
    assert list(tmp_path.iterdir()) == []


def test_a_clip_is_not_squeezed_into_a_picture(clip, tmp_path):
    target = tmp_path / "out.png"
    assert "--frames 1" in refused("reconstruct", clip, target, "--vae", TINY_VAE)
    assert not target.exists()
    assert seedvr2("reconstruct", clip, target, "--vae", TINY_VAE, "--frames", "1").exit_code == 0


def test_damaged_inputs_are_refused_and_leave_the_output_alone(clip, tmp_path):
    target = tmp_path / "out.mp4"
    target.write_bytes(b"precious")
    text, empty, cut = tmp_path / "text.mp4", tmp_path / "empty.mp4", tmp_path / "cut.mkv"
    text.write_text("not a video")
    empty.touch()
    cut.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    for source in (text, empty, cut):
        sentence = refused("reconstruct", source, target, "--vae", TINY_VAE, "--overwrite")
        assert source.name in sentence
        assert target.read_bytes() == b"precious"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cut.mkv", "empty.mp4", "out.mp4", "text.mp4"]


def test_ctrl_c_says_what_is_left(clip, tmp_path):
    long = tmp_path / "long.mkv"
    with open_sink(long, width=64, height=48, options=SinkOptions(codec="ffv1")) as sink:
        for _ in range(120):
            sink.write(torch.rand(3, 48, 64))
    target = tmp_path / "out.mkv"
    command = [sys.executable, "-m", "seedvr2_engine", "reconstruct", str(long), str(target), "--vae", TINY_VAE]
    command += ["--codec", "ffv1"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    while process.poll() is None and not any(p.stat().st_size for p in tmp_path.glob("out.partial-*")):
        time.sleep(0.05)
    time.sleep(1.0)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr
    assert "interrupted" in stderr
    assert not target.exists()
    kept = list(tmp_path.glob("out.partial-*"))
    assert len(kept) == ("out.partial-" in stderr)
    for partial in kept:
        with open_source(partial) as source:
            assert 1 <= sum(1 for _ in source) < 120


def test_info(tmp_path):
    result = seedvr2("info", TINY_VAE)
    assert result.exit_code == 0
    assert "SeedVR2 VAE" in result.stdout
    assert "32, 64, 32, 32" in result.stdout
    assert json.loads(seedvr2("info", TINY_VAE, "--json").stdout)["parameters"] == 2_517_795
    assert "3b family; " in seedvr2("info", GOLDEN / "dit_tiny_3b.safetensors").stdout
    assert "32, 32, 64, 64" in seedvr2("info", "nano").stdout
    assert "nowhere" in refused("info", "nowhere")


def test_convert_a_transformer(tmp_path):
    result = seedvr2("convert", NANO_DIT, tmp_path / "nano.safetensors", "--type", "int8")
    assert result.exit_code == 0
    said = " ".join(result.stdout.split())
    assert "INT8" in said
    assert "What the source had lost before stays lost: Q8_0 (not known how much)." in said
    assert "ComfyUI's own loader needs both" in said
    result = seedvr2("info", tmp_path / "nano.safetensors")
    assert "INT8, a scale a row" in result.stdout
    assert seedvr2("convert", NANO_DIT, tmp_path / "fp8.safetensors").exit_code == 0
    assert "FP8 E4M3, a scale a tensor" in seedvr2("info", tmp_path / "fp8.safetensors").stdout
    assert seedvr2("convert", tmp_path / "nano.safetensors", tmp_path / "back.gguf").exit_code == 0
    assert "seedvr2.losses" in seedvr2("info", tmp_path / "back.gguf").stdout


def test_convert_then_reconstruct(clip, tmp_path):
    converted = tmp_path / "tiny.gguf"
    result = seedvr2("convert", TINY_VAE, converted, "--type", "Q8_0")
    assert result.exit_code == 0, result.stderr
    assert str(converted) in result.stdout
    assert "overwrite" in refused("convert", TINY_VAE, converted)
    assert "Q9_9" in refused("convert", TINY_VAE, tmp_path / "other.gguf", "--type", "Q9_9")
    assert "ending in .gguf" in refused("convert", TINY_VAE, tmp_path / "other.safetensors")
    assert "ending in .gguf or .safetensors" in refused("convert", TINY_VAE, tmp_path / "other.bin")
    assert seedvr2("convert", "nano", tmp_path / "nano.gguf", "-t", "q4_0").exit_code == 0
    assert "Q4_0" in seedvr2("info", tmp_path / "nano.gguf").stdout
    done = seedvr2("reconstruct", clip, tmp_path / "out.mkv", "--vae", converted, "--frames", "1")
    assert done.exit_code == 0, done.stderr


def test_broken_checkpoints_are_refused(clip, tmp_path):
    tensors = load_file(TINY_VAE)
    first = next(iter(tensors))
    missing, extra, wrong, nan = (tmp_path / f"{name}.safetensors" for name in ("missing", "extra", "wrong", "nan"))
    save_file({k: v for k, v in tensors.items() if k != first}, missing)
    save_file({**tensors, "surplus": torch.zeros(3)}, extra)
    save_file({**tensors, "decoder.conv_out.weight": torch.zeros(3, 16, 3, 3, 3)}, wrong)
    save_file({**tensors, first: torch.full_like(tensors[first], float("nan"))}, nan)
    pickle = tmp_path / "model.pth"
    torch.save({"a": torch.zeros(1)}, pickle)
    target = tmp_path / "out.mkv"
    for path, words in [(missing, first), (extra, "surplus"), (wrong, "decoder.conv_out.weight"), (nan, "NaN")]:
        assert words in refused("reconstruct", clip, target, "--vae", path)
    assert "safetensors" in refused("reconstruct", clip, target, "--vae", pickle)
    assert not target.exists()


def test_models_and_downloads_without_network(tmp_path):
    home = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"}
    listed = seedvr2("models", **home)
    assert listed.exit_code == 0
    # Names are typed again after `download`, so none may be cut off.
    assert {model.name for model in MODEL_FILES} <= set(listed.stdout.split())
    assert "ema_vae_fp16.safetensors" in refused("download", "ema_vae_fp15.safetensors", **home)
    assert "ema_vae_fp16.safetensors" in refused("download", "ema_vae_fp16.safetensors", **home)


def test_reconstruct_says_what_is_lost_before_the_work(tmp_path, monkeypatch):
    def never(*_):
        raise VideoError("not today.")

    monkeypatch.setattr(clips, "_load", never)
    Image.new("CMYK", (32, 32), (9, 99, 0, 0)).save(tmp_path / "a.jpg", dpi=(300, 300))
    result = seedvr2("reconstruct", tmp_path / "a.jpg", tmp_path / "b.mp4", "--vae", TINY_VAE)
    said = " ".join(result.stderr.split())
    assert "CMYK is converted" in said
    assert "resolution is left out" in said
    assert result.exit_code == 2
