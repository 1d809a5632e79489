"""Where colour methods change over: the ends of ranges, arcs of the hue circle, and arcs with few pixels."""

from types import SimpleNamespace

import pytest
import torch

from seedvr2_engine.color import backend
from seedvr2_engine.color.methods import HUES, LEAST_PIXELS, SATURATIONS, _hue_levels, _saturation_curves
from seedvr2_engine.color.rank import LEVELS, ValueRange, to_levels, unchanging_curve
from seedvr2_engine.color.reference import LAB_RANGES
from seedvr2_engine.color.space import RGB_TO_XYZ, WHITE_X, WHITE_Z, XYZ_TO_RGB, rgb_to_lab

CPU = torch.device("cpu")


def test_every_colour_of_srgb_lies_within_the_ranges_and_they_are_no_wider() -> None:
    steps = torch.linspace(0, 1, 18)
    lab = rgb_to_lab(torch.stack(torch.meshgrid(steps, steps, steps, indexing="ij")).view(3, 1, -1))
    for values, within in zip(lab, LAB_RANGES, strict=True):
        assert within.low - 1e-3 <= values.min() < within.low + 1
        assert within.high - 1 < values.max() <= within.high + 1e-3


def test_white_is_white_and_the_matrices_are_inverse() -> None:
    to_xyz, to_rgb = torch.tensor(RGB_TO_XYZ).double(), torch.tensor(XYZ_TO_RGB).double()
    torch.testing.assert_close(to_xyz.sum(1), torch.tensor([WHITE_X, 1, WHITE_Z]).double(), atol=2e-6, rtol=0)
    torch.testing.assert_close(to_rgb @ to_xyz, torch.eye(3).double(), atol=2e-6, rtol=0)


@pytest.mark.parametrize(("value", "level"), [(0.0, 0), (1.0, LEVELS - 1), (7.0, LEVELS - 1), (-3.0, 0)])
def test_what_is_outside_has_the_first_or_the_last_level(value: float, level: int) -> None:
    assert to_levels(torch.tensor([value]), ValueRange(0, 1)).tolist() == [level]


def test_an_arc_of_hues_begins_with_its_edge() -> None:
    edges = torch.arange(HUES, dtype=torch.float32) / HUES
    hues = torch.stack([edges, edges + 0.5 / HUES], dim=1).flatten()
    hsv = torch.stack([hues, torch.zeros_like(hues), torch.ones_like(hues)])[:, None]
    assert (_hue_levels(hsv)[0] // LEVELS).tolist() == [arc for arc in range(HUES) for _ in range(2)]


def test_arcs_are_matched_that_have_pixels_enough_and_both_ends_of_the_circle_are_red() -> None:
    content, style = (torch.zeros(HUES, LEVELS, dtype=torch.int32) for _ in range(2))
    content[:, 1000], style[:, 5000] = LEAST_PIXELS + 1, LEAST_PIXELS + 1
    content[3, 1000] = LEAST_PIXELS
    style[5, 5000] = LEAST_PIXELS
    # Neither end of the circle has enough of its own.
    content[[0, -1], 1000] = style[[0, -1], 5000] = LEAST_PIXELS // 2 + 1
    curves, unchanged = _saturation_curves(content, style), unchanging_curve(SATURATIONS, CPU)
    matched = [curve[1000].item() != unchanged[1000].item() for curve in curves]
    assert matched == [arc not in (3, 5) for arc in range(HUES)]
    assert {curves[arc, 1000].item() for arc in range(HUES) if matched[arc]} == {unchanged[5000].item()}


@pytest.mark.parametrize(
    ("change", "served"),
    [
        ({}, True),
        ({"shape": (3, 8, 9)}, False),
        ({"device": torch.device("cuda", 1)}, False),
        ({"requires_grad": True}, False),
    ],
)
def test_kernels_take_pictures_of_one_shape_on_one_gpu(monkeypatch, change: dict[str, object], served: bool) -> None:
    monkeypatch.setattr(backend, "_loaded", lambda _: "kernels")
    facts = {"device": torch.device("cuda", 0), "shape": (3, 8, 8), "ndim": 3, "requires_grad": False}
    content, style = SimpleNamespace(**facts), SimpleNamespace(**{**facts, **change})
    assert backend._kernels_for(content, style) == ("kernels" if served else None)  # type: ignore[arg-type]
