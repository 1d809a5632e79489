"""`seedvr2 bench upscale`: every stage, after a check that can fail."""

import json
import re

import pytest
import torch

from seedvr2_engine.bench import random_models
from seedvr2_engine.bench import upscale as bench
from seedvr2_engine.bench.loading import bench_models
from seedvr2_engine.engine.vae.backend import reference_backend
from seedvr2_engine.engine.vae.engine import VAEEngine
from seedvr2_engine.errors import InvalidArgumentError
from seedvr2_engine.loading import load_vae
from seedvr2_engine.models.dit.config import DiTConfig
from seedvr2_engine.pipeline.options import UpscaleOptions
from seedvr2_engine.pipeline.resize import plan_resize
from seedvr2_engine.pipeline.setup import choose_formats
from seedvr2_engine.pipeline.upscaler import Upscaler
from seedvr2_engine.plan.gpus import find_gpu
from seedvr2_engine.quant import QuantRecipe

from .test_commands import GOLDEN, TINY_VAE, refused, seedvr2

TINY_DIT = GOLDEN / "dit_tiny_3b.safetensors"
MODELS = ["--dit", TINY_DIT, "--vae", TINY_VAE]


def test_every_stage_is_reported():
    size = ["--width", "48", "--height", "32", "--frames", "1", "--repeats", "1"]
    result = seedvr2("bench", "upscale", *MODELS, *size, "--device", "cpu", "--json")
    assert result.exit_code == 0, result.stderr
    assert result.stderr.startswith("Making and checking transformer ")
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
    formats = choose_formats(torch.device("cpu"), "auto")
    return bench_models(str(TINY_DIT), TINY_VAE, formats, UpscaleOptions(), offload=True)[0]


@pytest.mark.parametrize(
    "factor",
    [
        pytest.param(lambda: 1.2, id="far from the plain model"),
        pytest.param(lambda: 1 + 1e-3 * torch.rand(()), id="another one every time"),
        pytest.param(lambda: torch.nan, id="no number"),
    ],
)
def test_models_that_are_wrong_are_not_timed(monkeypatch, factor):
    wrong = upscaler()
    bench.check_models(wrong)
    velocity, given = wrong.dit.velocity, []

    def spoilt(video, geometry, conditioning):
        given.append(geometry)
        # The last of four is the plain model's.
        return velocity(video, geometry, conditioning) * (factor() if len(given) < 4 else 1)

    monkeypatch.setattr(wrong.dit, "velocity", spoilt)
    with pytest.raises(InvalidArgumentError, match="nothing is timed"):
        bench.check_models(wrong)
    assert len(given) == 4


def test_an_engines_work_is_its_plans_and_its_rate_that_of_its_format(monkeypatch):
    """Kernels are hidden from PyTorch's counter, which would find no work in them."""
    monkeypatch.setattr(bench, "matrix_tflops", lambda format, device: {"fp8": 1000.0, "fp16": 500.0}[format])
    vae, resize = load_vae("nano"), plan_resize((32, 48), scale=2)
    works = {}
    for format in ("fp8", "fp16"):
        engine = VAEEngine(vae, QuantRecipe(format), find_gpu("rtx5070ti"), reference_backend(), device="cpu")
        works[format] = {frames: bench._engine_work(engine, "decode", resize, frames) for frames in (1, 5, 9)}
    few, more, most = works["fp8"].values()
    assert 0 < most.flop - more.flop == more.flop - few.flop
    assert more.flop == works["fp16"][5].flop
    assert works["fp16"][5].least_seconds == pytest.approx(2 * more.least_seconds)
    assert bench._engine_work(vae, "decode", resize, 5) is None
