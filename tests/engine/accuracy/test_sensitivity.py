"""What rounding a layer costs the picture: alone, in pairs of frames, and for the time that it takes."""

import contextlib
import math

import numpy as np
import pytest
import torch

from seedvr2_engine.engine.accuracy.cache import weights_digest
from seedvr2_engine.engine.accuracy.sample_clips import sample_page, sample_scene
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
from seedvr2_engine.engine.vae.backend import reference_backend
from seedvr2_engine.engine.vae.engine import VAEEngine
from seedvr2_engine.loading import load_vae
from seedvr2_engine.models.vae.config import VAEConfig
from seedvr2_engine.quant import QuantRecipe

from ..conftest import GPU, HOPPER

pytestmark = pytest.mark.usefixtures("calibrated_once")


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
