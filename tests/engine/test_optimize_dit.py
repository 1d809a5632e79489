"""Which number format a transformer gets, and what is said where it gets another."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from seedvr2_engine.bench.random_models import random_dit
from seedvr2_engine.engine import optimize_dit as module
from seedvr2_engine.engine.accuracy.dit_check import DitCheck
from seedvr2_engine.engine.dit import fused
from seedvr2_engine.engine.dit.backend import reference_tokens
from seedvr2_engine.engine.dit.quantized import BlockFormat
from seedvr2_engine.engine.optimize_dit import optimize_dit
from seedvr2_engine.errors import InvalidArgumentError
from seedvr2_engine.models.dit.config import DiTConfig

CONFIG = DiTConfig("3b", width=48, layers=2, separate_layers=1, heads=2, head_width=16, mlp_width=64, text_width=16)
TEXT = torch.randn(3, 16, generator=torch.Generator().manual_seed(0))


class Codec:
    """Latents and pictures that are views of each other, scaled by 8: what a VAE's check needs, in no time."""

    device = torch.device("cpu")

    def stream_encode(self, frames):
        for index, frame in enumerate(frames):
            if index % 4 == 0:
                yield frame[:, :1, ::8, ::8].repeat(1, 16, 1, 1)

    def stream_decode(self, latents):
        return (latent[:, :3] * 0.02 for latent in latents)


@pytest.fixture
def dit():
    torch.manual_seed(0)
    return random_dit(CONFIG, torch.device("cpu"), torch.float32)


@pytest.fixture
def gpu(monkeypatch, tmp_path):
    """A GPU with both formats, played by the references on the CPU."""
    monkeypatch.setattr(module, "_candidates", lambda dit: (("int8", "fp8"), ""))
    monkeypatch.setattr(fused, "triton_tokens", reference_tokens)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (9, 0))
    monkeypatch.setattr(module, "user_cache", lambda: tmp_path / "models")
    return tmp_path / "accuracy"


def formats(model):
    return [BlockFormat.of(block) for block in model.blocks]


def test_without_a_gpu_it_stays_as_it_is_and_says_why(dit):
    model, report = optimize_dit(dit, Codec(), TEXT)
    assert model is dit
    assert report.precision == "fp32"
    assert "runs on cpu" in report.describe()
    with pytest.raises(InvalidArgumentError, match="int8 was asked for, but it runs on cpu"):
        optimize_dit(dit, Codec(), TEXT, precision="int8")
    with pytest.raises(
        InvalidArgumentError, match="expected one of auto, bf16, fp16, fp8, mxfp8, int8, nvfp4, got 'int4'"
    ):
        optimize_dit(dit, Codec(), TEXT, precision="int4")


def test_auto_takes_the_first_format_that_stays_within_the_limit(dit, gpu):
    model, report = optimize_dit(dit, Codec(), TEXT, min_psnr_db=30.0)
    assert report.precision == "int8"
    assert report.check.holds
    assert formats(model) == [BlockFormat(*["int8"] * 4)] * 2
    assert report.describe().startswith("transformer in int8: decoded within ")


def test_auto_stays_in_16_bits_where_most_matrices_would(dit, gpu):
    model, report = optimize_dit(dit, Codec(), TEXT, min_psnr_db=200.0)
    assert model is dit
    assert report.precision == "fp32"
    assert "int8 leaves" in report.reason
    assert "fp8 leaves" in report.reason


def test_a_format_that_was_asked_for_is_given_with_matrices_kept_or_refused(dit, gpu, monkeypatch):
    before = optimize_dit(dit, Codec(), TEXT, precision="fp8", min_psnr_db=1.0)[1].check.before_db
    model, report = optimize_dit(dit, Codec(), TEXT, precision="fp8", min_psnr_db=before + 2)
    assert report.precision == "fp8"
    assert report.check.kept
    assert formats(model) == list(report.check.formats)
    with pytest.raises(
        InvalidArgumentError, match="int8 was asked for, but every matrix would have to stay in 16 bits"
    ):
        optimize_dit(dit, Codec(), TEXT, precision="int8", min_psnr_db=300.0)
    monkeypatch.setattr(module, "_candidates", lambda dit: (("int8",), ""))
    with pytest.raises(InvalidArgumentError, match="fp8 was asked for, but this GPU computes int8; use auto"):
        optimize_dit(dit, Codec(), TEXT, precision="fp8")


