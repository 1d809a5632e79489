"""Losses, optimiser, quantised weights and saved states of the trainer."""

import math
from pathlib import Path

import gguf
import pytest
import torch

from training import train_vae
from training.losses import LossWeights, latent_terms, picture_terms, psnr, total_loss
from training.network import initial_weights
from training.optimiser import FlatWeights, Optimiser, orthogonalised
from training.quantise import HIGH_PRECISION, fp8_rounded, q8_rounded
from training.scenes import ClipShape
from training.state import Progress, load_state, save_state


def test_picture_terms_vanish_for_a_perfect_picture_and_grow_with_the_error() -> None:
    video = torch.rand(1, 3, 5, 32, 32) * 2 - 1
    assert all(float(term) == 0 for term in picture_terms(video, video).values())
    near, far = (picture_terms(video + size * torch.randn_like(video), video) for size in (0.05, 0.2))
    assert near.keys() == {"pixel", "square", "pyramid", "chroma", "gradient", "motion", "decibel"}
    assert all(0 < near[name] < far[name] for name in near)


def test_each_term_sees_its_own_fault() -> None:
    video = torch.rand(1, 3, 5, 32, 32) * 2 - 1
    brighter = picture_terms(video + 0.1, video)
    assert brighter["pyramid"] > 0.05
    assert brighter["chroma"] == pytest.approx(0, abs=1e-6)
    assert brighter["motion"] == pytest.approx(0, abs=1e-6)
    flickering = picture_terms(video + 0.1 * torch.tensor([0, 1, 0, 1, 0.0]).view(1, 1, 5, 1, 1), video)
    assert flickering["motion"] > 0.05
    greener = picture_terms(video + 0.1 * torch.tensor([-0.5, 1, -0.5]).view(1, 3, 1, 1, 1), video)
    assert greener["chroma"] > 0.03
    # Beads of magenta and green, pixel by pixel: averaged over four pixels nothing is left of them.
    beads = torch.tensor([1.0, -1.0]).repeat(16).view(1, 1, 1, 1, 32) * torch.tensor([1, -1, 1.0]).view(1, 3, 1, 1, 1)
    assert picture_terms(video + 0.1 * beads, video)["chroma"] > 0.01


def test_latent_terms_are_least_for_a_normal_posterior() -> None:
    mean = torch.randn(4, 2, 16, 16, 16, generator=torch.Generator().manual_seed(0))
    quiet = torch.full_like(mean, -8.0)
    good, wide, shifted = (latent_terms(m, quiet, 1.0) for m in (mean, 3 * mean, mean + 1))
    assert good["spread"] < 0.01 < shifted["spread"] < wide["spread"]
    assert good["tail"] < 0.01 < wide["tail"]
    assert latent_terms(torch.zeros_like(mean), torch.zeros_like(mean), 1.0)["kl"] == 0


def test_total_loss_weighs_every_term_by_its_name() -> None:
    terms = {"pixel": torch.tensor(2.0), "kl": torch.tensor(3.0)}
    assert float(total_loss(terms, LossWeights(pixel=10, kl=0.5))) == pytest.approx(21.5)


def test_psnr_of_a_known_error() -> None:
    target = torch.zeros(1, 3, 1, 8, 8)
    assert psnr(target + 0.2, target) == pytest.approx(20.0, abs=1e-4)


@pytest.mark.parametrize("shape", [(2, 32, 864), (1, 512, 64), (3, 64, 64)])
def test_orthogonalised_matrices_have_singular_values_near_one(shape: tuple[int, int, int]) -> None:
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(1)) * 37
    values = torch.linalg.svdvals(orthogonalised(matrices, steps=7))
    assert 0.5 < float(values.min()) < float(values.max()) < 1.3


def test_one_update_moves_every_tensor_against_its_gradient() -> None:
    flat = FlatWeights(initial_weights(torch.Generator().manual_seed(0)))
    before = flat.vector.clone()
    gradient = torch.randn(before.shape, generator=torch.Generator().manual_seed(2))
    Optimiser(flat, matrix_rate=0.02, vector_rate=1e-3).step(gradient, 1.0)
    moved, slope = flat.views(flat.vector - before), flat.views(gradient)
    assert all(float((moved[name] * slope[name]).sum()) < 0 for name in moved)


def test_a_gradient_that_is_not_finite_changes_nothing() -> None:
    assert train_vae.clipped(torch.tensor([1.0, math.nan]), 1.0).tolist() == [0, 0]
    assert train_vae.clipped(torch.tensor([3.0, 4.0]), 1.0).tolist() == pytest.approx([0.6, 0.8])
    assert train_vae.clipped(torch.tensor([0.3, 0.4]), 1.0).tolist() == pytest.approx([0.3, 0.4])


