"""`seedvr2 bench upscale`: every stage, after a check that can fail."""

import json
import re

import pytest
import torch

from seedvr2_engine.bench import random_models
from seedvr2_engine.bench import upscale as bench
from seedvr2_engine.bench.loading import bench_models
from seedvr2_engine.errors import InvalidArgumentError
from seedvr2_engine.models.dit_config import DiTConfig
from seedvr2_engine.pipeline.options import UpscaleOptions
from seedvr2_engine.pipeline.upscaler import Upscaler

from .test_commands import GOLDEN, TINY_VAE, refused, seedvr2

TINY_DIT = GOLDEN / "dit_tiny_3b.safetensors"
MODELS = ["--dit", TINY_DIT, "--vae", TINY_VAE]


def test_every_stage_is_reported():
    size = ["--width", "48", "--height", "32", "--frames", "1", "--repeats", "1"]
    result = seedvr2("bench", "upscale", *MODELS, *size, "--device", "cpu", "--json")
    assert result.exit_code == 0, result.stderr
    stages = {stage["name"]: stage for stage in json.loads(result.stdout)["stages"]}
    assert list(stages)[:4] == ["encode", "transformer", "decode", "colours"]
    assert len(stages) == 8
    for stage in stages.values():
        assert stage["milliseconds"] > 0
        assert stage["frames_per_s"] == pytest.approx(1000 / stage["milliseconds"])
    together = stages["encode + transformer + decode"]
    assert together["flop"] == sum(stages[name]["flop"] for name in ("encode", "transformer", "decode"))
    assert 0 < together["share"] < 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--frames", "6"], "expected 4n\\+1"),
        (["--width", "31"], "even edges"),
        (["--repeats", "0"], "at least one run"),
    ],
)
def test_bad_options(arguments, words):
    assert re.search(words, refused("bench", "upscale", *MODELS, *arguments))


def test_random_models_of_the_public_kind():
    config = DiTConfig("3b", width=64, layers=2, separate_layers=1, heads=1, head_width=64, mlp_width=96, text_width=32)
    dit = random_models.random_dit(config, torch.device("cpu"), torch.float32)
    out = dit(torch.randn(1, 4, 4, 33), torch.randn(3, 32), 1000.0)
    assert torch.isfinite(out).all()


def upscaler() -> Upscaler:
    names, dtypes = (str(TINY_DIT), TINY_VAE), (torch.float32, torch.float32)
    return bench_models(names, torch.device("cpu"), dtypes, UpscaleOptions(), offload=True)[0]


def test_models_that_are_wrong_are_not_timed(monkeypatch):
    bench.check_models(upscaler())
    wrong = upscaler()
    velocity = type(wrong.dit).velocity
    monkeypatch.setattr(
        type(wrong.dit), "velocity", lambda self, *how: velocity(self, *how) * (1 + torch.rand(())), raising=True
    )
    with pytest.raises(InvalidArgumentError, match="nothing is timed"):
        bench.check_models(wrong)
