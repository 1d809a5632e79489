"""The accuracy check finds the layers that an 8-bit format hurts, and keeps as few as needed."""

import copy
import math
from dataclasses import replace

import pytest
import torch

from seedvr2_engine.engine.accuracy import check as check_module
from seedvr2_engine.engine.accuracy.check import _to_keep, check_accuracy
from seedvr2_engine.engine.accuracy.fp16_scaling import PowerOfTwoScaling, measure_scaling
from seedvr2_engine.engine.accuracy.sample_clips import sample_clips
from seedvr2_engine.engine.accuracy.sensitivity import (
    decoder_layers,
)
from seedvr2_engine.engine.vae.backend import reference_backend
from seedvr2_engine.engine.vae.engine import EngineOptions, VAEEngine
from seedvr2_engine.models.vae.model import VideoVAE
from seedvr2_engine.quality.metrics import decibel
from seedvr2_engine.quant import QuantRecipe

from ..conftest import GPU
from .rounded_decoder import VICTIM, RoundedDecoder, run

pytestmark = pytest.mark.usefixtures("calibrated_once")


def test_weights_that_bear_the_format_are_left_alone(nano, clip):
    result, tried = run(nano, clip, limit=30)
    assert result.kept == ()
    assert result.psnr_db == result.before_db > 30
    assert len(tried) == 1


@pytest.mark.parametrize("precision", ["fp8", "mxfp8"])
def test_a_planted_outlier_is_named_and_repaired(outlier, nano, clip, precision):
    healthy, _ = run(nano, clip, limit=0)
    result, tried = run(outlier, clip, limit=healthy.psnr_db - 1, precision=precision)
    assert result.before_db < healthy.psnr_db - 3
    assert result.psnr_db >= healthy.psnr_db - 1
    assert result.kept[0].name == VICTIM
    assert len(result.kept) <= 2
    assert len(tried) <= 3
    assert tried[-1].layer_precision(VICTIM)[0] == "fp16"
    assert VICTIM in result.describe()
    assert "the accuracy check keeps it" in tried[-1].layer_precision(VICTIM)[1]


class NoisyDecoder(RoundedDecoder):
    """An engine that errs beside its layers, by noise of so many dB."""

    noise_db = 100.0

    def decode(self, latent):
        decoded = super().decode(latent)
        noise = torch.randn(decoded.shape, generator=torch.Generator().manual_seed(0))
        return decoded + 2 * 10 ** (-self.noise_db / 20) * noise


def test_a_near_miss_moves_a_few_layers_more_and_not_all(nano, clip):
    limit = 50.0
    quiet, _ = run(nano, clip, limit)

    class Missing(NoisyDecoder):
        # As much as brings the first choice just below the limit; what clipping takes off is counted in.
        noise_db = decibel(0.85 * 10 ** (-limit / 10))

    tried = []

    def build(recipe, previous):
        tried.append(recipe)
        return Missing(nano, recipe)

    result, _ = check_accuracy(nano, QuantRecipe("fp8"), build, min_psnr_db=limit, clip=clip)
    assert result.psnr_db >= limit
    assert len(quiet.kept) < len(result.kept) <= len(quiet.kept) + 4
    assert 3 <= len(tried) <= 4


def test_a_layer_that_costs_little_is_kept_rather_than_a_dear_one():
    errors = {"a": 1.0, "b": 0.9, "c": 0.05}
    assert _to_keep(errors, dict.fromkeys(errors, 1.0), limit=1.12) == ["a"]
    assert _to_keep(errors, {"a": 10.0, "b": 1.0, "c": 1.0}, limit=1.12) == ["b"]


def test_a_layer_that_turns_out_not_to_be_needed_is_left_alone():
    assert _to_keep({"little": 0.01, "much": 1.0}, {"little": 1e-3, "much": 1.0}, limit=0.08) == ["much"]
    assert _to_keep({"little": 0.01, "much": 1.0}, {"little": 1e-3, "much": 1.0}, limit=1.04) == ["little"]


@pytest.mark.parametrize("wrong", [0, 1])
def test_the_worst_of_several_clips_counts(nano, wrong):
    clips = sample_clips(24)[:, :, :1]
    assert clips.shape == (2, 3, 1, 24, 24)
    latent = nano.encode(clips)[wrong]

    class Engine:
        """Wrong on one of the clips."""

        def decode(self, one):
            decoded = nano.decode(one)
            off = 0.2 * (decoded < 0).float() - 0.1
            return decoded + off * torch.equal(one[0], latent)

    result, _ = check_accuracy(nano, QuantRecipe("fp16"), lambda recipe, _: Engine(), min_psnr_db=30, clip=clips)
    assert result.before_db == result.psnr_db < 30


