"""A model that another program has loaded, read like a file."""

import pytest
import torch
from safetensors.torch import load_file

from seedvr2_engine.checkpoint.in_memory import LoadedTensors
from seedvr2_engine.errors import CheckpointError, InvalidArgumentError
from seedvr2_engine.loading import build_vae, load_vae

from ..conftest import GOLDEN

TINY = GOLDEN / "vae_tiny.safetensors"


def test_it_gives_the_model_that_the_file_gives() -> None:
    tensors = load_file(TINY)
    with LoadedTensors({f"first_stage_model.{name}": tensor for name, tensor in tensors.items()}, "memory") as loaded:
        vae = build_vae(loaded, dtype=torch.float16)
    for name, tensor in load_vae(TINY, dtype=torch.float16).state_dict().items():
        assert torch.equal(vae.state_dict()[name], tensor)
    # The model has memory of its own.
    vae.encoder.conv_in.bias.data.fill_(7)
    assert not (tensors["encoder.conv_in.bias"] == 7).any()


def test_what_is_no_weight_is_refused() -> None:
    tensors = load_file(TINY)
    name = "encoder.conv_in.bias"
    for wrong in (tensors[name].to(torch.int32), tensors[name].to(torch.complex64), tensors[name] * float("nan")):
        loaded = LoadedTensors({**tensors, name: wrong}, "the connected VAE")
        with pytest.raises(CheckpointError, match="in the connected VAE"), loaded:
            build_vae(loaded)
    with LoadedTensors(tensors, "memory") as loaded:
        pass
    with pytest.raises(InvalidArgumentError, match="closed one"):
        loaded.load(name)
