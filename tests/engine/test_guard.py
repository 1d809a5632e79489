"""The guard finds the layers that an 8-bit format hurts, keeps as few of them as needed, and remembers its choice."""

import contextlib
import json
import math

import pytest
import torch

from seedvr2_engine.engine import guard as guard_module
from seedvr2_engine.engine.guard import cache_path, guard, probe_clip, weights_digest
from seedvr2_engine.engine.sensitivity import decoder_layers, layer_errors, mean_squared_error, picture, rounded
from seedvr2_engine.loading import load_vae
from seedvr2_engine.quant import QuantRecipe

VICTIM = "decoder.up_blocks.2.resnets.1.conv1"


@pytest.fixture(scope="module")
def nano():
    return load_vae("nano")


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
    return probe_clip(24)[:, :, :1]


class RoundedDecoder:
    """Stands for an engine: the plain model whose layers are rounded as the recipe says."""

    def __init__(self, vae, recipe):
        self.vae, self.recipe = vae, recipe

    def decode(self, latent):
        layers = decoder_layers(self.vae)
        low = {n: layer for n, layer in layers.items() if self.recipe.layer_precision(n)[0] == self.recipe.precision}
        with rounded(low, self.recipe) if self.recipe.is_quantized else contextlib.nullcontext():
            return self.vae.decode(latent)


def run(vae, clip, limit, precision="fp8", cache_file=None):
    tried = []

    def build(recipe, previous):
        assert (previous is None) == (not tried)
        tried.append(recipe)
        return RoundedDecoder(vae, recipe)

    result, engine = guard(vae, QuantRecipe(precision), build, min_psnr_db=limit, clip=clip, cache_file=cache_file)
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
    assert "the guard keeps it" in tried[-1].layer_precision(VICTIM)[1]


def test_errors_of_layers_add_up(nano, clip):
    recipe = QuantRecipe("fp8")
    latent = nano.encode(clip)
    layers = decoder_layers(nano)
    exact = picture(nano.decode(latent))
    with rounded(layers, recipe):
        together = mean_squared_error(picture(nano.decode(latent)), exact).item()
    alone = sum(layer_errors(nano, latent, layers, recipe).values())
    assert abs(10 * math.log10(together / alone)) < 1.5


def test_rounding_leaves_the_model_as_it_was(nano, clip):
    latent = nano.encode(clip)
    before, digest = nano.decode(latent), weights_digest(nano)
    with contextlib.suppress(KeyError), rounded(decoder_layers(nano), QuantRecipe("int8")):
        assert not torch.equal(nano.decode(latent), before)
        raise KeyError
    assert torch.equal(nano.decode(latent), before)
    assert weights_digest(nano) == digest


def test_every_quantised_convolution_of_the_decoder_has_a_name(nano):
    names = list(decoder_layers(nano))
    assert len(names) == 2 * (2 + 4 * 3) + 3 + 1
    kernels = {name.removesuffix(".weight") for name, t in nano.state_dict().items() if t.ndim == 5}
    covered = {k for k in kernels if any(k == n or k.startswith(n + ".") for n in names)}
    assert "decoder.mid_block.attentions.0" in names
    missing = {k for k in kernels - covered if k.startswith("decoder") and "shortcut" not in k}
    assert missing == {"decoder.conv_in", "decoder.conv_out"}


def test_an_impossible_limit_keeps_everything_and_says_so(nano, clip):
    result, tried = run(nano, clip, limit=200)
    assert len(result.kept) == len(decoder_layers(nano))
    assert all(tried[-1].layer_precision(layer.name)[0] == "fp16" for layer in result.kept)
    assert len({layer.name for layer in result.kept}) == len(result.kept)


def test_a_picture_of_nan_never_passes(nano, clip):
    class Broken(RoundedDecoder):
        def decode(self, latent):
            return super().decode(latent) * (math.nan if not self.recipe.kept_high.get(VICTIM) else 1)

    result, engine = guard(nano, QuantRecipe("fp8"), lambda recipe, _: Broken(nano, recipe), min_psnr_db=30, clip=clip)
    assert result.before_db == 0
    assert result.psnr_db > 30
    assert engine.recipe.kept_high.get(VICTIM)


def test_the_choice_is_kept_for_the_next_run(outlier, clip, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    file = cache_path(outlier, QuantRecipe("fp8"), "sm_90")
    assert tmp_path in file.parents
    first, _ = run(outlier, clip, limit=40, cache_file=file)
    monkeypatch.setattr(guard_module, "layer_errors", None)
    monkeypatch.setattr(guard_module, "probe_clip", None)
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
        cache_path(nano, recipe.keeping_high(VICTIM, "a test"), "sm_90"),
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
