"""LATENT between this pack's nodes and ComfyUI's: scaling, clips, stills, and what other nodes make of them."""

import pytest
import torch

from seedvr2_engine.errors import InvalidArgumentError
from seedvr2_engine.loading import load_vae

from ...conftest import GOLDEN

TINY = GOLDEN / "vae_tiny.safetensors"


@pytest.fixture(scope="module")
def plain():
    return load_vae(TINY)


@pytest.fixture
def vae(nodes, comfyui):
    (comfyui.root / "models" / "vae" / "latents.safetensors").write_bytes(TINY.read_bytes())
    return nodes["SeedVR2LoadVAEModel"].execute(model="latents.safetensors", device="cpu").args[0]


def picture(*size):
    return torch.rand(*size, generator=torch.manual_seed(4))


def encode(nodes, vae, image, **inputs):
    return nodes["SeedVR2VAEEncode"].execute(image=image, vae=vae, **inputs).args[0]


def decode(nodes, vae, samples, **inputs):
    return nodes["SeedVR2VAEDecode"].execute(samples=samples, vae=vae, **inputs).args[0]


def test_latents_are_the_native_ones(nodes, vae, plain):
    image = picture(5, 16, 32, 3)
    native = plain.encode((image * 2 - 1).movedim(-1, 0)[None]) * 0.9152
    latent = encode(nodes, vae, image)
    torch.testing.assert_close(latent["samples"], native, atol=1e-5, rtol=0)
    # A LATENT of ComfyUI's VAE Encode, or of Load Latent, says nothing.
    shown = decode(nodes, vae, {"samples": native})
    torch.testing.assert_close(shown, decode(nodes, vae, latent), atol=1e-5, rtol=0)
    expected = plain.decode(native / 0.9152)[0].movedim(0, -1) / 2 + 0.5
    torch.testing.assert_close(shown, expected.clamp(0, 1), atol=1e-5, rtol=0)


def test_older_latents_keep_their_meaning(nodes, vae):
    latent = encode(nodes, vae, picture(5, 16, 16, 3))
    expected = decode(nodes, vae, latent)
    unscaled = latent["samples"] / 0.9152
    old = {"samples": unscaled, "seedvr2_source": (5, 16, 16)}
    torch.testing.assert_close(decode(nodes, vae, old), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(
        decode(nodes, vae, {"samples": unscaled}, scaling="unscaled"), expected, atol=1e-5, rtol=0
    )
    assert not torch.allclose(decode(nodes, vae, {"samples": unscaled}), expected, atol=1e-3)
    forced = {**latent, "seedvr2_scaling": 0.5}
    torch.testing.assert_close(decode(nodes, vae, forced, scaling="native"), expected, atol=1e-5, rtol=0)
    for nonsense in (0.0, float("nan"), "a", None):
        assert torch.equal(decode(nodes, vae, {**latent, "seedvr2_scaling": nonsense}), expected)
    with pytest.raises(InvalidArgumentError, match="scaling: expected one of auto, native, unscaled"):
        decode(nodes, vae, latent, scaling="other")


def test_sizes_are_what_the_native_transformer_takes(nodes, vae):
    latent = encode(nodes, vae, picture(3, 20, 40, 3))
    assert latent["samples"].shape == (1, 16, 2, 4, 6)
    assert decode(nodes, vae, latent).shape == (3, 20, 40, 3)


def test_clips_and_stills(nodes, vae):
    clips = picture(2, 5, 16, 16, 4)
    latent = encode(nodes, vae, clips)
    assert latent["samples"].shape == (2, 16, 2, 2, 2)
    shown = decode(nodes, vae, latent)
    assert shown.shape == (10, 16, 16, 3)
    for index in range(2):
        alone = encode(nodes, vae, clips[index])
        assert torch.equal(alone["samples"][0], latent["samples"][index])
        assert torch.equal(decode(nodes, vae, alone), shown[5 * index : 5 * index + 5])
    stills = encode(nodes, vae, clips[0], stills=True)
    assert stills["samples"].shape == (5, 16, 1, 2, 2)
    assert torch.equal(stills["samples"][3], encode(nodes, vae, clips[0, 3:4])["samples"][0])
    assert torch.equal(decode(nodes, vae, {"samples": stills["samples"][:, :, 0]}), decode(nodes, vae, stills))


def test_what_comfyuis_nodes_make_of_latents(nodes, vae):
    latent = encode(nodes, vae, picture(5, 20, 16, 3))
    shown = decode(nodes, vae, latent)
    repeated = decode(nodes, vae, {**latent, "samples": latent["samples"].repeat(3, 1, 1, 1, 1)})
    assert torch.equal(repeated, shown.repeat(3, 1, 1, 1))
    # A file keeps the numbers and nothing beside them.
    loaded = decode(nodes, vae, {"samples": latent["samples"].clone()})
    assert torch.equal(loaded[:, :20], shown)
    larger = torch.nn.functional.interpolate(latent["samples"][0].movedim(1, 0), scale_factor=2).movedim(0, 1)[None]
    assert decode(nodes, vae, {**latent, "samples": larger}).shape == (5, 64, 32, 3)
    # A chunk of a longer clip has the whole clip's remarks.
    assert decode(nodes, vae, {**latent, "samples": latent["samples"][:, :, :1]}).shape == (1, 32, 16, 3)
