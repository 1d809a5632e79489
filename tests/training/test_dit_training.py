"""The small transformer's beginning, its losses, its data, and calls of its trainer."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from seedvr2_engine import load_vae
from training import dit_network, train_dit
from training.dit_data import FrozenVAE, Pairs, Pool, make_pairs, pipeline_noise
from training.dit_losses import latent_distance, restoration_terms, structure_distance, texture_distance
from training.dit_network import (
    NANO_DIT,
    TEXT,
    Restorer,
    adam_count,
    initial_weights,
    is_frozen,
    is_quantised,
    trained,
)
from training.optimiser import FlatWeights
from training.quantise import q8_rounded
from training.scenes import ClipShape
from training.state import Progress, load_state, save_state

VAE = Path(__file__).parents[2] / "training" / "weights" / "nano_vae_f16.safetensors"


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same network with narrow layers, for tests that train."""
    config = replace(NANO_DIT, width=192, layers=2, heads=1, mlp_width=64)
    monkeypatch.setattr(dit_network, "NANO_DIT", config)


def test_the_model_has_the_size_that_was_asked_for() -> None:
    weights = initial_weights(torch.Generator().manual_seed(0))
    assert {name: tuple(t.shape) for name, t in weights.items() if name != TEXT} == NANO_DIT.tensor_shapes()
    assert 8e6 < sum(t.numel() for t in weights.values()) < 10e6
    assert {name for name in weights if is_quantised(name)} == {
        name
        for name, t in weights.items()
        if t.ndim == 2 and (".attn.proj_" in name or ".mlp." in name or name.startswith("emb_in."))
    }


