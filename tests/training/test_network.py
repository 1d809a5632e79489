"""The trainer's functional network is the package's model, before and after its soft norms are folded."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from seedvr2_engine.models.vae.model import VideoVAE
from training.network import (
    NANO,
    SOFT_NORMS,
    Network,
    Weights,
    fold_soft_norms,
    initial_weights,
    unfold_soft_norms,
)

ROOT = Path(__file__).parents[2]


def perturbed_weights() -> Weights:
    """Initial weights with noise on every tensor, so that no bias or gain is at its neutral value."""
    rng = torch.Generator().manual_seed(3)
    return {name: t + 0.02 * torch.randn(t.shape, generator=rng) for name, t in initial_weights(rng).items()}


@torch.no_grad()
@pytest.mark.parametrize("frames", [1, 5])
def test_folded_weights_make_the_package_model_compute_what_was_trained(frames: int) -> None:
    weights = perturbed_weights()
    vae = VideoVAE(NANO)
    vae.load_state_dict(fold_soft_norms(weights))
    video = torch.rand(2, 3, frames, 24, 32, generator=torch.Generator().manual_seed(4)) * 2 - 1
    network = Network(soft=True)
    mean, log_variance = network.encode(weights, video)
    expected_mean, expected_log_variance = vae.encode_distribution(video)
    torch.testing.assert_close(mean.permute(0, 4, 1, 2, 3), expected_mean, rtol=0, atol=2e-5)
    torch.testing.assert_close(log_variance.permute(0, 4, 1, 2, 3), expected_log_variance, rtol=0, atol=2e-5)
    output = network.decode(weights, mean)
    torch.testing.assert_close(output, vae.decode(expected_mean), rtol=0, atol=5e-5)


@torch.no_grad()
def test_folded_network_equals_soft_network() -> None:
    weights = perturbed_weights()
    video = torch.rand(1, 3, 5, 16, 16, generator=torch.Generator().manual_seed(5)) * 2 - 1
    soft, _ = Network(soft=True).encode(weights, video)
    folded, _ = Network(soft=False).encode(fold_soft_norms(weights), video)
    unfolded, _ = Network(soft=False).encode(weights, video)
    torch.testing.assert_close(folded, soft, rtol=0, atol=2e-5)
    assert (unfolded - soft).abs().max() > 0.1, "the soft norms make no difference, so this test shows nothing"


def test_unfolding_is_the_reverse_of_folding() -> None:
    weights = perturbed_weights()
    folded = fold_soft_norms(weights)
    assert any(not torch.equal(folded[name], weights[name]) for name in weights)
    torch.testing.assert_close(unfold_soft_norms(folded), weights)


@torch.no_grad()
def test_rounding_reaches_what_the_decoder_s_convolutions_read_and_not_the_latents() -> None:
    weights, seen = perturbed_weights(), []
    latent = torch.randn(1, 2, 2, 3, 16, generator=torch.Generator().manual_seed(11))
    plain = Network(soft=True).decode(weights, latent)
    same = Network(soft=True, rounded=lambda x: seen.append(x.shape) or x).decode(weights, latent)
    assert torch.equal(same, plain)
    convolutions = [name for name in weights if name.startswith("decoder.") and weights[name].ndim == 5]
    untouched = [name for name in convolutions if "conv_in" in name or "conv_shortcut" in name]
    assert len(seen) == len(convolutions) - len(untouched)


def test_soft_norms_are_all_norms_of_the_two_streams_and_no_other() -> None:
    norms = {name.rsplit(".", 1)[0] for name in NANO.tensor_shapes() if "norm" in name}
    soft = {name for name in norms if SOFT_NORMS.fullmatch(name)}
    assert len(soft) == 10
    assert all("norm2" not in name for name in soft)
    assert {name for name in soft if name.startswith("decoder")} == {
        "decoder.conv_norm_out",
        *(f"decoder.up_blocks.3.resnets.{i}.norm1" for i in range(3)),
    }


TRITON_CHECK = """
import torch
from training.network import norm_silu
from training.norm_triton import norm_silu_triton
torch.manual_seed(0)
device = "{device}"
for channels, shape in ((32, (1, 3, 50, 45)), (64, (2, 2, 5, 7)), (64, (2, 1, 9, 8))):
    x = (torch.randn(*shape, channels, device=device) * 2 + 1).requires_grad_()
    gain = (torch.rand(channels, device=device) + 0.5).requires_grad_()
    bias = torch.randn(channels, device=device).requires_grad_()
    expected, found = norm_silu(x, gain, bias, 0.3), norm_silu_triton(x, gain, bias, 0.3)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    slope = torch.randn_like(expected)
    for a, b in zip(torch.autograd.grad(expected, (x, gain, bias), slope),
                    torch.autograd.grad(found, (x, gain, bias), slope)):
        torch.testing.assert_close(b, a, rtol=1e-4, atol=1e-4)
"""


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def test_triton_norm_and_its_gradient_equal_the_plain_ones(device: str) -> None:
    """On the CPU in Triton's interpreter, which must be chosen before Triton is imported: hence the process."""
    pytest.importorskip("triton")
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs an NVIDIA GPU")
    environment = os.environ | {"TRITON_INTERPRET": "1" if device == "cpu" else "0", "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", TRITON_CHECK.format(device=device)], check=True, env=environment)
