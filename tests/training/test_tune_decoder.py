"""Going on with the decoder alone: where it begins, what it changes, and where its batches come from."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from training.network import NANO, Network
from training.scenes import ClipShape
from training.state import load_state
from training.train_vae import Workload
from training.tune_decoder import DIT, VAE, Settings, Tuner, train

ROOT = Path(__file__).parents[2]
TINY = Workload(
    shapes=((1.0, ClipShape(1, 5, 32, 32)),),
    canvases=2,
    canvas_px=64,
    renew_every=2,
    held_out=ClipShape(1, 1, 32, 32),
)


def settings(out: Path, restored: float) -> Settings:
    files = {"vae": ROOT / VAE, "dit": ROOT / DIT}
    return Settings(out, seconds=0.2, device="cpu", work=TINY, scale=1, restored=restored, **files)


@torch.no_grad()
def test_it_begins_with_the_model_that_ships(tmp_path: Path) -> None:
    tuner = Tuner(settings(tmp_path, 0))
    video = tuner.bank.film(ClipShape(1, 5, 32, 32))
    weights = {name: tensor.float() for name, tensor in load_file(ROOT / VAE).items()}
    network = Network(soft=False)
    expected = network.decode(weights, network.encode(weights, video)[0])
    found = tuner.soft.decode(tuner.as_computed(tuner.weights.views(), shipped=False), tuner.latents(video))
    # The posterior's noise and the order of the norm's sums are all that differs.
    assert float((found - expected).square().mean().sqrt()) < 0.02


@pytest.mark.parametrize("fraction", [0.0, 0.7, 0.9])
def test_a_step_changes_the_decoder_in_every_phase(tmp_path: Path, fraction: float) -> None:
    tuner = Tuner(settings(tmp_path, 0))
    tuner.progress.step = 1
    before = tuner.weights.vector.clone()
    terms = tuner.step(fraction)
    assert all(name.startswith("decoder.") for name in tuner.weights.shapes)
    assert not torch.equal(tuner.weights.vector, before)
    assert all(torch.isfinite(term) for term in terms.values())


@torch.no_grad()
def test_restored_latents_are_the_transformer_s(tmp_path: Path) -> None:
    plain, restored = Tuner(settings(tmp_path, 0)), Tuner(settings(tmp_path, 1))
    video = plain.bank.film(ClipShape(1, 5, 32, 32))
    exact, through = plain.latents(video), restored.latents(video)
    assert through.shape == exact.shape == (1, 2, 4, 4, NANO.latent_channels)
    difference = float((through - exact).square().mean().sqrt() / exact.std())
    assert 0.1 < difference < 1.2, "near what the encoder gives, and not the same"


def test_a_run_saves_its_state_and_curve(tmp_path: Path) -> None:
    train(settings(tmp_path, 0))
    assert (tmp_path / "learning_curve.csv").read_text().startswith("step,seconds,pixel")
    assert load_state(tmp_path, {}).step >= 5
