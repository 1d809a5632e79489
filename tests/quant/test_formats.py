"""FP8, INT8, MXFP8 and NVFP4: what is read is what the definitions say, and what is written is the nearest."""

import numpy as np
import pytest
import torch
from torch import Tensor

from seedvr2_engine.errors import InvalidArgumentError
from seedvr2_engine.quant import fp8, int8, mxfp8, nvfp4
from seedvr2_engine.quant.rotation import is_rotation_group, rotate
from seedvr2_engine.quant.scale_tiles import tile, tiled_shape, untile

from . import definitions

RNG = np.random.default_rng(5)
CODES = np.arange(256, dtype=np.uint8)
FINITE = CODES[np.isfinite(definitions.E4M3)]


def weights(rows: int, columns: int, seed: int = 0) -> Tensor:
    """Normal numbers, some rows and single values far larger, as trained weights have them."""
    values = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) * 0.02
    values[::7] *= 5
    values[3, 5] = 0.9
    return values


def relative_rms(values: Tensor, truth: Tensor) -> float:
    return float((values - truth).norm() / truth.norm())


def bytes_of(array: np.ndarray, dtype: torch.dtype = torch.float8_e4m3fn) -> Tensor:
    return torch.from_numpy(array).view(dtype)


@pytest.mark.parametrize("scale", [0.02, [0.5, 3.0, 0.1, 1e-3]])
def test_fp8_reads_as_defined(scale: float | list[float]) -> None:
    factors = torch.tensor(scale)
    truth = definitions.E4M3.reshape(4, 64).astype(np.float32) * factors.numpy().reshape(-1, 1)
    read = fp8.dequantize(bytes_of(CODES.reshape(4, 64)), factors.flatten())
    np.testing.assert_array_equal(read.numpy(), truth)


@pytest.mark.parametrize("rotation", [0, 16, 64])
@pytest.mark.parametrize("by_row", [False, True])
def test_int8_reads_as_defined(by_row: bool, rotation: int) -> None:
    data = RNG.integers(-128, 128, (6, 128), dtype=np.int8)
    scale = RNG.uniform(0.001, 0.1, 6 if by_row else 1).astype(np.float32)
    truth = data.astype(np.float64) * scale.reshape(-1, 1)
    truth = definitions.rotated(truth, rotation) if rotation else truth
    read = int8.dequantize(torch.from_numpy(data), torch.from_numpy(scale), rotation).double().numpy()
    np.testing.assert_allclose(read, truth, rtol=0, atol=4e-7 * np.abs(truth).max())