def test_the_schedule_warms_up_holds_and_falls_to_zero() -> None:
    assert train_vae.learning_rate(0.0, 0) == pytest.approx(0.01)
    assert train_vae.learning_rate(0.2, 500) == 1
    assert train_vae.learning_rate(0.625, 500) == pytest.approx(0.5)
    assert train_vae.learning_rate(1.0, 500) == pytest.approx(0, abs=1e-12)


def test_q8_rounding_is_that_of_the_gguf_package_and_passes_gradients_through() -> None:
    weight = torch.randn(8, 4, 3, 3, 3, generator=torch.Generator().manual_seed(3)).requires_grad_()
    rounded = q8_rounded("decoder.conv_in.weight", weight)
    kind = gguf.GGMLQuantizationType.Q8_0
    blocks = gguf.quants.quantize(weight.detach().reshape(-1, 32).numpy(), kind)
    expected = torch.from_numpy(gguf.quants.dequantize(blocks, kind)).view_as(weight)
    torch.testing.assert_close(rounded.detach(), expected, rtol=0, atol=1e-6)
    (gradient,) = torch.autograd.grad(rounded.sum(), weight)
    assert torch.equal(gradient, torch.ones_like(weight))


@pytest.mark.parametrize("name", [*HIGH_PRECISION, "encoder.conv_in.bias"])
def test_q8_rounding_leaves_high_precision_tensors_alone(name: str) -> None:
    weight = torch.randn(32 if name.endswith("bias") else (4, 8, 1, 1, 1))
    assert q8_rounded(name, weight) is weight


def test_fp8_rounding_keeps_three_bits_of_each_number_and_passes_gradients_through() -> None:
    x = torch.randn(1, 2, 8, 8, 4, generator=torch.Generator().manual_seed(5))
    x = (x * torch.tensor([1.0, 100.0]).view(1, 2, 1, 1, 1)).requires_grad_()
    rounded = fp8_rounded(x)
    largest = x.abs().amax((2, 3, 4))
    assert torch.allclose(rounded.abs().amax((2, 3, 4)), largest), "each frame has a scale of its own"
    error = ((rounded - x).abs() / x.abs()).detach()
    normal = x.abs() > largest.view(1, 2, 1, 1, 1) * 2.0**-14
    assert 0.04 < float(error[normal].max()) <= 2.0**-4 + 1e-6
    (gradient,) = torch.autograd.grad(rounded.sum(), x)
    assert torch.equal(gradient, torch.ones_like(x))


def test_a_saved_state_comes_back(tmp_path: Path) -> None:
    vectors = {"weights": torch.randn(8_000_000), "average": torch.randn(100), "momentum": torch.randn(100)}
    save_state(tmp_path, vectors, Progress(step=7, seconds=1.5, rows=[{"step": 7.0}]))
    loaded = {name: torch.zeros_like(vector) for name, vector in vectors.items()}
    assert load_state(tmp_path, loaded) == Progress(step=7, seconds=1.5, rows=[{"step": 7.0}])
    assert torch.equal(loaded["weights"], vectors["weights"])
    torch.testing.assert_close(loaded["average"], vectors["average"], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(loaded["momentum"], vectors["momentum"], rtol=1e-2, atol=1e-4)
    assert max(path.stat().st_size for path in tmp_path.iterdir()) < 16 * 2**20


def test_a_state_without_the_vectors_asked_for_is_refused(tmp_path: Path) -> None:
    save_state(tmp_path, {"weights": torch.zeros(4)}, Progress())
    with pytest.raises(FileNotFoundError, match=r"expected files average-\*\.safetensors"):
        load_state(tmp_path, {"average": torch.zeros(4)})


def test_a_call_trains_saves_and_is_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = train_vae.Workload(
        shapes=((1.0, ClipShape(1, 1, 32, 32)),),
        canvases=1,
        canvas_px=64,
        renew_every=100,
        held_out=ClipShape(1, 5, 32, 32),
    )
    monkeypatch.setattr(train_vae, "CPU", tiny)
    first = train_vae.Settings(tmp_path / "a", seconds=1000, stop_after=0.3, device="cpu", report_every=0.2)
    train_vae.train(first)
    header = (tmp_path / "a" / "learning_curve.csv").read_text().splitlines()[0]
    assert header.startswith("step,seconds,pixel")
    assert "psnr_procedural" in header
    second = train_vae.Settings(
        tmp_path / "b", seconds=1000, stop_after=0.3, resume=first.out, device="cpu", report_every=0.2, quantise_from=0
    )
    train_vae.train(second)
    steps = [load_state(settings.out, {}).step for settings in (first, second)]
    assert 0 < steps[0] < steps[1]
