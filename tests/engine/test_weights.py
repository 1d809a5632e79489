"""Packed weights are as large as planned; calibration finds every layer and leaves the model as it was."""

import pytest
import torch

from seedvr2_engine.engine.accuracy.calibrate import calibration_clips
from seedvr2_engine.engine.vae import weights
from seedvr2_engine.errors import InvalidArgumentError
from seedvr2_engine.kernels.layout import DTYPES
from seedvr2_engine.models.vae.model import VideoVAE
from seedvr2_engine.plan import VAEShape
from seedvr2_engine.plan.memory import ALIGNMENT
from seedvr2_engine.quant import QuantRecipe

from .conftest import MakeEngine, relative


@pytest.mark.parametrize("precision", ["fp16", "fp8", "int8"])
@pytest.mark.parametrize("part", ["decode", "encode"])
def test_packed_weights_are_as_large_as_planned(make_engine: MakeEngine, precision: str, part: str) -> None:
    engine = make_engine(precision)
    plan = engine.plan(VAEShape(part, 24, 32, 5))
    engine.session.prepare(plan)
    tensors = 4 * sum(operation.problem is not None for operation in (*plan.first.operations, *plan.steady.operations))
    norms = sum(8 * operation.size[2] for operation in plan.first.operations if operation.norm)
    rounding = plan.memory.weights - norms - engine.weights.nbytes
    assert 0 <= rounding <= tensors * ALIGNMENT
    assert engine.session.memory_bytes == plan.memory.arena + plan.memory.rings


def test_calibration_sees_every_layer_that_int8_quantises(tiny_vae, tiny_maxima, make_engine: MakeEngine) -> None:
    maxima = tiny_maxima
    engine = make_engine("int8")
    for part in ("decode", "encode"):
        for operation in engine.plan(VAEShape(part, 24, 32, 5)).convolutions():
            if operation.format == "int8":
                assert operation.problem is not None
                assert maxima[operation.layer].shape == (operation.problem.channels_in,)
                assert (maxima[operation.layer] > 0).all()
    assert not any(module._forward_pre_hooks for module in tiny_vae.modules())
    assert all(torch.equal(a, b) for a, b in zip(calibration_clips(), calibration_clips(), strict=True))


def test_smoothing_is_taken_back_by_the_weights(make_engine, tiny_vae, monkeypatch: pytest.MonkeyPatch) -> None:
    """With factors a hundredfold apart INT8 is spoilt, but what is computed stays the model: the factors cancel."""
    z = torch.randn(1, 16, 2, 3, 4, generator=torch.Generator().manual_seed(0))
    expected = tiny_vae.decode(z)
    smooth = relative(make_engine("int8").decode(z), expected)
    monkeypatch.setattr(weights, "SMOOTHING", 0.0)
    rough = relative(make_engine("int8").decode(z), expected)
    assert smooth < rough < 1


def test_another_recipe_shares_packed_layers(make_engine: MakeEngine, tiny_vae: VideoVAE) -> None:
    engine = make_engine("fp8")
    z = torch.randn(1, 16, 2, 3, 4, generator=torch.Generator().manual_seed(0))
    engine.decode(z)
    packed = dict(engine.weights._packed)
    kept = engine.with_recipe(engine.recipe.keeping_in_16_bits("decoder.up_blocks.3", "the test wants it"))
    fresh = make_engine(kept.recipe)
    assert torch.equal(kept.decode(z), fresh.decode(z))
    changed = {key for key in packed if key[0].startswith("decoder.up_blocks.3") and key[2] == "fp8"}
    assert changed
    assert all(kept.weights._packed[key] is value for key, value in packed.items() if key not in changed)
    # What nobody reads any more is given back.
    assert kept.weights.nbytes == fresh.weights.nbytes
    assert relative(kept.decode(z), tiny_vae.decode(z)) < relative(engine.decode(z), tiny_vae.decode(z))
    with pytest.raises(InvalidArgumentError, match="make a new engine"):
        engine.with_recipe(QuantRecipe("int8"))


def test_shortcuts_have_the_format_of_what_they_read(make_engine: MakeEngine) -> None:
    """Another recipe for the same engine may have another format between the layers."""
    engine = make_engine("fp8")
    z = torch.randn(1, 16, 2, 3, 4, generator=torch.Generator().manual_seed(0))
    engine.decode(z)
    for high in ("bf16", "fp16"):
        engine = engine.with_recipe(QuantRecipe("fp8", high))
        assert engine.decode(z).isfinite().all()
        operations = [
            operation for operation in engine.plan(VAEShape("decode", 24, 32, 5)).convolutions() if operation.shortcut
        ]
        assert operations
        for operation in operations:
            assert engine.weights.layer(operation).shortcut.dtype == DTYPES[high]