@pytest.mark.parametrize("shape", [(32, 32), (160, 160), (288, 64)])
def test_mxfp8_reads_as_defined(shape: tuple[int, int]) -> None:
    data = RNG.choice(FINITE, shape)
    codes = RNG.integers(100, 140, (shape[0], shape[1] // 32)).astype(np.uint8)
    codes[1] = 0
    read = mxfp8.dequantize(bytes_of(data), torch.from_numpy(definitions.tiles(codes)))
    np.testing.assert_array_equal(read.double().numpy(), definitions.mxfp8(data, codes))


def test_mxfp8_ends_of_the_scale() -> None:
    data = np.full((32, 32), 0x38, np.uint8)  # 1.0
    codes = np.full((32, 1), 1, np.uint8)
    codes[1], codes[2], codes[3] = 254, 255, 0
    read = mxfp8.dequantize(bytes_of(data), torch.from_numpy(definitions.tiles(codes)))[:, 0]
    assert read[:2].tolist() == [2.0**-126, 2.0**127]
    assert torch.isnan(read[2])
    assert read[3] == 0


@pytest.mark.parametrize("shape", [(16, 16), (160, 160), (272, 96)])
def test_nvfp4_reads_as_defined(shape: tuple[int, int]) -> None:
    data = RNG.integers(0, 256, (shape[0], shape[1] // 2), dtype=np.uint8)
    codes = RNG.choice(FINITE[FINITE < 128], (shape[0], shape[1] // 16))
    tensor_scale = np.float32(0.0044)
    scale = torch.from_numpy(definitions.tiles(codes)).view(torch.float8_e4m3fn)
    read = nvfp4.dequantize(torch.from_numpy(data), scale, torch.tensor(tensor_scale))
    truth = definitions.nvfp4(data, codes, float(tensor_scale))
    np.testing.assert_allclose(read.double().numpy(), truth, rtol=2e-7, atol=0)


def test_worked_examples() -> None:
    """By hand, from the definitions."""
    row = torch.tensor([[8.0, 0, 0, 2]])
    data, scale = int8.quantize(row, rotation=4)
    assert data.tolist() == [[76, 127, 127, -76]]
    assert int8.dequantize(data, scale, 4)[0].tolist() == pytest.approx([7.992126, 0, 0, 2.007874], abs=1e-6)

    block = torch.zeros(1, 32)
    block[0, :3] = torch.tensor([10, -1, 0.01])
    data, tiles = mxfp8.quantize(block)
    assert data.shape == (32, 32)
    assert data.view(torch.uint8)[0, :3].tolist() == [0x7A, 0xE0, 0x2A]
    assert (tiles.shape, tiles[0, 0]) == ((128, 4), 122)
    assert mxfp8.dequantize(data, tiles)[0, :3].tolist() == [10, -1, 0.009765625]

    block = torch.zeros(1, 32)
    block[0, :4], block[0, 16] = torch.tensor([3, 1.5, -0.3, 0.7]), 12
    stored = nvfp4.quantize(block)
    assert stored.tensor_scale.item() == pytest.approx(0.0044642859)
    assert stored.data[0, :2].tolist() == [0x75, 0x93]
    assert stored.scale.view(torch.uint8)[0, 0] == 0x6E
    assert nvfp4.dequantize(*stored)[0, :4].tolist() == pytest.approx([3, 1.5, -0.25, 0.75])


# Relative RMS; measured 2.63e-2, 4.82e-2 (one outlier sets the step), 7.9e-3, 6.8e-3, 2.61e-2, 9.52e-2.
LOSSES = {
    "fp8": (lambda w: fp8.dequantize(*fp8.quantize(w)), 2.8e-2),
    "int8 by tensor": (lambda w: int8.dequantize(*int8.quantize(w, by_row=False)), 8e-2),
    "int8 by row": (lambda w: int8.dequantize(*int8.quantize(w)), 1.2e-2),
    "int8 rotated": (lambda w: int8.dequantize(*int8.quantize(w, rotation=64), 64), 1e-2),
    "mxfp8": (lambda w: mxfp8.dequantize(*mxfp8.quantize(w)), 2.8e-2),
    "nvfp4": (lambda w: nvfp4.dequantize(*nvfp4.quantize(w)), 1e-1),
}


@pytest.mark.parametrize("name", LOSSES)
def test_what_is_written_is_close(name: str) -> None:
    there_and_back, limit = LOSSES[name]
    values = weights(160, 192)
    loss = relative_rms(there_and_back(values), values)
    assert limit / 3 < loss < limit


@pytest.mark.parametrize("name", LOSSES)
def test_zeros_stay_zeros(name: str) -> None:
    there_and_back, _ = LOSSES[name]
    assert not there_and_back(torch.zeros(32, 64)).any()
    assert not mxfp8.quantize(torch.zeros(32, 64)).scale.any()
    one = torch.zeros(32, 64)
    one[3] = weights(4, 64)[3]
    read = there_and_back(one)
    assert not read[:3].any()
    assert read[3].any()


@pytest.mark.parametrize("name", ["fp8", "int8 by tensor", "int8 by row", "mxfp8", "nvfp4"])
def test_what_was_read_is_written_without_loss(name: str) -> None:
    there_and_back, _ = LOSSES[name]
    once = there_and_back(weights(64, 64))
    assert relative_rms(there_and_back(once), once) < 2e-7


def test_one_scale_of_int8_follows_the_largest_magnitude() -> None:
    weight = torch.tensor([[0.5, -2.0], [0.25, 1.0]])
    data, scale = int8.quantize(weight, by_row=False)
    assert data.tolist() == [[32, -127], [16, 64]]
    assert scale.item() == pytest.approx(2 / 127)


def test_nvfp4_takes_the_nearest_code() -> None:
    grid = np.concatenate([definitions.E2M1, -definitions.E2M1])
    values = torch.linspace(-6, 6, 4801).repeat_interleave(16).reshape(-1, 16)
    values[:, 15] = 6  # so that every block's scale is one
    stored = nvfp4.quantize(values * 448)
    read = nvfp4.dequantize(*stored)[: len(values), :15].double().numpy() / 448
    wanted = values[:, :15].double().numpy()
    nearest = np.abs(wanted[..., None] - grid).min(-1)
    np.testing.assert_allclose(np.abs(read - wanted), nearest, atol=1e-5)
    # Ties go to the even code.
    ties = torch.tensor([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0, -0.25, -0.75, -5, 0, 0, 0, 0, 0, 6])[None] * 448
    rounded = (nvfp4.dequantize(*nvfp4.quantize(ties))[0] / 448).tolist()
    assert rounded[:10] == pytest.approx([0, 1, 1, 2, 2, 4, 4, 0, -1, -4])


def test_mxfp8_uses_the_least_exponent_that_fits() -> None:
    largest = torch.tensor([448.0, 449, 896, 1e-3, 2.0**-20, 3e38])
    block = largest[:, None].expand(-1, 32).contiguous()
    data, tiles = mxfp8.quantize(block)
    codes = untile(tiles, 32, 1)[:6, 0].int() - 127
    expected = [int(np.ceil(np.log2(value / 448))) for value in largest.tolist()]
    assert codes.tolist() == expected
    assert relative_rms(mxfp8.dequantize(data, tiles)[:6].double(), block.double()) < 2**-4


@pytest.mark.parametrize("group", [4, 16, 64, 256])
def test_rotation(group: int) -> None:
    values = weights(12, 512)
    turned = rotate(values, group)
    truth = definitions.rotated(values.double().numpy(), group)
    np.testing.assert_allclose(turned.double().numpy(), truth, atol=4e-7 * np.abs(truth).max())
    torch.testing.assert_close(rotate(turned, group), values, rtol=0, atol=2e-7)
    other = weights(5, 512, seed=1)
    torch.testing.assert_close(rotate(other, group) @ turned.T, other @ values.T, rtol=0, atol=1e-6)


def test_rotation_spreads_outliers() -> None:
    values = torch.zeros(1, 256)
    values[0, 77] = 16
    assert (rotate(values, 256).abs() == 1).all()


@pytest.mark.parametrize("group", [0, 1, 2, 8, 32, 128, 512, -4, 256])
def test_groups_that_have_no_matrix_or_do_not_divide(group: int) -> None:
    assert is_rotation_group(group) == (group == 256)
    with pytest.raises(InvalidArgumentError, match="a power of four that divides 128 columns"):
        rotate(torch.zeros(2, 128), group)


@pytest.mark.parametrize("shape", [(1, 1), (33, 5), (128, 4), (160, 10), (300, 3)])
def test_scales_are_tiled_as_defined(shape: tuple[int, int]) -> None:
    codes = RNG.integers(1, 256, shape).astype(np.uint8)
    tiles = tile(torch.from_numpy(codes))
    assert tiles.shape == tiled_shape(*shape)
    np.testing.assert_array_equal(tiles.numpy(), definitions.tiles(codes))
    np.testing.assert_array_equal(untile(tiles, *shape).numpy(), codes)


def test_where_some_scales_lie() -> None:
    assert [definitions.tile_index(*place, 10) for place in ((1, 0), (32, 0), (33, 5), (128, 0))] == [16, 4, 533, 1536]
