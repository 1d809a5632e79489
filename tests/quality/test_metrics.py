"""PSNR and SSIM against scikit-image and against cases that are known by hand."""

import math

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from seedvr2_engine.errors import InvalidArgumentError
from seedvr2_engine.quality.metrics import QualityMeter, psnr, ssim


def pair(height: int, width: int, noise: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.linspace(0, 3, height), torch.linspace(0, 4, width), indexing="ij")
    a = torch.stack((torch.sin(x) ** 2, torch.cos(y) ** 2, (x * y) / 12))
    return a, (a + noise * torch.randn(3, height, width, generator=generator)).clamp(0, 1)


@pytest.mark.parametrize("size", [(11, 11), (40, 53), (64, 31)])
@pytest.mark.parametrize("noise", [0.005, 0.05, 0.3])
def test_equal_to_scikit_image(size, noise):
    a, b = pair(*size, noise)
    a64, b64 = a.double().numpy(), b.double().numpy()
    expected = structural_similarity(
        a64, b64, channel_axis=0, data_range=1, gaussian_weights=True, use_sample_covariance=False
    )
    assert ssim(a, b) == pytest.approx(expected, abs=1e-9)
    assert psnr(a, b) == pytest.approx(peak_signal_noise_ratio(a64, b64, data_range=1), abs=1e-9)


def test_equal_pictures_are_perfect():
    a, _ = pair(20, 20, 0)
    assert ssim(a, a) == pytest.approx(1, abs=1e-12)
    assert math.isinf(psnr(a, a))


def test_what_is_not_a_number_is_not_perfect():
    a, _ = pair(20, 20, 0)
    assert math.isnan(psnr(a * math.nan, a))


def test_psnr_of_a_known_error():
    assert psnr(torch.full((3, 12, 12), 0.5), torch.full((3, 12, 12), 0.6)) == pytest.approx(20, abs=1e-5)


def test_half_precision_is_compared_without_overflow():
    a, b = pair(20, 20, 0.1)
    assert psnr(a.half(), b.half()) == pytest.approx(psnr(a, b), abs=0.01)
    assert ssim(a.half(), b.half()) == pytest.approx(ssim(a, b), abs=1e-3)


def test_the_meter_sums_squared_errors_over_the_clip():
    meter = QualityMeter()
    pairs = [pair(24, 32, noise, seed) for seed, noise in enumerate((0.02, 0.2, 0.05))]
    frames = [meter.add(b, a) for a, b in pairs]
    summary = meter.summary()
    together = np.stack([a.numpy() for a, _ in pairs]), np.stack([b.numpy() for _, b in pairs])
    assert summary.frames == 3
    assert summary.psnr_db == pytest.approx(peak_signal_noise_ratio(*together, data_range=1), abs=1e-5)
    assert summary.mean_psnr_db == pytest.approx(sum(f.psnr_db for f in frames) / 3)
    assert summary.min_psnr_db == frames[1].psnr_db
    assert summary.min_ssim == frames[1].ssim
    assert summary.mean_ssim == pytest.approx(sum(f.ssim for f in frames) / 3)
    assert "PSNR" in summary.describe()
    assert "SSIM" in summary.describe()


def test_small_pictures_have_no_ssim():
    meter = QualityMeter()
    assert meter.add(torch.zeros(3, 8, 40), torch.ones(3, 8, 40)).ssim is None
    summary = meter.summary()
    assert (summary.psnr_db, summary.mean_ssim, summary.min_ssim) == (0.0, None, None)
    assert "SSIM" not in summary.describe()
    with pytest.raises(InvalidArgumentError, match="at least 11 pixels"):
        ssim(torch.zeros(3, 8, 40), torch.zeros(3, 8, 40))


def test_bad_arguments_are_refused():
    with pytest.raises(InvalidArgumentError, match="one shape"):
        psnr(torch.zeros(3, 12, 12), torch.zeros(3, 12, 13))
    with pytest.raises(InvalidArgumentError, match="floating point"):
        ssim(torch.zeros(3, 12, 12, dtype=torch.uint8), torch.zeros(3, 12, 12, dtype=torch.uint8))
    with pytest.raises(InvalidArgumentError, match="at least one frame"):
        QualityMeter().summary()


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_equal_on_the_gpu():
    a, b = pair(40, 53, 0.1)
    assert ssim(a.cuda(), b.cuda()) == pytest.approx(ssim(a, b), abs=1e-9)
    assert psnr(a.cuda(), b.cuda()) == pytest.approx(psnr(a, b), abs=1e-9)
