"""Sizes by integer arithmetic, and one antialiased bicubic resampling."""

import pytest
import torch
from torch import Tensor

from seedvr2_engine.errors import InvalidArgumentError
from seedvr2_engine.pipeline.resize import ResizePlan, crop_to_output, plan_resize, resample, to_model_input

from .picture_cases import golden_pictures, scene

TOLERANCE = 1e-5
CASES = ["down", "maxres", "portrait", "same", "square16", "up", "up_odd"]


def bicubic_weights(source: int, target: int) -> Tensor:
    """The matrix (target, source) of the resampling, from its definition, in FP64."""
    scale = source / target
    stretch = max(scale, 1.0)
    weights = torch.zeros(target, source, dtype=torch.float64)
    for i in range(target):
        centre = scale * (i + 0.5)
        first = max(int(centre - 2 * stretch + 0.5), 0)
        last = min(int(centre + 2 * stretch + 0.5), source)
        for j in range(first, last):
            x = abs((j + 0.5 - centre) / stretch)
            if x < 1:
                weights[i, j] = 1.5 * x**3 - 2.5 * x**2 + 1
            elif x < 2:
                weights[i, j] = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return weights / weights.sum(dim=1, keepdim=True)


def bicubic(frames: Tensor, size: tuple[int, int]) -> Tensor:
    rows, columns = (bicubic_weights(s, t) for s, t in zip(frames.shape[-2:], size, strict=True))
    return (rows @ frames.double() @ columns.T).float()


@pytest.mark.parametrize(
    ("source", "resolution", "limit", "resized", "output", "padded"),
    [
        ((120, 212), 480, None, (480, 848), (480, 848), (480, 848)),
        ((360, 640), 1080, None, (1080, 1920), (1080, 1920), (1088, 1920)),
        ((478, 320), 720, None, (1075, 720), (1074, 720), (1088, 720)),
        ((478, 320), 1080, 1600, (1600, 1071), (1600, 1070), (1600, 1072)),
        ((719, 1279), 1080, None, (1080, 1921), (1080, 1920), (1088, 1936)),
        ((500, 501), 255, None, (255, 255), (254, 254), (256, 256)),
        ((37, 1000), 128, 1024, (38, 1024), (38, 1024), (48, 1024)),
        ((480, 854), 1080, 1920, (1079, 1920), (1078, 1920), (1088, 1920)),
        ((853, 480), 1080, 1920, (1919, 1080), (1918, 1080), (1920, 1088)),
    ],
)
def test_sizes_from_a_resolution(source, resolution, limit, resized, output, padded):
    plan = plan_resize(source, resolution=resolution, max_resolution=limit)
    assert plan == ResizePlan(source, resized)
    assert plan.output == output
    assert plan.padded == padded


@pytest.mark.parametrize(
    ("source", "scale", "limit", "resized"),
    [
        ((360, 640), 2, None, (720, 1280)),
        ((21, 30), 1.5, None, (32, 45)),
        ((23, 30), 1.5, None, (34, 45)),
        ((1080, 1920), 0.5, None, (540, 960)),
        ((1080, 1920), 2, 2560, (1440, 2560)),
        ((333, 777), 1, None, (333, 777)),
    ],
)
def test_sizes_from_a_scale(source, scale, limit, resized):
    assert plan_resize(source, scale=scale, max_resolution=limit).resized == resized


def test_sizes_are_those_of_the_reference():
    for row in golden_pictures("resize_cases")["dims/table"].tolist():
        height, width, resolution, limit = row[:4]
        plan = plan_resize((height, width), resolution=resolution, max_resolution=limit or None)
        assert [*plan.resized, *plan.output, *plan.padded] == row[4:]


@pytest.mark.parametrize("case", CASES)
def test_pictures_are_those_of_the_reference(case):
    cases = golden_pictures("resize_cases")
    frames = cases[f"{case}/in"].float()
    resolution, limit = cases[f"{case}/params"].tolist()
    source = (frames.shape[-2], frames.shape[-1])
    plan = plan_resize(source, resolution=resolution, max_resolution=limit or None)
    if case == "maxres":
        # The reference resamples this one twice; the same two steps must lead to its result.
        unlimited = plan_resize(source, resolution=resolution).resized
        frames, plan = resample(frames, unlimited), ResizePlan(unlimited, plan.resized)
    torch.testing.assert_close(resample(frames, plan.resized), cases[f"{case}/resized"], atol=TOLERANCE, rtol=0)
    actual, expected = to_model_input(frames, plan).transpose(0, 1), cases[f"{case}/transformed_cthw"]
    assert actual.shape == expected.shape
    # What fills up the rest is black there, and on purpose not here.
    height, width = plan.resized
    torch.testing.assert_close(actual[..., :height, :width], expected[..., :height, :width], atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("size", [(40, 60), (11, 13), (7, 90), (23, 31), (24, 31), (3, 2)])
def test_resampling_is_what_it_says(size):
    frames = scene(2, 23, 31)
    torch.testing.assert_close(resample(frames, size), bicubic(frames, size), atol=TOLERANCE, rtol=0)


def test_a_limit_costs_no_second_resampling():
    frames = scene(1, 20, 50)
    plan = plan_resize((20, 50), resolution=48, max_resolution=90)
    expected = bicubic(frames, (36, 90)).clamp(0, 1) * 2 - 1
    actual = crop_to_output(to_model_input(frames, plan), plan)
    torch.testing.assert_close(actual, expected, atol=2 * TOLERANCE, rtol=0)


def test_frames_of_the_right_size_are_untouched():
    frames = scene(2, 32, 48)
    assert torch.equal(resample(frames, (32, 48)), frames)


def test_input_is_clamped_and_its_edges_repeated():
    frames = torch.zeros(1, 3, 20, 20)
    frames[..., 10:] = 1.0
    assert resample(frames, (45, 45)).max() > 1.01
    plan = plan_resize((20, 20), resolution=45)
    x = to_model_input(frames, plan)
    assert x.shape == (1, 3, 48, 48)
    assert x.min() == -1
    assert x.max() == 1
    assert (x[..., :45, 44] > 0.9).all()
    assert torch.equal(x[..., 45:], x[..., 44:45].expand(-1, -1, -1, 3))
    assert torch.equal(x[..., 45:, :], x[..., 44:45, :].expand(-1, -1, 3, -1))
    assert crop_to_output(x, plan).shape == (1, 3, 44, 44)


@pytest.mark.parametrize(
    ("source", "request_", "said"),
    [
        ((0, 20), {"resolution": 48}, "at least 1 px"),
        ((20, 20), {}, "either a resolution or a scale"),
        ((20, 20), {"resolution": 48, "scale": 2.0}, "either a resolution or a scale"),
        ((20, 20), {"scale": 0.05}, "2 to 16384 px"),
        ((20, 2000), {"resolution": 1080}, "108000x1080 from 2000x20"),
        ((4, 9000), {"resolution": 16, "max_resolution": 1000}, "1000x0"),
    ],
)
def test_impossible_sizes_are_refused(source, request_, said):
    with pytest.raises(InvalidArgumentError, match=said):
        plan_resize(source, **request_)


def test_a_clip_must_keep_its_size():
    with pytest.raises(InvalidArgumentError, match="expected 30x20 like those before, got 32x20"):
        to_model_input(torch.rand(1, 3, 20, 32), plan_resize((20, 30), scale=2))