@pytest.mark.parametrize("wrong", [0, 1])
def test_layers_are_judged_on_the_worst_clip(nano, wrong, monkeypatch):
    clips = sample_clips(24)[:, :, :1]
    latent = nano.encode(clips)[wrong]
    judged = []

    class Engine:
        """Wrong on one of the clips, until layers are kept: then half as much."""

        def __init__(self, recipe):
            self.off = 0.1 if recipe == QuantRecipe("fp8") else 0.05

        def decode(self, one):
            return nano.decode(one) * 0 + self.off * torch.equal(one[0], latent)

    def layer_errors(vae, z, names, recipe, **_):
        judged.append(z)
        return dict.fromkeys(names, 1.0)

    monkeypatch.setattr(check_module, "layer_errors", layer_errors)
    monkeypatch.setattr(
        check_module, "_reconstruct", lambda vae, clip: (vae.encode(clip), [torch.zeros(1, 3, 1, 24, 24)] * 2)
    )
    result, _ = check_accuracy(nano, QuantRecipe("fp8"), lambda recipe, _: Engine(recipe), min_psnr_db=60, clip=clips)
    assert torch.equal(judged[0][0], latent)
    # Half of what is in [-1, 1], of the worst clip and not of the mean, which is 3 dB more.
    assert result.before_db == pytest.approx(26.02, abs=0.01)
    assert result.psnr_db == pytest.approx(32.04, abs=0.01)


def without_epsilon(vae):
    """The same weights with so small an epsilon that the scale of a tensor makes no difference to its norm."""
    small = VideoVAE(replace(vae.config, norm_eps=1e-14))
    small.load_state_dict(vae.state_dict())
    return small.requires_grad_(False)


@pytest.fixture
def healthy(nano):
    return without_epsilon(nano)


@pytest.fixture
def loud(healthy):
    """Weights whose last level overflows FP16: what reads it is a norm, which does not mind.

    By a power of two, so that everything is rounded as in the healthy weights. Rounding a single picture is a matter
    of luck: where the latent moves by a millionth, one that falls to the other side costs or gains some decibels.
    """
    vae = copy.deepcopy(healthy)
    for name, tensor in vae.decoder.state_dict().items():
        if name.startswith(("up_blocks.2.upsamplers.0.conv.", "up_blocks.3.resnets")) and "conv1" not in name:
            tensor *= 2.0**27 if "norm" not in name else 1.0
    return vae


@pytest.mark.parametrize("precision", ["fp8", "int8", "fp16"])
def test_weights_that_overflow_fp16_are_checked_like_others(healthy, loud, clip, precision):
    """Within a decibel of the same weights without the factor; in BF16 FP16's figure would be 17 dB lower."""
    scaling = measure_scaling(loud, GPU, clip)

    def engine_with(scaling, vae=loud):
        options = EngineOptions(scaling=scaling)
        return VAEEngine(vae, QuantRecipe(precision), GPU, reference_backend(), device="cpu", options=options)

    wanted, _ = check_accuracy(
        healthy, QuantRecipe(precision), lambda *_: engine_with(PowerOfTwoScaling(), healthy), min_psnr_db=0, clip=clip
    )
    limit = wanted.psnr_db - 1
    latent = loud.encode(clip)
    assert loud.decode(latent).isfinite().all()
    assert not engine_with(PowerOfTwoScaling()).decode(latent).isfinite().all()
    result, engine = check_accuracy(
        loud, QuantRecipe(precision), lambda _recipe, _engine: engine_with(scaling), min_psnr_db=limit, clip=clip
    )
    assert engine.decode(latent).isfinite().all()
    assert result.kept == ()
    assert result.psnr_db >= limit


def test_a_plain_model_that_overflows_is_compared_in_fp32(loud, clip):
    half = copy.deepcopy(loud).half()
    assert not half.decode(half.encode(clip)).isfinite().all()
    result, _ = check_accuracy(half, QuantRecipe("bf16"), lambda _recipe, _engine: loud, min_psnr_db=40, clip=clip)
    assert result.psnr_db > 40


def test_an_impossible_limit_keeps_everything_and_says_so(nano, clip):
    result, tried = run(nano, clip, limit=200)
    assert len(result.kept) == len(decoder_layers(nano.decoder))
    assert all(tried[-1].layer_precision(layer.name)[0] == "fp16" for layer in result.kept)
    assert len({layer.name for layer in result.kept}) == len(result.kept)


def test_a_picture_of_nan_never_passes(nano, clip):
    class Broken(RoundedDecoder):
        def decode(self, latent):
            return super().decode(latent) * (math.nan if not self.recipe.kept_in_16_bits.get(VICTIM) else 1)

    recipe = QuantRecipe("fp8")
    result, engine = check_accuracy(nano, recipe, lambda recipe, _: Broken(nano, recipe), min_psnr_db=30, clip=clip)
    assert result.before_db == 0
    assert result.psnr_db > 30
    assert engine.recipe.kept_in_16_bits.get(VICTIM)
