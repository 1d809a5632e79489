"""What storing the weights in each GGUF type costs the picture, on the small random model and on the shipped one."""

import math

import pytest
import torch

from seedvr2_engine.checkpoint.convert import WRITABLE_TYPES, convert_to_gguf
from seedvr2_engine.loading import load_vae

from ...conftest import GOLDEN

# Uniform random weights are harsher than trained ones; measured 2026-11, less a margin of about 2 dB.
LEAST_PSNR_DB = {"F32": 120, "F16": 120, "BF16": 46, "Q8_0": 40, "Q5_1": 22, "Q5_0": 21, "Q4_1": 14, "Q4_0": 14}


def psnr_db(a: torch.Tensor, b: torch.Tensor) -> float:
    """At a peak of 2, the range of the model's pictures."""
    error = (a - b).square().mean().item()
    return math.inf if error == 0 else 10 * math.log10(4 / error)


@pytest.mark.parametrize("gguf_type", WRITABLE_TYPES)
def test_decode_of_a_converted_model(tiny_vae, tiny_cases, tmp_path, gguf_type):
    path = tmp_path / "tiny.gguf"
    convert_to_gguf(GOLDEN / "vae_tiny.safetensors", path, gguf_type)
    latent = tiny_cases["decode_3x5x7.z"]
    quality = psnr_db(load_vae(path).decode(latent), tiny_vae.decode(latent))
    print(f"{gguf_type}: {quality:.1f} dB")
    assert quality >= LEAST_PSNR_DB[gguf_type]


def test_f16_is_bit_exact(tmp_path):
    path = tmp_path / "tiny.gguf"
    convert_to_gguf(GOLDEN / "vae_tiny.safetensors", path, "F16")
    original = load_vae(GOLDEN / "vae_tiny.safetensors", dtype=torch.float16).state_dict()
    for name, tensor in load_vae(path, dtype=torch.float16).state_dict().items():
        assert torch.equal(tensor, original[name])
