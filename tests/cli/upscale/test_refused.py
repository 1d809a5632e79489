"""What `seedvr2 upscale` refuses, in one sentence, and leaves as it was."""

import errno
from pathlib import Path

import pytest
import torch

from seedvr2_engine.loading_dit import NANO_DIT
from seedvr2_engine.video import SinkOptions, open_sink, open_source

from ...conftest import GOLDEN
from ..conftest import TINY_VAE
from ..test_commands import refused, seedvr2

NO_MODELS = {"SEEDVR2_MODELS": "", "COMFYUI_PATH": ""}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--resolution", "0"], "expected a whole number from 16 to 16384, got 0"),
        (["--resolution", "99999"], "got 99999"),
        (["--scale", "0"], "expected a factor above 0"),
        (["--scale", "2", "--resolution", "64"], "leave one of them out"),
        (["--vae-span", "whole"], "expected one of auto, clip, chunk"),
        (["--chunk-frames", "5", "--overlap", "5"], "fewer than a chunk has"),
        (["--color", "sepia"], "expected one of lab"),
        (["--noise", "white"], "expected one of position"),
        (["--seed", "-1"], "seed"),
        (["--input-noise", "2"], "from 0 to 1"),
        (["--device", "tpu"], "device"),
        (["--precision", "int4"], "precision: expected one of auto, "),
        (["--preset", "hasty"], "preset: expected one of ultrafast"),
        (["--offload", "some"], "expected one of auto, none, blocks"),
        (["--tile", "64", "--tile-overlap", "64"], "less than the tile size"),
        (["--codec", "mjpeg9"], "codec"),
        (["--start", "99"], "99"),
    ],
)
def test_bad_options(clip, models, tmp_path, arguments, words):
    assert words in refused("upscale", clip, tmp_path / "out.mp4", *models, *arguments)
    assert list(tmp_path.iterdir()) == []


def test_wrong_and_damaged_model_files(clip, dit, tmp_path):
    target = tmp_path / "out.mp4"
    assert "found a diffusion transformer" in refused("upscale", clip, target, "--dit", dit, "--vae", dit)
    for text in ((), ("--text", dit)):
        assert "found a VAE" in refused("upscale", clip, target, "--dit", TINY_VAE, "--vae", TINY_VAE, *text)
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(Path(dit).read_bytes()[:100_000])
    assert "truncated" in refused("upscale", clip, target, "--dit", cut, "--vae", TINY_VAE)
    without = GOLDEN / "dit_tiny_3b.safetensors"
    sentence = refused("upscale", clip, target, "--dit", without, "--vae", TINY_VAE, HOME=str(tmp_path), **NO_MODELS)
    assert "seedvr2 download pos_emb.pt" in sentence
    assert not target.exists()


def test_without_models_it_says_what_is_lacking(clip, dit, tmp_path):
    home = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache"), **NO_MODELS}
    sentence = refused("upscale", clip, tmp_path / "out.mp4", **home)
    assert "seedvr2 download seedvr2_ema_3b_fp16.safetensors" in sentence
    assert ("--dit nano" in sentence) == NANO_DIT.is_file()
    assert "ema_vae_fp16.safetensors" in refused("upscale", clip, tmp_path / "out.mp4", "--dit", dit, **home)
    # A file that is no transformer is that first, not a reason to fetch half a gigabyte.
    assert "found a VAE" in refused("upscale", clip, tmp_path / "out.mp4", "--dit", TINY_VAE, **home)
    # Latents of one VAE mean nothing to the transformer of another.
    assert "nano" in refused("upscale", clip, tmp_path / "out.mp4", "--dit", "nano", "--vae", TINY_VAE, **home)


def test_an_existing_output_is_kept_unless_told(clip, models, tmp_path):
    target = tmp_path / "out.mp4"
    target.write_bytes(b"precious")
    assert "overwrite" in refused("upscale", clip, target, *models, "--scale", "1")
    assert target.read_bytes() == b"precious"
    result = seedvr2("upscale", clip, target, *models, "--scale", "1", "--frames", "1", "--overwrite")
    assert result.exit_code == 0
    assert target.read_bytes() != b"precious"


def test_a_truncated_clip_is_refused_unless_told(models, tmp_path):
    whole, cut, target = tmp_path / "whole.mkv", tmp_path / "cut.mkv", tmp_path / "out.mp4"
    with open_sink(whole, width=32, height=24, options=SinkOptions(codec="ffv1")) as sink:
        for _ in range(9):
            sink.write(torch.rand(3, 24, 32))
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 2 // 3])
    assert "--keep-damaged" in refused("upscale", cut, target, *models, "--scale", "1")
    result = seedvr2("upscale", cut, target, *models, "--scale", "1", "--keep-damaged")
    assert result.exit_code == 3, result.stderr  # The output is whole, the source was not.
    assert "has cost" in result.stderr
    with open_source(target) as source:
        assert 1 <= len(list(source)) < 9


def test_a_folder_that_cannot_be_made_gets_one_sentence(clip, models, tmp_path, monkeypatch):
    def refuse(self, *_, **__):
        raise OSError(errno.EROFS, "Read-only file system", str(self))

    clips = tmp_path / "clips"
    clips.mkdir()
    (clips / "a.mp4").write_bytes(clip.read_bytes())
    monkeypatch.setattr(Path, "mkdir", refuse)
    assert "not allowed to write here" in refused("upscale", clips, tmp_path / "out", *models, "--scale", "1")
