"""Flicker, change, border jumps and perceptual distances, on numbers that are known by hand."""

from types import SimpleNamespace

import pytest
import torch

from seedvr2_engine.pipeline.chunks import ChunkPlan
from seedvr2_engine.quality import compare
from seedvr2_engine.quality.compare import ClipMeter, border_jumps, perceptual_distance


def measures(*levels: float) -> compare.ClipMeasures:
    meter = ClipMeter()
    for level in levels:
        meter.add(torch.full((3, 4, 4), level))
    return meter.measures()


def test_change_and_flicker_are_in_steps_of_8_bits() -> None:
    even = measures(0.1, 0.2, 0.3, 0.4)
    assert even.change == pytest.approx(25.5)
    assert even.flicker == pytest.approx(0, abs=1e-4)
    # Second differences of -0.2 and 0.2, two for four frames.
    assert measures(0.1, 0.2, 0.1, 0.2).flicker == pytest.approx(51)


def test_second_differences_are_of_the_frame_in_the_middle() -> None:
    assert measures(0.0, 0.1, 0.4).flicker == pytest.approx(0.2 * 255)


def test_a_border_s_zone_are_the_shared_frames_and_a_latent_after_them() -> None:
    plan = ChunkPlan(21, 5)
    start = plan.step
    for place, jump in ((start - 2, 1), (start - 1, 7), (start + 5 + 3, 7), (start + 5 + 4, 1)):
        changes = [1.0] * 36
        changes[place] = 7.0
        # Outside the zone it is part of what the zone is compared with.
        assert border_jumps(changes, plan)[0] == pytest.approx(jump if jump == 7 else 1 / 7), place


@pytest.mark.parametrize(("name", "attribute", "low"), [("lpips", "LPIPS", -1.0), ("dists", "DISTS", 0.0)])
def test_networks_get_pictures_in_the_range_that_they_know(monkeypatch, name: str, attribute: str, low: float) -> None:
    class Network(torch.nn.Module):
        def __init__(self, **_: object) -> None:
            super().__init__()

        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return torch.stack([a.amin(), b.amax()]).sum()

    monkeypatch.setattr(compare, "find_spec", lambda _: True)
    monkeypatch.setattr(compare, "import_module", lambda _: SimpleNamespace(**{attribute: Network}))
    distance = perceptual_distance(name, torch.device("cpu"))
    assert distance is not None
    assert distance(torch.zeros(3, 8, 8), torch.ones(3, 8, 8)) == pytest.approx(low + 1)
