"""Quantisation: scales, errors, smoothing, recipes."""

import pytest
import torch

from seedvr2_engine.errors import InvalidArgumentError
from seedvr2_engine.kernels.conv.pack import fold_time, pack_conv
from seedvr2_engine.quant import QuantRecipe, quantize_rows, smoothing_factors

from ..kernels.tables import pad_channels


@pytest.mark.parametrize(("dtype", "error"), [(torch.float8_e4m3fn, 2**-4), (torch.int8, 0.5 / 127)])
def test_rows_have_their_own_scale(dtype: torch.dtype, error: float) -> None:
    weight = torch.randn(8, 200, dtype=torch.float64) * torch.logspace(-6, 3, 8, dtype=torch.float64)[:, None]
    data, scale = quantize_rows(weight, dtype)
    restored = data.double() * scale.double()[:, None]
    amax = weight.abs().amax(1)
    assert (restored.abs().amax(1) / amax - 1).abs().max() < 1e-6
    assert ((restored - weight).abs().amax(1) <= error * amax * 1.001).all()


def test_a_row_of_zeros_stays_zero() -> None:
    data, scale = quantize_rows(torch.zeros(2, 4), torch.int8)
    assert not data.any()
    assert (scale == 1).all()


@pytest.mark.parametrize(
    ("weight", "dtype", "message"),
    [
        (torch.tensor([[float("nan")]]), torch.int8, "NaN"),
        (torch.tensor([[1.0, float("inf")]]), torch.float8_e4m3fn, "infinity"),
        (torch.ones(1, 1), torch.int16, "int16"),
    ],
)
def test_bad_weights_are_refused(weight: torch.Tensor, dtype: torch.dtype, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        quantize_rows(weight, dtype)


def test_smoothing_helps_int8_and_changes_nothing_else() -> None:
    torch.manual_seed(7)
    x, weight = torch.randn(500, 64), torch.randn(32, 64)
    x[:, 5] *= 60

    def product_error(smoothing: torch.Tensor) -> float:
        packed = pack_conv(weight[:, :, None, None, None], torch.zeros(32), "int8", smoothing)
        assert packed.scale is not None
        quantized = (x / smoothing).round().clamp(-127, 127)
        result = quantized @ (packed.data.float() * packed.scale[:, None]).T
        return ((result - x @ weight.T).norm() / (x @ weight.T).norm()).item()

    smoothing = smoothing_factors(x.abs().amax(0), weight.abs().amax(0))
    assert (x / smoothing).abs().max() == pytest.approx(127, rel=1e-4)
    plain = torch.full((64,), x.abs().max().item() / 127)
    assert product_error(smoothing) < 0.5 * product_error(plain)


def test_strength_is_the_activation_s_share_of_the_smoothing() -> None:
    activation, weight = torch.tensor([2.0, 32.0]), torch.tensor([4.0, 1.0])
    factors = smoothing_factors(activation, weight, strength=0.8)
    assert (factors[1] / factors[0]).item() == pytest.approx(16**0.8 * 4**0.2, rel=1e-5)
    assert (activation / factors).max().item() == pytest.approx(127, rel=1e-5)


@pytest.mark.parametrize("silent", [(0.0, 1.0), (1.0, 0.0), (0.0, 0.0)])
def test_channels_without_values_or_weights_have_a_factor(silent: tuple[float, float]) -> None:
    factors = smoothing_factors(torch.tensor([silent[0], 3.0]), torch.tensor([silent[1], 1.0]), strength=0.85)
    assert torch.isfinite(factors).all()
    assert (factors > 0).all()


def test_packing_puts_taps_before_channels_and_pads_with_zeros() -> None:
    weight = torch.arange(2 * 3 * 1 * 2 * 2, dtype=torch.float64).reshape(2, 3, 1, 2, 2)
    packed = pack_conv(pad_channels(weight, 4, 4), torch.zeros(4), "fp16")
    assert packed.data.shape == (4, 16)
    assert packed.data[1].reshape(2, 2, 4)[1, 0].tolist() == [14.0, 18.0, 22.0, 0.0]
    assert not packed.data[2:].any()


def test_folding_time_adds_the_taps() -> None:
    weight = torch.randn(2, 3, 3, 1, 1)
    assert torch.allclose(fold_time(weight)[:, :, 0], weight.double().sum(2))


def test_a_recipe_keeps_named_layers_and_blocks_high() -> None:
    recipe = QuantRecipe("fp8").keeping_in_16_bits("decoder.up_blocks.3", "it fell below the limit")
    assert recipe.layer_precision("decoder.conv_out")[0] == "fp16"
    assert recipe.layer_precision("decoder.up_blocks.3.resnets.0.conv1") == ("fp16", "it fell below the limit")
    assert recipe.layer_precision("decoder.up_blocks.2.resnets.0.conv1")[0] == "fp8"
    one = QuantRecipe("fp8").keeping_in_16_bits("decoder.up_blocks.3.resnets.1", "this one alone")
    assert one.layer_precision("decoder.up_blocks.3.resnets.1.conv2")[0] == "fp16"
    assert one.layer_precision("decoder.up_blocks.3.resnets.10.conv2")[0] == "fp8"
    assert QuantRecipe("bf16").layer_precision("decoder.conv_out")[0] == "bf16"
    with pytest.raises(InvalidArgumentError, match="precision: expected"):
        QuantRecipe("int4")
