"""The accuracy check finds the layers that an 8-bit format hurts, keeps as few as needed, and remembers its choice."""

import contextlib
import copy
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from seedvr2_engine.engine.accuracy import check as check_module
from seedvr2_engine.engine.accuracy import sensitivity
from seedvr2_engine.engine.accuracy.cache import cache_path, check_once, weights_digest
from seedvr2_engine.engine.accuracy.calibrate import activation_maxima
from seedvr2_engine.engine.accuracy.check import _to_keep, check_accuracy
from seedvr2_engine.engine.accuracy.fp16_scaling import PowerOfTwoScaling, measure_scaling
from seedvr2_engine.engine.accuracy.sample_clips import sample_clips, sample_page, sample_scene
from seedvr2_engine.engine.accuracy.sensitivity import (
    PAIRED_NOISE,
    decoder_layers,
    decoder_shares,
    layer_errors,
    mean_squared_error,
    paired_layers,
    picture,
    rounded,
    smoothing_by_layer,
)
from seedvr2_engine.engine.vae import engine as engine_module
from seedvr2_engine.engine.vae.backend import reference_backend
from seedvr2_engine.engine.vae.engine import EngineOptions, VAEEngine
from seedvr2_engine.loading import load_vae
from seedvr2_engine.models.vae.config import VAEConfig
from seedvr2_engine.models.vae.model import VideoVAE
from seedvr2_engine.quality.metrics import decibel
from seedvr2_engine.quant import QuantRecipe

from ..conftest import GPU, HOPPER

VICTIM = "decoder.up_blocks.2.resnets.1.conv1"


@pytest.fixture(scope="module")
def nano():
    return load_vae("nano")


@pytest.fixture(autouse=True)
def calibrated_once(monkeypatch, nano_maxima):
    """Calibrating takes longer than all the rest."""
    monkeypatch.setattr(sensitivity, "activation_maxima", lambda _vae: nano_maxima)
    monkeypatch.setattr(engine_module, "calibrate_on", lambda _vae, _device: nano_maxima)


@pytest.fixture(scope="module")
def nano_maxima(nano):
    return activation_maxima(nano)


@pytest.fixture
def outlier():
    """One norm channel far above the others: a scale that suits it leaves nothing of them."""
    vae = load_vae("nano")
    resnet = vae.decoder.up_blocks[2].resnets[1]
    resnet.norm1.weight[3] *= 3e6
    resnet.norm1.bias[3] *= 3e6
    resnet.conv1.weight[:, 3] /= 3e6
    return vae


@pytest.fixture(scope="module")
def clip():
    return sample_scene(24)[:, :, :1]


class RoundedDecoder:
    """Stands for an engine: the plain model whose layers are rounded as the recipe says."""

    def __init__(self, vae, recipe):
        self.vae, self.recipe = vae, recipe

    def decode(self, latent):
        layers = decoder_layers(self.vae.decoder)
        low = {n: layer for n, layer in layers.items() if self.recipe.layer_precision(n)[0] == self.recipe.precision}
        with rounded(low, self.recipe) if self.recipe.is_quantized else contextlib.nullcontext():
            return self.vae.decode(latent)


def run(vae, clip, limit, precision="fp8", cache_file=None):
    tried = []

    def build(recipe, previous):
        assert (previous is None) == (not tried)
        tried.append(recipe)
        return RoundedDecoder(vae, recipe)

    def check():
        return check_accuracy(vae, recipe, build, min_psnr_db=limit, clip=clip)

    recipe = QuantRecipe(precision)
    result, engine = check_once(cache_file, limit, recipe, build, check)
    assert engine.recipe == tried[-1]
    return result, tried


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


@pytest.mark.parametrize("precision", ["fp8", "int8"])
def test_errors_of_layers_add_up(nano, nano_maxima, clip, precision):
    recipe = QuantRecipe(precision)
    latent = nano.encode(clip)
    layers = decoder_layers(nano.decoder)
    exact = picture(nano.decode(latent))
    with rounded(layers, recipe, smoothing_by_layer(nano.decoder, nano_maxima) if precision == "int8" else None):
        together = mean_squared_error(picture(nano.decode(latent)), exact).item()
    alone = sum(layer_errors(nano, latent, layers, recipe).values())
    assert abs(10 * math.log10(together / alone)) < 1.5


