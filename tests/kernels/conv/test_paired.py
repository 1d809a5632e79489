"""Two frames from four products: the algebra, and the kernels against their references."""

from dataclasses import replace

import pytest
import torch

from seedvr2_engine.device import DeviceSpec, MatrixRates
from seedvr2_engine.doctor.kernel_checks import check_operation
from seedvr2_engine.engine.vae.backend import reference_backend, triton_backend
from seedvr2_engine.kernels import reference
from seedvr2_engine.kernels.configs import ConvConfig, ConvProblem
from seedvr2_engine.kernels.conv import paired
from seedvr2_engine.kernels.conv.operands import WINOGRAD_INPUTS, WINOGRAD_OUTPUTS, WINOGRAD_TAPS
from seedvr2_engine.kernels.conv.pack import pair_taps
from seedvr2_engine.models.vae.config import VAEConfig
from seedvr2_engine.plan import VAEShape, compile_vae_plan
from seedvr2_engine.plan.execution_plan import Operation
from seedvr2_engine.plan.target import pair_problem
from seedvr2_engine.quant import QuantRecipe

from ..tolerances import assert_close
from .test_conv3d import TILE, additions, operands, poisoned

HOPPER = DeviceSpec("a Hopper GPU", "sm_90", 132, 232_448, 80 << 30, 3e12, MatrixRates(0, 0, 0, 0))
PROBLEM = pair_problem(ConvProblem(64, 64, (3, 3, 3), 1, 7, 9, "fp8"))


def test_four_products_make_the_six() -> None:
    generator = torch.Generator().manual_seed(0)
    frames, taps = torch.randn(4, generator=generator).double(), torch.randn(3, generator=generator).double()
    matrices = [
        torch.tensor(matrix, dtype=torch.float64) for matrix in (WINOGRAD_INPUTS, WINOGRAD_TAPS, WINOGRAD_OUTPUTS)
    ]
    made = matrices[2] @ ((matrices[0] @ frames) * (matrices[1] @ taps))
    assert torch.allclose(made, torch.stack([frames[:3] @ taps, frames[1:] @ taps]))


def test_taps_are_added_up_along_time_alone() -> None:
    weight = torch.randn(2, 4, 5, 6, 3, 2, 1, generator=torch.Generator().manual_seed(1)).double()
    made = pair_taps(weight)
    assert made.shape == (2, 4, 5, 6, 4, 2, 1)
    assert torch.allclose(made[..., 2, :, :], weight[..., 0, :, :] - weight[..., 1, :, :] + weight[..., 2, :, :])


def compare(problem: ConvProblem, config: ConvConfig) -> None:
    window, weights = operands(problem, (-1, -1, -1, -1))
    outputs = [poisoned(problem, config), poisoned(problem, config)]
    for module, out in zip((paired, reference), outputs, strict=True):
        module.paired_conv3d(window, weights, additions(problem), out, problem, config)
    actual, expected = outputs
    assert_close(actual.y, expected.y, actual.y.dtype)
    for row in range(problem.statistic_rows):
        assert_close(actual.partials[:, :, row], expected.partials[:, :, row], actual.y.dtype, 2.0)


@pytest.mark.parametrize("transposed", [True, False])
@pytest.mark.parametrize("format", ["fp8", "mxfp8", "int8", "fp16", "bf16"])
def test_formats_equal_the_reference(format: str, transposed: bool) -> None:
    # Block-scaled products have pixels as rows.
    problem = replace(PROBLEM, format=format, has_range=format == "int8", has_residual=True)
    transposed = transposed and format != "mxfp8"
    compare(problem, replace(TILE, transposed=transposed, epilogue_parts=1 if transposed else 2))


@pytest.mark.parametrize("uses_tma", [True, False], ids=["descriptors", "pointers"])
@pytest.mark.parametrize("change", ["phases", "shortcut", "tile that fills"])
def test_other_layers_equal_the_reference(change: str, uses_tma: bool) -> None:
    problem = PROBLEM
    if change == "phases":
        problem = replace(problem, kernel=(4, 2, 2), phases=4, height_px=5, width_px=3)
    elif change == "shortcut":
        problem = replace(problem, shortcut_channels=48)
    else:
        problem = replace(problem, height_px=8, width_px=16, has_residual=True)
    compare(problem, replace(TILE, transposed=True, epilogue_parts=1, uses_tma=uses_tma))


def norms(precision: str) -> list[Operation]:
    shape = VAEShape("decode", 48, 40, 9)
    config = VAEConfig(block_out_channels=(32, 64, 32, 32))
    plan = compile_vae_plan(config, QuantRecipe(precision), HOPPER, shape, 1 << 60)
    operations = [operation for operation in plan.steady.operations if operation.makes_winograd_inputs]
    # One that normalises, and one that only quantises.
    return [
        next(operation for operation in operations if bool(operation.norm) == normalises)
        for normalises in (True, False)
    ]


@pytest.mark.parametrize("precision", ["fp8", "int8", "fp16"])
def test_winograd_inputs_equal_the_reference(precision: str) -> None:
    for operation in norms("fp8" if precision == "int8" else precision):
        # No plan has pairs in INT8; the kernel knows them.
        check = check_operation(replace(operation, format=precision), triton_backend(), torch.device("cpu"))
        assert check.wrong == "", check


@pytest.mark.parametrize("precision", ["fp8", "fp16"])
def test_a_forgotten_frame_is_noticed(precision: str) -> None:
    def forgetful(x, affine, operands, spec, target, winograd) -> None:
        reference.normalize_pair(x, affine, operands, spec, target, winograd)
        winograd.frames[0].copy_(winograd.frames[3])

    broken = reference_backend()._replace(normalize_pair=forgetful)
    assert "relative error" in check_operation(norms(precision)[0], broken, torch.device("cpu")).wrong
