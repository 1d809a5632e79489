"""The convolution kernel against its reference: formats, loads, shapes, windows, epilogues."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from seedvr2_engine.errors import InvalidArgumentError
from seedvr2_engine.kernels import reference
from seedvr2_engine.kernels.configs import ConvConfig, ConvProblem
from seedvr2_engine.kernels.conv import conv3d
from seedvr2_engine.kernels.conv.operands import Additions, ConvOutput, ConvWeights, FrameWindow, tile_counts

from ..tables import clip_table
from ..tolerances import assert_close

TILE = ConvConfig(4, 8, 32, 32, warps=4, stages=2, uses_tma=True, epilogue_parts=2)
PROBLEM = ConvProblem(32, 32, (3, 3, 3), 2, 7, 10, "fp8", output="fp32")
TABLE = torch.tensor([[0, 1, 2, 0], [3, 0, 2, 1]], dtype=torch.int32)


def operands(problem: ConvProblem, exponents: tuple[int, ...] = (1, -2, 0, -3)) -> tuple[FrameWindow, ConvWeights]:
    """Four buffer frames seen in mixed order through two weight sets."""
    generator = torch.Generator().manual_seed(1)
    dtype = conv3d.DTYPES[problem.format]
    kt, kh, kw = problem.kernel
    gain = 30.0 if dtype == torch.int8 else 1.0
    rows = 2 * problem.phases * problem.channels_out
    shape = (4, problem.height_px, problem.width_px, problem.channels_in)
    frames = (torch.randn(shape, generator=generator) * gain).round(decimals=2)
    weights = torch.randn((rows, kt * kh * kw * problem.channels_in), generator=generator) * gain
    if dtype == torch.int8:
        frames, weights = frames.round().clamp(-127, 127), weights.round().clamp(-127, 127)
    scale = (torch.rand(rows, generator=generator) + 0.5) / gain**2
    bias = torch.randn((2 * problem.phases, 4 if problem.phases == 4 else 1, problem.channels_out), generator=generator)
    quantized = problem.is_quantized
    table = torch.cat([TABLE[:, 3 - kt : 3], TABLE[:, 3:]], dim=1)
    window = FrameWindow(
        frames.to(dtype), torch.tensor(exponents, dtype=torch.int32) if quantized else None, table.contiguous()
    )
    return window, ConvWeights(weights.to(dtype), scale if quantized else None, bias)


def additions(problem: ConvProblem) -> Additions:
    generator = torch.Generator().manual_seed(2)
    dtype = conv3d.DTYPES[problem.output]
    shape = (problem.frames, *problem.output_px)

    def random(*size: int) -> Tensor:
        return torch.randn(size, generator=generator).to(dtype)

    residual = random(*shape, problem.channels_out) if problem.has_residual else None
    if not problem.shortcut_channels:
        return Additions(residual)
    weight = random(problem.channels_out, problem.shortcut_channels)
    return Additions(residual, random(*shape, problem.shortcut_channels), weight)


def poisoned(problem: ConvProblem, config: ConvConfig) -> ConvOutput:
    shape = (problem.frames, *problem.output_px, problem.channels_out)
    y = torch.full(shape, float("nan"), dtype=conv3d.DTYPES[problem.output])
    if not problem.has_statistics:
        return ConvOutput(y, None)
    tiles = tile_counts(problem.grid_px, (config.tile_h, config.tile_w), problem.phases).numel()
    return ConvOutput(
        y, torch.full((problem.frames, tiles, problem.statistic_rows, problem.channels_out), float("nan"))
    )


def compare(problem: ConvProblem, config: ConvConfig = TILE, exponents: tuple[int, ...] = (1, -2, 0, -3)) -> None:
    window, weights = operands(problem, exponents)
    outputs = [poisoned(problem, config), poisoned(problem, config)]
    for module, out in zip((conv3d, reference), outputs, strict=True):
        module.conv3d(window, weights, additions(problem), out, problem, config)
    actual, expected = outputs
    # An INT8 window of mixed exponents drops the bits below the largest one's.
    factor = 20.0 if problem.format == "int8" and len(set(exponents)) > 1 else 1.0
    assert_close(actual.y, expected.y, actual.y.dtype, factor)
    if actual.partials is not None and expected.partials is not None:
        for row in range(problem.statistic_rows):
            assert_close(actual.partials[:, :, row], expected.partials[:, :, row], actual.y.dtype, 2 * factor)


LOADS = pytest.mark.parametrize("uses_tma", [True, False], ids=["descriptors", "pointers"])


@pytest.mark.parametrize("format", ["fp8", "mxfp8", "int8", "fp16", "bf16"])
def test_formats_equal_the_reference(format: str) -> None:
    compare(replace(PROBLEM, format=format))


@pytest.mark.parametrize("format", ["fp8", "int8", "fp16"])
def test_pointer_loads_equal_the_reference(format: str) -> None:
    compare(replace(PROBLEM, format=format, kernel=(3, 1, 3), height_px=5), replace(TILE, uses_tma=False))


@pytest.mark.parametrize("exponents", [(0, 0, 0, 0), (2, 2, 1, 1), (-3, 0, 4, 4)])
@pytest.mark.parametrize("format", ["fp8", "mxfp8", "int8"])
def test_every_frame_has_its_own_scale(format: str, exponents: tuple[int, ...]) -> None:
    compare(replace(PROBLEM, format=format), exponents=exponents)


@LOADS
@pytest.mark.parametrize("kernel", [(1, 3, 3), (1, 1, 1), (3, 1, 1)])
def test_kernels_of_other_extents(kernel: tuple[int, int, int], uses_tma: bool) -> None:
    compare(replace(PROBLEM, kernel=kernel), replace(TILE, uses_tma=uses_tma))


@pytest.mark.parametrize(
    ("kernel", "uses_tma"), [((2, 2, 2), True), ((3, 2, 2), True), ((1, 2, 2), True), ((1, 2, 2), False)]
)
def test_phases_of_an_upsampler(kernel: tuple[int, int, int], uses_tma: bool) -> None:
    compare(replace(PROBLEM, kernel=kernel, phases=4, height_px=5, width_px=3), replace(TILE, uses_tma=uses_tma))


@pytest.mark.parametrize(
    ("height", "width", "uses_tma"), [(8, 12, True), (8, 12, False), (9, 13, False), (7, 12, False)]
)
@pytest.mark.parametrize("kernel", [(1, 3, 3), (3, 3, 3)])
def test_strides_pad_below_and_at_the_right(
    kernel: tuple[int, int, int], height: int, width: int, uses_tma: bool
) -> None:
    problem = replace(PROBLEM, kernel=kernel, stride=2, height_px=height, width_px=width)
    compare(problem, replace(TILE, uses_tma=uses_tma))


@LOADS
@pytest.mark.parametrize("format", ["fp8", "int8", "fp16"])
def test_epilogue_adds_shortcut_and_residual(format: str, uses_tma: bool) -> None:
    problem = replace(PROBLEM, format=format, kernel=(1, 3, 3), shortcut_channels=48, output="fp16", has_residual=True)
    compare(problem, replace(TILE, uses_tma=uses_tma))


@pytest.mark.parametrize("output", ["fp16", "bf16"])
def test_outputs_of_sixteen_bits(output: str) -> None:
    compare(replace(PROBLEM, kernel=(1, 3, 3), output=output, channels_in=64, channels_out=64))


@pytest.mark.parametrize("has_range", [True, False])
@pytest.mark.parametrize("phases", [1, 4])
def test_tiles_that_fill_the_picture(has_range: bool, phases: int) -> None:
    kernel = (1, 2, 2) if phases == 4 else (1, 3, 3)
    problem = replace(PROBLEM, kernel=kernel, phases=phases, height_px=8, width_px=16, has_range=has_range)
    compare(replace(problem, output="fp16", has_residual=True))


def test_a_tile_of_one_row() -> None:
    compare(replace(PROBLEM, kernel=(1, 2, 2), phases=4, width_px=16), replace(TILE, tile_h=1, tile_w=16))


def test_statistics_can_be_left_out() -> None:
    compare(replace(PROBLEM, kernel=(1, 1, 1), has_statistics=False))


def test_a_residual_may_be_the_output_itself() -> None:
    problem = replace(PROBLEM, kernel=(1, 3, 3), output="fp16", has_residual=True)
    window, weights = operands(problem)
    residual = additions(problem).residual
    assert residual is not None
    expected = poisoned(problem, TILE)
    reference.conv3d(window, weights, Additions(residual.clone()), expected, problem, TILE)
    out = ConvOutput(residual, poisoned(problem, TILE).partials)
    conv3d.conv3d(window, weights, Additions(residual), out, problem, TILE)
    assert_close(out.y, expected.y, torch.float16)


def test_repeated_runs_give_the_same_bits() -> None:
    window, weights = operands(PROBLEM)
    outputs = [poisoned(PROBLEM, TILE), poisoned(PROBLEM, TILE)]
    for out in outputs:
        conv3d.conv3d(window, weights, Additions(), out, PROBLEM, TILE)
    assert torch.equal(outputs[0].y, outputs[1].y)


def test_table_of_a_clip_repeats_the_first_frame() -> None:
    assert clip_table(3, 3).tolist() == [[0, 0, 0, 0], [0, 0, 1, 0], [0, 1, 2, 0]]
    assert clip_table(5, 3, stride=2, first=4).tolist() == [[4, 4, 4, 0], [4, 5, 6, 0], [6, 7, 8, 0]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frames": 3}, "window.table"),
        ({"channels_in": 64}, "window.frames"),
        ({"format": "int8"}, "window.frames"),
        ({"has_residual": True}, "additions.residual: expected contiguous .* got nothing"),
        ({"shortcut_channels": 16}, "additions.shortcut"),
        ({"has_statistics": False}, "out.partials"),
        ({"output": "fp16"}, "out.y"),
        ({"kernel": (3, 3, 1)}, "weights.data"),
    ],
)
def test_operands_that_do_not_fit_are_named(change: dict[str, object], message: str) -> None:
    window, weights = operands(PROBLEM)
    out = poisoned(PROBLEM, TILE)
    with pytest.raises(InvalidArgumentError, match=message):
        conv3d.conv3d(window, weights, Additions(), out, replace(PROBLEM, **change), TILE)


def test_frames_too_large_for_32_bit_offsets_are_refused() -> None:
    problem = replace(PROBLEM, height_px=2**13, width_px=2**13, has_statistics=False, frames=1, kernel=(1, 1, 1))
    meta = torch.device("meta")
    frames = torch.empty((1, 2**13, 2**13, 32), dtype=torch.float8_e4m3fn, device=meta)
    window = FrameWindow(frames, torch.zeros(1, dtype=torch.int32), torch.zeros((1, 2), dtype=torch.int32))
    weights = ConvWeights(torch.zeros((32, 32), dtype=torch.float8_e4m3fn), torch.ones(32), torch.zeros((1, 1, 32)))
    out = ConvOutput(torch.empty((1, 2**13, 2**13, 32), device=meta), None)
    with pytest.raises(InvalidArgumentError, match="spatial tiles"):
        conv3d.conv3d(window, weights, Additions(), out, problem, TILE)
