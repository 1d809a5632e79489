"""Degradation and compression: no shifts, no drifts, and what real codecs do."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from training import compress
from training.degrade import FULL, MILD, Strength, degrade, enlarge, transfer_functions
from training.scenes import ClipShape, SceneBank


def scene(shape: ClipShape, seed: int = 0) -> Tensor:
    return SceneBank(torch.Generator().manual_seed(seed), canvases=1, size_px=128).film(shape)


def psnr(a: Tensor, b: Tensor) -> float:
    return float(-10 * torch.log10((a - b).square().mean()))


def blob(height: int, width: int) -> Tensor:
    y, x = torch.arange(height)[:, None] - (height - 1) / 2, torch.arange(width) - (width - 1) / 2
    return torch.exp(-(x * x + y * y) / 60)


def test_degraded_clips_have_the_size_and_range_of_8_bit_video_and_repeat_with_the_seed() -> None:
    sharp = scene(ClipShape(3, 5, 48, 64))
    first, again, other = (degrade(torch.Generator().manual_seed(seed), sharp, (24, 32)) for seed in (1, 1, 2))
    assert first.shape == (3, 3, 5, 24, 32)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert 0 <= float(first.min()) <= float(first.max()) <= 1
    torch.testing.assert_close(first * 255, (first * 255).round(), rtol=0, atol=1e-4)
    assert enlarge(first, (48, 64)).shape == sharp.shape


@pytest.mark.parametrize("seed", range(6))
def test_degradation_moves_nothing_and_keeps_the_brightness(seed: int) -> None:
    picture = blob(64, 80)
    sharp = picture.expand(4, 3, 1, -1, -1) * 1.6 - 0.8
    low = degrade(torch.Generator().manual_seed(seed), sharp, (32, 40)).mean(1)[:, 0]
    back = enlarge(low[:, None, None].expand(-1, 3, 1, -1, -1), (64, 80))[:, 0, 0]
    weight = (back + 0.8).clamp_min(0.25) - 0.25
    y = torch.arange(64)[:, None] - 31.5
    x = torch.arange(80) - 39.5
    total = weight.sum((1, 2))
    assert ((weight * y).sum((1, 2)) / total).abs().max() < 0.35
    assert ((weight * x).sum((1, 2)) / total).abs().max() < 0.35
    assert (back.mean((1, 2)) - sharp[0].mean()).abs().max() < 0.06


@pytest.mark.parametrize(("strength", "low", "high"), [(MILD, 22, 40), (FULL, 12, 26)])
def test_the_full_degradation_leaves_less_than_the_mild_one(strength: Strength, low: float, high: float) -> None:
    sharp = scene(ClipShape(12, 1, 64, 64))
    back = enlarge(degrade(torch.Generator().manual_seed(3), sharp, (32, 32), strength), (64, 64))
    assert low < psnr(back / 2, sharp / 2) < high


def test_lenses_pass_the_mean_and_amplify_nothing() -> None:
    lenses = transfer_functions(
        torch.Generator().manual_seed(0), torch.linspace(0.2, 2.2, 64).view(-1, 1, 1), (32, 40), 2.2
    )
    assert lenses.shape == (64, 32, 21)
    torch.testing.assert_close(lenses[:, 0, 0], torch.ones(64), rtol=0, atol=1e-5)
    assert float(lenses.abs().max()) <= 1 + 1e-5
    assert float(lenses[:, 16, 20].abs().median()) < 0.6


@pytest.mark.parametrize("quality", [35, 75])
def test_jpeg_is_that_of_a_real_encoder(quality: int) -> None:
    grain = 0.1 * torch.randn((1, 1, 1, 50, 70), generator=torch.Generator().manual_seed(1))
    clip = ((scene(ClipShape(1, 1, 50, 70), seed=3) + 2) / 4 + grain).clamp(0, 1)
    coded = compress.jpeg(clip, torch.tensor([float(quality)]))
    file = io.BytesIO()
    pixels = (clip[0, :, 0].permute(1, 2, 0) * 255).round().byte().numpy()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality, subsampling="4:2:0")
    real = torch.from_numpy(np.array(Image.open(file)).copy()).permute(2, 0, 1) / 255
    # The step of every frequency shows in what is left of grain.
    assert psnr(coded[0, :, 0], real) > 36.5


def test_better_quality_is_closer_for_stills_and_clips() -> None:
    clip = ((scene(ClipShape(1, 5, 48, 64), seed=4) + 1) / 2).expand(2, -1, -1, -1, -1)
    for code in (compress.jpeg, compress.video_coded):
        coded = code(clip, torch.tensor([30.0, 90.0]))
        assert coded.shape == clip.shape
        assert psnr(coded[1], clip[1]) > psnr(coded[0], clip[0]) + 2


def test_a_still_scene_keeps_the_faults_of_its_first_frame() -> None:
    clip = ((scene(ClipShape(1, 1, 32, 48), seed=5) + 1) / 2).expand(1, 3, 5, -1, -1)
    coded = compress.video_coded(clip, torch.tensor([60.0]))
    still = compress.jpeg(clip[:, :, :1], torch.tensor([60.0]))
    torch.testing.assert_close(coded[:, :, :1], still, rtol=0, atol=1e-5)
    assert psnr(coded[:, :, 4:], still) > psnr(still, clip[:, :, :1]) + 2


def test_motion_is_predicted(monkeypatch: pytest.MonkeyPatch) -> None:
    picture = (scene(ClipShape(1, 1, 48, 64), seed=6) + 1) / 2
    clip = torch.cat([picture.roll(3 * time, -1) for time in range(5)], dim=2)
    quality = torch.tensor([25.0])
    coded = compress.video_coded(clip, quality)
    assert psnr(coded[:, :, 4], clip[:, :, 4]) > psnr(coded[:, :, 1], clip[:, :, 1]) - 1.5
    monkeypatch.setattr(compress, "MOTIONS", ((0, 0),))
    assert psnr(coded, clip) > psnr(compress.video_coded(clip, quality), clip) + 0.5
