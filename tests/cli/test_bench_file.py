"""`seedvr2 bench file`: the whole command in processes of its own."""

import copy
import json
import re

import pytest
import torch

from seedvr2_engine.bench.file_results import lanes_of
from seedvr2_engine.bench.made_clip import clip_frames
from seedvr2_engine.bench.passing_models import write_passing_dit, write_widened_vae
from seedvr2_engine.bench.random_models import PUBLIC_TEXT_TOKENS
from seedvr2_engine.bench.split import Segment
from seedvr2_engine.loading import load_vae
from seedvr2_engine.loading_dit import load_dit, load_text_embedding
from seedvr2_engine.models.dit.config import DiTConfig
from seedvr2_engine.models.dit.sampler import dit_input
from seedvr2_engine.models.vae.config import VAEConfig

from .test_commands import refused, seedvr2

SMALL = ["--width", "32", "--height", "32", "--frames", "5", "--dit", "nano", "--device", "cpu"]


def test_table_json_and_picture(tmp_path):
    pytest.importorskip("matplotlib")
    result = seedvr2("bench", "file", *SMALL, "--cold", "1", "--warm", "0", "--out", tmp_path, "--plot")
    assert result.exit_code == 0, result.stderr
    for words in ("first frame written", "imports", "weights", "transformer", "codec"):
        assert words in result.stdout
    (written,) = tmp_path.glob("file-*.json")
    facts = json.loads(written.read_text())
    assert re.match(r"seedvr2 upscale IN OUT --dit nano\S* --vae nano\S* --scale 2 --device cpu$", facts["command"])
    assert (facts["frames"], facts["size"]) == (5, [64, 64])
    assert {"machine", "date", "commit", "clip", "warm_up", "cold"} < facts.keys()
    assert "warm" not in facts
    (run,) = facts["cold"]["runs"]
    assert run == facts["cold"]["median"] == facts["cold"]["p90"]
    assert 0 < run["first_frame_s"] < run["total_s"]
    assert run["steady_frames_per_s"] is None
    assert run["gpu_share"] is None
    stages = {"start", "imports", "headers", "opening", "weights", "reading", "encode", "transformer", "decode"}
    assert stages | {"colour", "host", "codec", "finishing", "end"} <= run["split"].keys()
    assert all(0 <= seconds < run["total_s"] for seconds in run["split"].values())
    assert written.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--cold", "0", "--warm", "0"], "expected at least one"),
        (["--plot"], "needs a folder"),
        (["--cold", "1", "--warm", "0", "--", "--chunk-frames", "x"], "expected `seedvr2 upscale` to end well"),
    ],
)
def test_bad_options(arguments, words):
    assert words in refused("bench", "file", *SMALL, *arguments)


def test_the_clip_is_the_same_every_time_and_moves():
    first, again = (list(clip_frames(48, 32, 3)) for _ in range(2))
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    assert first[0].shape == (3, 32, 48)
    assert 0 <= first[0].min() < 0.3 < 0.7 < first[0].max() <= 1
    assert abs(first[1] - first[0]).mean() > 0.01


def test_a_timeline_joins_what_no_one_could_see():
    frames = [Segment("codec", "MainThread", at / 1000, at / 1000 + 0.0005) for at in range(1000)]
    pools = [Segment("compiling", f"ThreadPoolExecutor-0_{n}", n, n + 1) for n in range(2)]
    lanes = lanes_of([Segment("decode", "GPU", 0, 1), *frames, *pools, Segment("read", "reading", 0, 20)])
    assert list(lanes) == ["main", "compilers", "reading", "GPU"]
    assert len(lanes["main"]) == 1
    assert (lanes["main"][0].begin, lanes["main"][0].end) == pytest.approx((0, 0.9995))


def test_a_transformer_of_any_size_passes_its_input_through(tmp_path):
    for family, separate in (("3b", 1), ("7b", 2)):
        config = DiTConfig(
            family, width=160, layers=2, separate_layers=separate, heads=1, head_width=32, mlp_width=96, text_width=32
        )
        write_passing_dit(tmp_path / "dit.safetensors", config)
        dit, text = load_dit(tmp_path / "dit.safetensors"), load_text_embedding(tmp_path / "dit.safetensors")
        assert dit.config == config
        assert text.shape == (PUBLIC_TEXT_TOKENS, 32)
        noise, condition = torch.randn(2, 2, 4, 4, 16)
        velocity = dit(dit_input(noise, condition), text, 1000.0)
        assert (noise - velocity - condition).abs().max() < 0.01


def test_a_wide_vae_computes_what_the_small_one_does(tmp_path, tiny_vae):
    small = copy.deepcopy(tiny_vae).half().float()
    wide = VAEConfig(block_out_channels=(64, 128, 64, 128))
    write_widened_vae(tmp_path / "vae.safetensors", small, wide)
    vae = load_vae(tmp_path / "vae.safetensors")
    assert vae.config == wide
    picture = torch.rand(1, 3, 5, 32, 32) * 2 - 1
    with torch.no_grad():
        latent = small.encode(picture)
        torch.testing.assert_close(vae.encode(picture), latent, atol=2e-3, rtol=2e-3)
        torch.testing.assert_close(vae.decode(latent), small.decode(latent), atol=2e-3, rtol=2e-3)