def test_the_choice_is_kept_for_the_next_run(dit, gpu, monkeypatch):
    first_model, first = optimize_dit(dit, Codec(), TEXT, precision="int8", min_psnr_db=45.0)
    assert not first.from_cache
    assert len(list(gpu.iterdir())) == 1
    monkeypatch.setattr(module, "check_dit", None)
    model, again = optimize_dit(dit, Codec(), TEXT, precision="int8", min_psnr_db=45.0)
    assert again.from_cache
    assert formats(model) == formats(first_model)
    assert again.check.psnr_db == first.check.psnr_db


@pytest.mark.parametrize(
    "content", ["", "[]", '{"min_psnr_db": 45.0}', '{"min_psnr_db": 45.0, "layers": 2, "kept": 3}']
)
def test_a_damaged_choice_is_measured_again(dit, gpu, content):
    optimize_dit(dit, Codec(), TEXT, precision="int8", min_psnr_db=45.0)
    (file,) = gpu.iterdir()
    file.write_text(content)
    assert not optimize_dit(dit, Codec(), TEXT, precision="int8", min_psnr_db=45.0)[1].from_cache


def test_other_weights_have_another_choice(dit, gpu):
    optimize_dit(dit, Codec(), TEXT, precision="int8", min_psnr_db=45.0)
    with torch.no_grad():
        dit.blocks[1].attn.proj_qkv["all"].weight[0, 0] += 1
    assert not optimize_dit(dit, Codec(), TEXT, precision="int8", min_psnr_db=45.0)[1].from_cache
    assert len(list(gpu.iterdir())) == 2


def test_another_limit_gpu_or_format_has_another_choice(dit, gpu, monkeypatch):
    def is_known(precision, limit):
        return optimize_dit(dit, Codec(), TEXT, precision=precision, min_psnr_db=limit)[1].from_cache

    assert not is_known("int8", 20.0)
    assert is_known("int8", 20.0)
    assert not is_known("int8", 21.0)
    assert not is_known("fp8", 21.0)
    assert is_known("fp8", 21.0)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (8, 9))
    assert not is_known("fp8", 21.0)


def test_what_is_asked_for_and_misses_the_limit_is_refused(dit, gpu, monkeypatch):
    missed = DitCheck("fp8", 50.0, 40.0, 49.9, (BlockFormat("fp8"), BlockFormat()))
    monkeypatch.setattr(module, "check_dit", lambda *_, **__: (missed, "a model"))
    with pytest.raises(
        InvalidArgumentError, match=r"fp8 was asked for, but even with .* is 49.9 dB .* 50 dB; use auto"
    ):
        optimize_dit(dit, Codec(), TEXT, precision="fp8", cache=False)


@pytest.mark.parametrize(("in_8_bits", "taken"), [(8, True), (4, True), (3, False), (0, False)])
def test_auto_wants_half_of_the_matrices_in_8_bits(dit, gpu, monkeypatch, in_8_bits, taken):
    numbers = [torch.int8] * in_8_bits + [None] * (8 - in_8_bits)
    found = DitCheck("int8", 50.0, 40.0, 55.0, (BlockFormat(*numbers[:4]), BlockFormat(*numbers[4:])))
    monkeypatch.setattr(module, "check_dit", lambda *_, **__: (found, "a model"))
    model, _ = optimize_dit(dit, Codec(), TEXT, cache=False)
    assert model == "a model" if taken else model is dit
    missed = replace(found, psnr_db=49.9)
    monkeypatch.setattr(module, "check_dit", lambda *_, **__: (missed, "a model"))
    assert optimize_dit(dit, Codec(), TEXT, cache=False)[0] is dit


def test_latents_are_scaled_for_the_transformer_and_back():
    clip = torch.rand(3, 5, 16, 24)
    latents = module.encode_clip(Codec(), clip)
    assert latents.shape == (2, 2, 3, 16)
    assert torch.equal(latents[..., 7], clip[0, ::4, ::8, ::8] * 0.9152)
    # The codec's way back is a factor of 0.02, not its inverse.
    torch.testing.assert_close(module.decode_latents(Codec(), latents)[0, 1], clip[0, ::4, ::8, ::8] * 0.02)


@pytest.mark.parametrize(
    ("capability", "width", "formats", "reason"),
    [
        ((9, 0), 48, ("fp8", "int8"), ""),
        ((9, 0), 40, (), "a width of the model is no multiple of 16"),
        ((7, 5), 48, (), "sm_75 has no products of the transformer in 8 or 4 bits"),
    ],
)
def test_which_formats_a_gpu_has_for_a_model(monkeypatch, capability, width, formats, reason):
    monkeypatch.setattr(module, "reason_for_plain", lambda _: "")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
    config = SimpleNamespace(width=width, attention_width=64, mlp_width=64)
    assert module._candidates(SimpleNamespace(device="cuda", config=config)) == (formats, reason)
