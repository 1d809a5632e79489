"""What weights are measured on, and what is seen of a picture."""

from itertools import pairwise

import torch
from torch import Tensor

from seedvr2_engine.engine.accuracy import calibrate
from seedvr2_engine.engine.accuracy.sample_clips import FRAMES, sample_clips, sample_page, sample_scene
from seedvr2_engine.engine.accuracy.sensitivity import picture
from seedvr2_engine.models.vae.model import VideoVAE


def test_clips_are_in_range_and_the_same_each_time() -> None:
    clips = sample_clips(96)
    assert clips.shape == (2, 3, FRAMES, 96, 96)
    assert clips.dtype == torch.float32
    assert -1 <= clips.min() < -0.5
    assert 0.9 < clips.max() <= 1
    assert torch.equal(clips, sample_clips(96))


def test_clips_move() -> None:
    page = sample_page(96)[0, 0]
    for before, after in pairwise(page):
        assert torch.equal(after[:, :-2], before[:, 2:])
    scene = sample_scene(96)[0]
    for before, after in pairwise(scene.unbind(1)):
        assert (after - before).abs().mean() > 0.05


def test_a_picture_is_what_is_seen_of_what_was_decoded() -> None:
    decoded = torch.tensor([-3.0, -1.0, 0.0, 0.5, 1.0, 3.0], dtype=torch.float16)
    assert picture(decoded).tolist() == [0, 0, 0.5, 0.75, 1, 1]
    assert picture(decoded).dtype == torch.float32


def test_maxima_are_those_of_all_calibration_clips(tiny_vae: VideoVAE, monkeypatch) -> None:
    first, second = (torch.rand(1, 3, 1, 16, 16, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))

    def maxima(*clips: Tensor) -> dict[str, Tensor]:
        monkeypatch.setattr(calibrate, "calibration_clips", lambda: iter(clips))
        return calibrate.activation_maxima(tiny_vae)

    each, together = (maxima(first), maxima(second)), maxima(first, second)
    assert any((each[0][name] > each[1][name]).any() for name in together)
    for name, amax in together.items():
        torch.testing.assert_close(amax, torch.maximum(each[0][name], each[1][name]))