def test_a_layers_error_is_that_of_a_whole_decode(nano):
    """Only the blocks from the layer on are computed again."""
    recipe, latent = QuantRecipe("fp8"), nano.encode(sample_scene(24))
    exact = picture(nano.decode(latent))
    layers = decoder_layers(nano.decoder)
    names = [name for name in layers if name.endswith((".conv2", "attentions.0", "upsamplers.0"))]
    found = layer_errors(nano, latent, names, recipe)
    for name in names:
        with rounded({name: layers[name]}, recipe):
            expected = mean_squared_error(picture(nano.decode(latent)), exact).item()
        assert found[name] == pytest.approx(expected, rel=1e-3), name


@pytest.mark.parametrize("precision", ["fp8", "int8"])
@pytest.mark.parametrize("name", ["decoder.up_blocks.3.resnets.0.conv2", "decoder.up_blocks.2.upsamplers.0"])
def test_a_layers_error_is_what_it_costs_the_engine(nano, exact, precision, name):
    """In FP32 but for the one layer, as in `test_pairs_cost_the_engine_what_is_counted`."""
    latent = nano.encode(sample_scene(40))
    recipe = QuantRecipe(precision)
    for other in decoder_layers(nano.decoder):
        if other != name:
            recipe = recipe.keeping_in_16_bits(other, "the test wants one layer")
    engine = VAEEngine(nano, recipe, GPU, reference_backend(), device="cpu")
    actual = mean_squared_error(picture(engine.decode(latent)), picture(nano.decode(latent))).item()
    predicted = layer_errors(nano, latent, [name], recipe)[name]
    assert abs(10 * math.log10(predicted / actual)) < 1.5


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


def test_pairs_are_counted_in(nano):
    recipe = QuantRecipe("fp8")
    paired = paired_layers(nano.config, recipe, HOPPER)
    assert "decoder.up_blocks.3.resnets.2.conv2" in paired
    assert not any("upsamplers" in name or "encoder" in name for name in paired)
    assert not paired_layers(nano.config, recipe, GPU)
    assert not paired_layers(nano.config, QuantRecipe("int8"), HOPPER)
    latent = nano.encode(sample_scene(24))
    name = "decoder.up_blocks.3.resnets.2.conv2"
    alone = layer_errors(nano, latent, [name], recipe)[name]
    assert layer_errors(nano, latent, [name], recipe, paired=paired)[name] == pytest.approx(5 / 3 * alone)


@pytest.mark.parametrize("seen", ["a moving scene", "independent frames"])
def test_pairs_cost_the_engine_what_is_counted(nano, exact, seen):
    """In FP32 but for the one layer.

    With FP16 around it what is measured hangs on the last bit of the latent: the pixels of a flat picture are rounded
    alike, so their errors do not average out.
    """
    noise = np.random.Generator(np.random.PCG64(0)).random((1, 3, 5, 40, 40), dtype=np.float32) * 2 - 1
    paired, counted = errors_of_a_paired_layer(
        nano, sample_scene(40) if seen == "a moving scene" else torch.from_numpy(noise)
    )
    # Uncounted, pairs would be 1.1 dB or more below; the shipped weights cost less on noise than is counted.
    assert -1 < 10 * math.log10(counted / paired) < 1.5


def test_pairs_cost_less_than_is_counted_where_frames_are_alike(nano, exact):
    paired, counted = errors_of_a_paired_layer(nano, sample_page(40))
    assert 1 < 10 * math.log10(counted / paired) < 10 * math.log10(PAIRED_NOISE) + 1


def errors_of_a_paired_layer(vae, clip):
    """What one layer in FP8 costs an engine that computes it in pairs, and what is counted for it."""
    latent = vae.encode(clip)
    name = "decoder.up_blocks.3.resnets.2.conv2"
    recipe = QuantRecipe("fp8")
    for other in decoder_layers(vae.decoder):
        if other != name:
            recipe = recipe.keeping_in_16_bits(other, "the test wants one layer")
    engine = VAEEngine(vae, recipe, HOPPER, reference_backend(), device="cpu")
    actual = mean_squared_error(picture(engine.decode(latent)), picture(vae.decode(latent))).item()
    return actual, layer_errors(vae, latent, [name], recipe, paired={name})[name]


