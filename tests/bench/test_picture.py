"""The picture benchmark: its emulation is the model where nothing is rounded, and the engine where everything is."""

import math
import statistics

import pytest
import torch

from benchmarks import contents as contents_module
from benchmarks.contents import FRAMES, contents, scene
from benchmarks.full_width import train
from benchmarks.picture_recipes import CARD, RECIPES, cheapest, jobs, keeping
from benchmarks.rounding import SCHEMES, RoundedDecoder, Rounding, round_integers
from seedvr2_engine.engine import reference_backend
from seedvr2_engine.engine.accuracy.sensitivity import decoder_layers, mean_squared_error, picture
from seedvr2_engine.engine.vae.engine import VAEEngine
from seedvr2_engine.loading import load_vae
from seedvr2_engine.models.vae.config import VAEConfig


@pytest.fixture(scope="module")
def vae():
    return load_vae("nano")


@pytest.mark.parametrize("frames", [1, 5, 9])
def test_without_rounding_the_emulation_is_the_model(vae, frames):
    latent = torch.randn(1, 16, (frames - 1) // 4 + 1, 3, 4, generator=torch.Generator().manual_seed(0))
    expected = vae.decode(latent)
    torch.testing.assert_close(RoundedDecoder(vae).decode(latent), expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("title", ["FP8", "INT8, slack of a quarter"])
def test_with_rounding_it_is_the_engine(vae, title):
    rounding = SCHEMES[title]
    decoder = RoundedDecoder(vae)
    decoder.use(rounding)
    engine = VAEEngine(
        vae, keeping(rounding.format, ("decoder.mid_block.attentions.0",)), CARD, reference_backend(), device="cpu"
    )
    apart_db = []
    # The last bit of a largest value decides between two steps of integers, one twice the other: one clip is luck.
    for seed in (1, 2, 3):
        latent = vae.encode(scene(40, seed=seed))
        exact = picture(vae.decode(latent))
        emulated = mean_squared_error(picture(decoder.decode(latent)), exact).item()
        actual = mean_squared_error(picture(engine.decode(latent)), exact).item()
        apart_db.append(abs(10 * math.log10(emulated / actual)))
    assert statistics.median(apart_db) < 1.5


def test_integers_cover_the_range_that_was_asked_for():
    x = torch.linspace(-0.25, 1, 1001).view(1, 1, 1, 1, -1)
    steps = {
        name: round_integers(x, rounding).unique().diff().max().item()
        for name, rounding in {
            "power": Rounding("int8"),
            "float": Rounding("int8", scale="float"),
            "zero point": Rounding("int8", scale="float", zero_point=True),
        }.items()
    }
    assert steps["power"] == 2**-6
    assert steps["float"] == pytest.approx(1 / 127, rel=1e-4)
    assert steps["zero point"] == pytest.approx(1.25 / 254, rel=1e-4)
    clipped = round_integers(x, Rounding("int8", scale="float", clip=1.0))
    assert clipped.max() == pytest.approx(x.square().mean().sqrt().item(), rel=0.01)


def test_every_kind_of_content_is_there_and_moves(monkeypatch):
    # Canvases of the benchmark's size take seconds to paint.
    monkeypatch.setattr(contents_module, "BANK", (1, 128))
    kinds = contents(48, [])
    assert set(kinds) == {"text", "gradients", "dark scenes", "motion"}
    for clips in kinds.values():
        for clip in clips:
            assert clip.shape == (1, 3, FRAMES, 48, 48)
            assert -1 <= clip.min() < clip.max() <= 1
            assert not torch.equal(clip[:, :, 0], clip[:, :, -1])


def test_recipes_name_layers_that_are_there(vae):
    layers = decoder_layers(vae.decoder)
    for kept in RECIPES.values():
        assert all(any(name == layer or layer.startswith(name + ".") for layer in layers) for name in kept)
    assert cheapest({"a": 1e-4, "b": 2e-4}, {"a": 1.0, "b": 10.0}, goal_db=36) == ["a"]
    assert len(set(jobs(quick=True))) < len(set(jobs(quick=False)))


def test_training_at_other_widths_gives_a_model(vae):
    said = []
    config = VAEConfig(block_out_channels=(32, 64, 64, 64))
    trained = train(0.01, torch.device("cpu"), said.append, config)
    assert trained.config == config
    assert trained.decode(torch.zeros(1, 16, 2, 2, 2)).isfinite().all()
    assert "steps" in said[-1]