@pytest.mark.parametrize("shape", [(2, 1, 4, 6), (1, 6, 4, 4)])
def test_training_begins_with_the_condition_as_result(shape: tuple[int, ...]) -> None:
    restorer = Restorer(initial_weights(torch.Generator().manual_seed(0)), torch.float32)
    condition = 1.5 * torch.randn((*shape, 16), generator=torch.Generator().manual_seed(1))
    noise = torch.randn((*shape, 16), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        output = restorer.restore(condition, noise)
    assert float((output - condition).square().mean()) < 1e-4


@pytest.mark.usefixtures("tiny")
def test_every_trained_tensor_has_a_gradient_and_adam_comes_first() -> None:
    weights = initial_weights(torch.Generator().manual_seed(0))
    weights |= {name: t + 0.02 * torch.randn_like(t) for name, t in trained(weights).items()}
    restorer = Restorer(weights, torch.float32)
    condition, noise = torch.randn(2, 1, 2, 4, 4, 16)
    leaves = list(restorer.leaves.values())
    gradients = torch.autograd.grad(restorer.restore(condition, noise).square().mean(), leaves, allow_unused=True)
    without = {name for name, g in zip(restorer.leaves, gradients, strict=True) if g is None or not g.any()}
    # The last block asks for the text's keys and values only, and block 0 alone has separate weights.
    assert without == set()
    assert not any(is_frozen(name) for name in restorer.leaves)
    first = sum(t.numel() for name, t in restorer.leaves.items() if not is_quantised(name))
    assert adam_count(weights) == first
    assert [is_quantised(name) for name in restorer.leaves] == sorted(map(is_quantised, restorer.leaves))


@pytest.mark.usefixtures("tiny")
def test_loaded_weights_are_rounded_only_when_asked() -> None:
    weights = initial_weights(torch.Generator().manual_seed(0))
    restorer = Restorer(weights, torch.float32)
    other = {name: t + 0.1 * torch.randn_like(t) for name, t in trained(weights).items()}
    restorer.load(other, quantised=False)
    assert all(torch.equal(restorer.leaves[name], other[name]) for name in other)
    restorer.load(other, quantised=True)
    name = "blocks.1.mlp.all.proj_in.weight"
    assert torch.equal(restorer.leaves[name], q8_rounded(name, other[name]))
    assert not torch.equal(restorer.leaves[name], other[name])
    assert torch.equal(restorer.leaves["vid_in.proj.weight"], other["vid_in.proj.weight"])


def test_distances_vanish_for_equal_clips_and_see_blur_and_noise() -> None:
    sharp = torch.rand(1, 3, 2, 64, 64, generator=torch.Generator().manual_seed(3)) * 2 - 1
    soft = F.avg_pool2d(sharp[0].transpose(0, 1), 3, 1, 1).transpose(0, 1)[None]
    noisy = sharp + 0.2 * torch.randn(sharp.shape, generator=torch.Generator().manual_seed(4))
    assert structure_distance(sharp, sharp) < 1e-6
    assert structure_distance(soft, sharp) > 0.1
    assert structure_distance(noisy, sharp) > 0.01
    assert float(latent_distance(sharp, sharp)) == 0 < float(latent_distance(soft, sharp))
    assert {"pixel", "texture"} < restoration_terms(soft, sharp).keys()


def test_texture_is_compared_by_strength_and_not_by_place() -> None:
    sharp = torch.rand(1, 3, 1, 128, 128, generator=torch.Generator().manual_seed(5)) * 2 - 1
    elsewhere = torch.rand(sharp.shape, generator=torch.Generator().manual_seed(6)) * 2 - 1
    weaker = sharp * 0.7
    assert float(texture_distance(sharp, sharp)) == 0
    assert float(texture_distance(elsewhere, sharp)) < 0.5 * float(texture_distance(weaker, sharp))
    assert float((elsewhere - sharp).abs().mean()) > 2 * float((weaker - sharp).abs().mean())


def test_the_frozen_vae_is_the_package_s_with_the_pipeline_s_scaling() -> None:
    frozen, vae = FrozenVAE(VAE, torch.device("cpu")), load_vae(VAE)
    video = torch.rand(1, 3, 5, 32, 32, generator=torch.Generator().manual_seed(7)) * 2 - 1
    mean, deviation = frozen.encode(video)
    expected, log_variance = vae.encode(video, return_distribution=True)
    scale = vae.config.scaling_factor
    torch.testing.assert_close(mean.permute(0, 4, 1, 2, 3), expected * scale, rtol=0, atol=1e-4)
    torch.testing.assert_close(
        deviation.permute(0, 4, 1, 2, 3), torch.exp(log_variance / 2) * scale, rtol=1e-3, atol=1e-4
    )
    torch.testing.assert_close(frozen.decode(mean), vae.decode(expected), rtol=0, atol=2e-3)


def test_pairs_hold_the_sharp_clip_and_its_latents() -> None:
    vae = FrozenVAE(VAE, torch.device("cpu"))
    sharp = torch.rand(2, 3, 1, 48, 48, generator=torch.Generator().manual_seed(8)) * 2 - 1
    pairs = make_pairs(torch.Generator().manual_seed(9), vae, sharp, 2.0)
    torch.testing.assert_close(pairs.target, vae.encode(sharp)[0])
    torch.testing.assert_close(pairs.video(), sharp, rtol=0, atol=0.005)
    assert pairs.condition.shape == pairs.target.shape == (2, 1, 6, 6, 16)
    assert float((pairs.condition - pairs.target).abs().mean()) > 0.05


def test_a_pool_keeps_the_newest_and_draws_no_clip_twice() -> None:
    pool = Pool(batch=2)
    for first in range(0, 10, 2):
        number = torch.arange(first, first + 2).view(2, 1, 1, 1, 1).float()
        pool.add(Pairs(number, number, number.byte()))
    assert pool.filled == pool.capacity == 6
    drawn = [pool.draw(torch.Generator().manual_seed(seed)) for seed in range(40)]
    assert {float(x) for pairs in drawn for x in pairs.target.flatten()} == {4, 5, 6, 7, 8, 9}
    assert all(len(set(pairs.target.flatten().tolist())) == 2 for pairs in drawn)
    assert all(torch.equal(pairs.target, pairs.condition) for pairs in drawn)


def test_noise_to_measure_with_is_the_pipeline_s() -> None:
    noise = pipeline_noise(42, (2, 3, 4, 5), torch.device("cpu"))
    assert noise.shape == (2, 3, 4, 5, 16)
    assert torch.equal(noise[0], noise[1])


def test_a_saved_state_is_eight_files_below_16_mib(tmp_path: Path) -> None:
    weights = initial_weights(torch.Generator().manual_seed(0))
    vector = FlatWeights(trained(weights)).vector
    vectors = {"weights": vector, "average": vector, "momentum": vector, "square": vector[: adam_count(weights)]}
    save_state(tmp_path, vectors, Progress(), stored_as=train_dit.STORED_AS)
    sizes = [path.stat().st_size for path in tmp_path.iterdir()]
    assert len(sizes) == 8
    assert max(sizes) < 16 << 20


@pytest.mark.usefixtures("tiny")
def test_a_call_trains_measures_saves_and_is_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = train_dit.Workload(
        shapes=((0.7, ClipShape(4, 1, 32, 32)), (0.3, ClipShape(4, 1, 48, 32))),
        canvases=1,
        canvas_px=64,
        renew_every=100,
        held_out=ClipShape(1, 1, 48, 48),
    )
    monkeypatch.setattr(train_dit, "CPU", work)
    first = train_dit.Settings(
        tmp_path / "a", VAE, seconds=1000, stop_after=1, device="cpu", report_every=0.5, pictures_from=0
    )
    train_dit.train(first)
    second = replace(first, out=tmp_path / "b", resume=first.out, sharper_from=0, quantise_from=0)
    train_dit.train(second)
    before, after = (load_state(settings.out, {}) for settings in (first, second))
    assert 0 < before.step < after.step
    last = after.rows[-1]
    assert {"latent", "texture", "psnr_procedural_raw", "distance_procedural_average"} < last.keys()
    assert last["distance_procedural_ceiling"] < last["distance_procedural_blurred"]


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_a_call_on_a_gpu_trains_in_16_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = replace(
        train_dit.GPU,
        shapes=((0.5, ClipShape(8, 1, 128, 128)), (0.5, ClipShape(4, 17, 64, 64))),
        canvases=2,
        canvas_px=256,
        held_out=ClipShape(1, 5, 64, 64),
    )
    monkeypatch.setattr(train_dit, "GPU", work)
    train_dit.train(train_dit.Settings(tmp_path, VAE, seconds=8, stop_after=8, report_every=100))
    last = load_state(tmp_path, {}).rows[-1]
    assert last["step"] > 10
    assert last["psnr_procedural_raw"] > last["psnr_procedural_blurred"] - 1
