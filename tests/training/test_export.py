"""What the export writes is the model that was trained, with latents of unit variance."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from seedvr2_engine import load_vae
from training import export_vae
from training.network import NANO, Network, fold_soft_norms, initial_weights
from training.optimiser import FlatWeights
from training.scenes import ClipShape
from training.state import Progress, save_state


@pytest.fixture(autouse=True)
def quick_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_vae, "MEASURED_ON", ((2, ClipShape(1, 1, 64, 64)),))
    monkeypatch.setattr(export_vae, "CANVASES", 1)
    monkeypatch.setattr(export_vae, "CANVAS_PX", 64)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    flat = FlatWeights(initial_weights(torch.Generator().manual_seed(6)))
    save_state(tmp_path / "state", {"average": flat.vector}, Progress())
    return tmp_path / "state"


def test_both_files_load_and_reconstruct_what_was_trained(state: Path, tmp_path: Path) -> None:
    safetensors, gguf = tmp_path / "out" / "nano.safetensors", tmp_path / "out" / "nano.gguf"
    export_vae.export(state, safetensors, gguf)
    weights = export_vae.averaged_weights(state)
    video = torch.rand(1, 3, 5, 32, 32, generator=torch.Generator().manual_seed(7)) * 2 - 1
    network = Network(soft=True)
    expected = network.decode(weights, network.encode(weights, video)[0])
    for path, tolerance in ((safetensors, 0.02), (gguf, 0.2)):
        vae = load_vae(path)
        assert vae.config == NANO
        error = (vae.decode(vae.encode(video)) - expected).square().mean().sqrt() / expected.std()
        assert float(error) < tolerance, path.name
    assert gguf.stat().st_size < 6_000_000


@torch.no_grad()
def test_scaling_latents_changes_their_size_and_nothing_else() -> None:
    weights = fold_soft_norms(initial_weights(torch.Generator().manual_seed(8)))
    factors = torch.linspace(0.5, 2.0, 16)
    scaled = export_vae.scale_latents(weights, factors)
    video = torch.rand(1, 3, 1, 32, 32, generator=torch.Generator().manual_seed(9)) * 2 - 1
    network = Network(soft=False)
    mean, log_variance = network.encode(weights, video)
    new_mean, new_log_variance = network.encode(scaled, video)
    torch.testing.assert_close(new_mean, mean * factors, rtol=0, atol=1e-5)
    torch.testing.assert_close(new_log_variance, log_variance + 2 * factors.log(), rtol=0, atol=1e-5)
    torch.testing.assert_close(network.decode(scaled, new_mean), network.decode(weights, mean), rtol=0, atol=1e-4)


@torch.no_grad()
def test_spread_counts_the_posterior_noise() -> None:
    weights = initial_weights(torch.Generator().manual_seed(10))
    quiet = export_vae.latent_spread(weights)
    noisy = dict(weights)
    noisy["encoder.conv_out.bias"] = weights["encoder.conv_out.bias"].clone()
    noisy["encoder.conv_out.bias"][16:] += 10
    assert torch.all(export_vae.latent_spread(noisy) > 2 * quiet)


def test_a_decoder_goes_into_the_file_and_the_encoder_stays(tmp_path: Path) -> None:
    shipped = tmp_path / "shipped.safetensors"
    weights = fold_soft_norms(initial_weights(torch.Generator().manual_seed(12)))
    save_file({name: tensor.half() for name, tensor in weights.items()}, shipped)
    trained = initial_weights(torch.Generator().manual_seed(13))
    flat = FlatWeights({name: tensor for name, tensor in trained.items() if name.startswith("decoder.")})
    save_state(tmp_path / "state", {"average": flat.vector}, Progress())
    export_vae.export_decoder(tmp_path / "state", shipped, tmp_path / "new.safetensors", tmp_path / "new.gguf")
    before, after = load_file(shipped), load_file(tmp_path / "new.safetensors")
    assert before.keys() == after.keys()
    for name, tensor in after.items():
        expected = fold_soft_norms(trained)[name].half() if name.startswith("decoder.") else before[name]
        torch.testing.assert_close(tensor, expected, rtol=2e-3, atol=1e-6)
    assert load_vae(tmp_path / "new.gguf").config == NANO
