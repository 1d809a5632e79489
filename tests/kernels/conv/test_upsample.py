"""The composed upsampler is the checkpoint's upsampler: inside, on the border, at the start of a clip."""

import pytest
import torch

from seedvr2_engine.kernels import reference
from seedvr2_engine.kernels.configs import ConvConfig, ConvProblem
from seedvr2_engine.kernels.conv import conv3d
from seedvr2_engine.kernels.conv.operands import Additions, ConvOutput, FrameWindow
from seedvr2_engine.kernels.conv.pack import pack_sets
from seedvr2_engine.kernels.conv.upsample import compose_upsampler
from seedvr2_engine.models.vae.blocks import Upsample

from ..tables import clip_table, upsample_table
from ..tolerances import assert_close

CONFIG = ConvConfig(4, 8, 32, 32, warps=4, stages=2, uses_tma=True)


def upsampler(time: bool) -> Upsample:
    torch.manual_seed(5)
    module = Upsample(32, time=time)
    for parameter in module.parameters():
        # Large biases, so that the border shows.
        torch.nn.init.normal_(parameter, std=0.2 if parameter.ndim > 1 else 2.0)
    return module


def run(module: object, model: Upsample, x: torch.Tensor, time: bool, tables: list[torch.Tensor]) -> torch.Tensor:
    """x (C, t, H, W) through the first launch and one later launch per table; (C, T, 2 H, 2 W)."""
    composed = compose_upsampler(
        model.upscale_conv.weight.detach(), model.upscale_conv.bias.detach(),
        model.conv.weight.detach(), model.conv.bias.detach(),
    )  # fmt: skip
    channels, _, height, width = x.shape
    frames = x.permute(1, 2, 3, 0).half().contiguous()
    first = pack_sets(composed.first, composed.first_bias, "fp16")
    later = pack_sets(composed.later, composed.later_bias, "fp16")
    outputs = []
    launches = [(first, (1, 2, 2), torch.zeros((1, 2), dtype=torch.int32))]
    launches += [(later, (2, 2, 2) if time else (3, 2, 2), table) for table in tables]
    for weights, kernel, table in launches:
        problem = ConvProblem(
            channels, channels, kernel, len(table), height, width, "fp16", phases=4, has_statistics=False, output="fp32"
        )
        y = torch.full((len(table), 2 * height, 2 * width, channels), float("nan"))
        module.conv3d(FrameWindow(frames, None, table), weights, Additions(), ConvOutput(y, None), problem, CONFIG)
        outputs.append(y)
    return torch.cat(outputs).permute(3, 0, 1, 2)


def expected(model: Upsample, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(x.half().float()[None])[0]


@pytest.mark.parametrize("cuts", [[range(1, 5)], [range(1, 2), range(2, 3), range(3, 5)]], ids=["whole", "sliced"])
def test_with_time_equals_the_model(cuts: list[range]) -> None:
    model, x = upsampler(time=True), torch.randn(32, 5, 3, 4)
    tables = [upsample_table(cut, previous=cut.start - 1, first=cut.start) for cut in cuts]
    result = run(reference, model, x, True, tables)
    assert_close(result, expected(model, x), torch.float16)


def test_without_time_equals_the_model() -> None:
    model, x = upsampler(time=False), torch.randn(32, 4, 3, 4)
    result = run(reference, model, x, False, [clip_table(4, 3)[1:]])
    assert_close(result, expected(model, x), torch.float16)


@pytest.mark.parametrize("size", [(1, 1), (5, 9)])
def test_the_kernel_equals_the_model(size: tuple[int, int]) -> None:
    model, x = upsampler(time=True), torch.randn(32, 2, *size)
    result = run(conv3d, model, x, True, [upsample_table(range(1, 2), previous=0, first=1)])
    assert_close(result, expected(model, x), torch.float16)


def test_the_border_matters() -> None:
    """The fault that the border biases prevent is large enough for the tests above to see."""
    model, x = upsampler(time=True), torch.randn(32, 2, 3, 4)
    right = expected(model, x)
    composed = compose_upsampler(
        model.upscale_conv.weight.detach(), model.upscale_conv.bias.detach(),
        model.conv.weight.detach(), model.conv.bias.detach(),
    )  # fmt: skip
    assert composed.later_bias[:, :, 1:].abs().max() > 0.05 * right.abs().max()


def test_a_ring_buffer_can_hold_the_frames() -> None:
    table = upsample_table(range(7, 8), previous=3, first=0)
    assert table.tolist() == [[3, 0, 0], [3, 0, 1]]
    assert upsample_table(range(1, 2), previous=0, first=1).tolist() == [[0, 1, 2], [0, 1, 3]]
