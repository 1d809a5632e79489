"""Procedural clips: reproducible, moving, in range, and with the statistics they are made for."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from training.canvas import Leaves, draw_canvas, visible_leaf
from training.lines import draw_lines
from training.scenes import ClipShape, SceneBank, random_motion
from training.textures import FAMILIES, fractal_noise, texture_bank


def small_bank(seed: int) -> SceneBank:
    return SceneBank(torch.Generator().manual_seed(seed), canvases=6, size_px=128)


@pytest.fixture(scope="module")
def clips() -> torch.Tensor:
    return small_bank(1).film(ClipShape(count=24, frames=5, height=64, width=96))


def spectral_slope(images: torch.Tensor) -> float:
    """Exponent of power over frequency, between 0.03 and 0.4 cycles a pixel; images (N, H, W)."""
    height, width = images.shape[1:]
    window = torch.hann_window(height)[:, None] * torch.hann_window(width)
    images = images - images.mean((1, 2), keepdim=True)
    power = (torch.fft.fft2(images * window).abs() ** 2).mean(0)
    frequency = torch.sqrt(torch.fft.fftfreq(height)[:, None] ** 2 + torch.fft.fftfreq(width) ** 2)
    edges = np.geomspace(0.03, 0.4, 9)
    bands = [float(power[(frequency >= a) & (frequency < b)].mean()) for a, b in pairwise(edges)]
    return float(np.polyfit(np.log(np.sqrt(edges[1:] * edges[:-1])), np.log(bands), 1)[0])


def test_clips_have_the_shape_and_range_asked_for(clips: torch.Tensor) -> None:
    assert clips.shape == (24, 3, 5, 64, 96)
    assert clips.dtype == torch.float32
    assert float(clips.min()) >= -1
    assert float(clips.max()) <= 1
    assert torch.isfinite(clips).all()


def test_clips_use_the_range_of_brightness(clips: torch.Tensor) -> None:
    assert 0.25 < float(clips.std()) < 0.75
    assert float((clips.abs() > 0.999).float().mean()) < 0.15


def test_clips_have_all_three_axes_of_colour(clips: torch.Tensor) -> None:
    """A model that never sees green against magenta learns to show it as grey."""
    red, green, blue = clips.unbind(1)
    assert float((red - blue).std()) > 0.1
    assert float((green - (red + blue) / 2).std()) > 0.1


def test_most_crops_move_and_some_stand_still() -> None:
    motion = random_motion(torch.Generator().manual_seed(6), ClipShape(400, 17, 64, 64), 512.0)
    path_px = (motion.centre[:, -1] - motion.centre[:, 0]).norm(dim=1)
    assert 40 < int((path_px < 1e-3).sum()) < 120
    assert int((path_px > 4).sum()) > 200
    assert 5 < float((motion.centre[:, 1:] - motion.centre[:, :-1]).norm(dim=2).max()) < 40


def test_a_moving_crop_is_seen_in_the_clip(clips: torch.Tensor) -> None:
    change = (clips[:, :, 1:] - clips[:, :, :-1]).abs().mean((1, 2, 3, 4))
    assert int((change > 0.005).sum()) >= 12


def test_the_spectrum_falls_as_in_photographs(clips: torch.Tensor) -> None:
    """Power falls with about the second to third power of frequency in photographs."""
    assert -3.6 < spectral_slope(clips[:, :, 0].mean(1)) < -2.0


def test_one_seed_gives_one_clip_and_another_seed_another() -> None:
    shape = ClipShape(count=2, frames=1, height=32, width=32)
    first, again, other = (small_bank(seed).film(shape) for seed in (7, 7, 8))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_renewing_the_bank_redraws_one_canvas_after_the_other() -> None:
    bank = small_bank(2)
    before = bank.canvases.clone()
    bank.renew()
    changed = (bank.canvases != before).flatten(1).any(1)
    assert changed.tolist() == [True] + [False] * 5


def disc(x: float, depth: float) -> list[float]:
    return [x, 16.0, 8.0, 0.0, 1.0, 0.0, 4.0, 0.0, depth]


def test_the_nearest_leaf_hides_the_others() -> None:
    columns = torch.tensor([disc(12, 0.9), disc(20, 0.1)]).T
    leaves = Leaves(*columns)
    seen = visible_leaf(leaves, 32, [(5.0, 2)])
    assert seen[16, 16] == 1, "both discs cover the middle; the second is nearer"
    assert seen[16, 6] == 0
    assert seen[0, 0] == -1
    assert abs(int((seen == 1).sum()) - math.pi * 64) < 12


def test_canvases_are_antialiased_pictures() -> None:
    rng = torch.Generator().manual_seed(3)
    textures = texture_bank(rng, per_family=2, size_px=64)
    canvas = draw_canvas(rng, 96, textures)
    assert canvas.shape == (3, 96, 96)
    assert 0 <= float(canvas.min()) < float(canvas.max()) <= 1


def test_textures_are_standardised() -> None:
    textures = texture_bank(torch.Generator().manual_seed(4), per_family=2, size_px=64)
    assert textures.shape == (2 * len(FAMILIES), 64, 64)
    assert torch.isfinite(textures).all()
    torch.testing.assert_close(textures.mean((1, 2)), torch.zeros(14), rtol=0, atol=1e-4)
    torch.testing.assert_close(textures.std((1, 2)), torch.ones(14), rtol=0, atol=1e-3)


@pytest.mark.parametrize("slope", [0.5, 1.0, 1.5])
def test_fractal_noise_has_the_slope_asked_for(slope: float) -> None:
    noise = fractal_noise(torch.Generator().manual_seed(5), torch.full((8,), slope), 128)
    assert spectral_slope(noise) == pytest.approx(-2 * slope, abs=0.25)


def test_lines_and_letters_are_thin_sharp_and_reproducible() -> None:
    textures = texture_bank(torch.Generator().manual_seed(1), per_family=2, size_px=128)
    grey = torch.full((3, 128, 128), 0.5)
    drawn = [draw_lines(torch.Generator().manual_seed(seed), grey, textures) for seed in (1, 1, 2, 3, 4)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert torch.all(grey == 0.5), "the canvas itself is not drawn on"
    for picture in drawn:
        assert picture.shape == grey.shape
        assert 0 <= float(picture.min()) <= float(picture.max()) <= 1
        changed = ((picture - grey).abs().amax(0) > 0.02).float().mean()
        assert 0 < float(changed) < 0.8
        assert float((picture[:, :, 1:] - picture[:, :, :-1]).abs().max()) > 0.1