def test_shares_count_composed_upsamplers_and_both_frame_rates():
    shares = decoder_shares(VAEConfig(), GPU)
    assert sum(shares.values()) == pytest.approx(1)
    assert set(decoder_layers(load_vae("nano").decoder)) < set(shares)
    taps, wide, narrow = 27, 512 * 512, 256 * 256
    # 8 of the upsampler's taps on the enlarged grid of two frames, against 27 on the latents' own.
    first = shares["decoder.up_blocks.0.upsamplers.0"] / shares["decoder.up_blocks.0.resnets.0.conv1"]
    assert first == pytest.approx(4 * 2 * 8 / taps)
    last = shares["decoder.up_blocks.2.upsamplers.0"] / shares["decoder.up_blocks.2.resnets.1.conv1"]
    assert last == pytest.approx(4 * 12 / taps)
    assert shares["decoder.up_blocks.2.resnets.1.conv1"] / shares[
        "decoder.up_blocks.1.resnets.0.conv1"
    ] == pytest.approx(4 * 2 * narrow / wide)


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


def test_rounding_leaves_the_model_as_it_was(nano, clip):
    latent = nano.encode(clip)
    before, digest = nano.decode(latent), weights_digest(nano)
    with contextlib.suppress(KeyError), rounded(decoder_layers(nano.decoder), QuantRecipe("int8")):
        assert not torch.equal(nano.decode(latent), before)
        raise KeyError
    assert torch.equal(nano.decode(latent), before)
    assert weights_digest(nano) == digest


def test_every_quantised_convolution_of_the_decoder_has_a_name(nano):
    names = list(decoder_layers(nano.decoder))
    assert len(names) == 2 * (2 + 4 * 3) + 3 + 1
    kernels = {name.removesuffix(".weight") for name, t in nano.state_dict().items() if t.ndim == 5}
    covered = {k for k in kernels if any(k == n or k.startswith(n + ".") for n in names)}
    assert "decoder.mid_block.attentions.0" in names
    missing = {k for k in kernels - covered if k.startswith("decoder") and "shortcut" not in k}
    assert missing == {"decoder.conv_in", "decoder.conv_out"}


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


def test_the_choice_is_kept_for_the_next_run(outlier, clip, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    file = cache_path(outlier, QuantRecipe("fp8"), "sm_90")
    assert tmp_path in file.parents
    first, _ = run(outlier, clip, limit=40, cache_file=file)
    monkeypatch.setattr(check_module, "layer_errors", None)
    monkeypatch.setattr(check_module, "sample_clips", None)
    second, tried = run(outlier, None, limit=40, cache_file=file)
    assert second.from_cache
    assert (second.kept, second.psnr_db) == (first.kept, first.psnr_db)
    assert [r.layer_precision(VICTIM)[0] for r in tried] == ["fp16"]
    assert "earlier" in second.describe()
    assert [path.suffix for path in file.parent.iterdir()] == [".json"]


def test_other_weights_recipes_and_architectures_have_their_own_choice(nano, outlier):
    recipe = QuantRecipe("fp8")
    paths = {
        cache_path(nano, recipe, "sm_90"),
        cache_path(outlier, recipe, "sm_90"),
        cache_path(nano, recipe, "sm_89"),
        cache_path(nano, QuantRecipe("int8"), "sm_90"),
        cache_path(nano, recipe.keeping_in_16_bits(VICTIM, "a test"), "sm_90"),
    }
    assert len(paths) == 5
    assert cache_path(load_vae("nano"), recipe, "sm_90") in paths


@pytest.mark.parametrize("content", ["", "[]", '{"kept": [{}]}', '{"kept": 5}', "\x00"])
def test_a_damaged_or_unwritable_cache_is_measured_again(nano, clip, tmp_path, content):
    file = tmp_path / "choice.json"
    file.write_text(content)
    result, _ = run(nano, clip, limit=30, cache_file=file)
    assert not result.from_cache
    assert json.loads(file.read_text())["psnr_db"] == result.psnr_db
    blocked = tmp_path / "choice.json" / "below a file.json"
    assert run(nano, clip, limit=30, cache_file=blocked)[0].psnr_db == result.psnr_db


def test_another_limit_is_measured_again(nano, clip, tmp_path):
    file = tmp_path / "choice.json"
    run(nano, clip, limit=30, cache_file=file)
    assert not run(nano, clip, limit=31, cache_file=file)[0].from_cache


def test_without_a_home_nothing_is_kept(nano, monkeypatch):
    def unknown(*_):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", unknown)
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    assert cache_path(nano, QuantRecipe("fp8"), "sm_90") is None
