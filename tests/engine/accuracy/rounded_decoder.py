"""What stands for an engine where only the choice of layers is tested."""

import contextlib

from seedvr2_engine.engine.accuracy.cache import check_once
from seedvr2_engine.engine.accuracy.check import check_accuracy
from seedvr2_engine.engine.accuracy.sensitivity import (
    decoder_layers,
    rounded,
)
from seedvr2_engine.quant import QuantRecipe

VICTIM = "decoder.up_blocks.2.resnets.1.conv1"


class RoundedDecoder:
    """Stands for an engine: the plain model whose layers are rounded as the recipe says."""

    def __init__(self, vae, recipe):
        self.vae, self.recipe = vae, recipe

    def decode(self, latent):
        layers = decoder_layers(self.vae.decoder)
        low = {n: layer for n, layer in layers.items() if self.recipe.layer_precision(n)[0] == self.recipe.precision}
        with rounded(low, self.recipe) if self.recipe.is_quantized else contextlib.nullcontext():
            return self.vae.decode(latent)


def run(vae, clip, limit, precision="fp8", cache_file=None):
    tried = []

    def build(recipe, previous):
        assert (previous is None) == (not tried)
        tried.append(recipe)
        return RoundedDecoder(vae, recipe)

    def check():
        return check_accuracy(vae, recipe, build, min_psnr_db=limit, clip=clip)

    recipe = QuantRecipe(precision)
    result, engine = check_once(cache_file, limit, recipe, build, check)
    assert engine.recipe == tried[-1]
    return result, tried
