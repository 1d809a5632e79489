"""The tensor list of a configuration against the public checkpoint's and against the modules."""

import json
import math

import pytest
import torch

from seedvr2_engine.models.vae.config import VAEConfig
from seedvr2_engine.models.vae.model import VideoVAE


def test_public_widths_give_the_public_checkpoint(golden_dir):
    public = {k: tuple(v) for k, v in json.loads((golden_dir / "vae_public_tensors.json").read_text()).items()}
    shapes = VAEConfig().tensor_shapes()
    assert shapes == public
    assert len(shapes) == 250
    assert sum(math.prod(shape) for shape in shapes.values()) == 250_648_227


@pytest.mark.parametrize("widths", [(128, 256, 512, 512), (32, 64, 32, 32), (32, 32, 64, 64), (32, 96, 96, 160)])
@pytest.mark.parametrize("layers", [1, 2])
def test_modules_have_exactly_the_listed_tensors(widths, layers):
    config = VAEConfig(block_out_channels=widths, layers_per_block=layers)
    with torch.device("meta"):
        vae = VideoVAE(config)
    assert {k: tuple(v.shape) for k, v in vae.state_dict().items()} == config.tensor_shapes()
