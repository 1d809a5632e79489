"""The small transformer's beginning, its losses, its data, and calls of its trainer."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from seedvr2_engine import load_vae
from training import dit_network, held_out, train_dit
from training.degrade import MILD
from training.dit_data import FrozenVAE, Pairs, Pool, Shape, make_pairs, pipeline_noise
from training.dit_losses import (
    TERMS,
    Schedule,
    latent_distance,
    restoration_terms,
    structure_distance,
    texture_distance,
)
from training.dit_network import (
    NANO_DIT,
    TEXT,
    Restorer,
    adam_count,
    initial_weights,
    is_frozen,
    is_quantised,
    muon_stacks,
    trained,
)
from training.dit_step import Batch, Learner, compare, unchanged
from training.held_out import PAN_FRAMES, panned
from training.optimiser import FlatWeights, Optimiser, Stack, StackedOptimiser
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
    restorer.load(FlatWeights(other).vector, quantised=False)
    assert all(torch.equal(restorer.leaves[name], other[name]) for name in other)
    restorer.load(FlatWeights(other).vector)
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
    expected, log_variance = vae.encode_distribution(video)
    scale = vae.config.scaling_factor
    torch.testing.assert_close(mean.permute(0, 4, 1, 2, 3), expected * scale, rtol=0, atol=1e-4)
    torch.testing.assert_close(
        deviation.permute(0, 4, 1, 2, 3), torch.exp(log_variance / 2) * scale, rtol=1e-3, atol=1e-4
    )
    torch.testing.assert_close(frozen.decode(mean), vae.decode(expected), rtol=0, atol=2e-3)


def test_pairs_hold_the_sharp_clip_and_its_latents() -> None:
    vae = FrozenVAE(VAE, torch.device("cpu"))
    sharp = torch.rand(2, 3, 1, 48, 48, generator=torch.Generator().manual_seed(8)) * 2 - 1
    pairs = make_pairs(torch.Generator().manual_seed(9), vae, sharp, 2.0, MILD)
    torch.testing.assert_close(pairs.target, vae.encode(sharp)[0])
    torch.testing.assert_close(pairs.video(), sharp, rtol=0, atol=0.005)
    assert pairs.condition.shape == pairs.target.shape == (2, 1, 6, 6, 16)
    assert float((pairs.condition - pairs.target).abs().mean()) > 0.05


def numbered_pairs(first: int, count: int) -> Pairs:
    """Pairs that hold their number everywhere; latents of 1x2x2, clips of 16x16."""
    number = (torch.arange(count) + first).view(-1, 1, 1, 1, 1)
    latent = number.float().expand(-1, 1, 2, 2, 16)
    return Pairs(latent, latent, number.byte().expand(-1, 3, 1, 16, 16))


def test_a_pool_keeps_the_newest_and_a_batch_is_drawn_from_them() -> None:
    shape = Shape(ClipShape(2, 1, 16, 16), batch=8, decoded=3, pooled=6)
    pool = Pool(shape.pooled)
    for first in range(0, 10, 2):
        pool.add(numbered_pairs(first, 2))
    assert pool.filled == pool.capacity == 6
    batch = Batch.empty(pool, shape)
    drawn: set[float] = set()
    for seed in range(10):
        batch.fill(pool, torch.Generator().manual_seed(seed))
        drawn |= set(batch.target.flatten().tolist())
        assert torch.equal(batch.target, batch.condition)
        assert torch.equal(batch.sharp[:, 0, 0, 0, 0].float(), batch.target[:3, 0, 0, 0, 0])
    assert drawn == {4, 5, 6, 7, 8, 9}
    assert batch.noise.shape == batch.target.shape == (8, 1, 2, 2, 16)
    assert 0.9 < float(batch.noise.std()) < 1.1


@pytest.mark.usefixtures("tiny")
def test_muon_s_stacks_cover_all_matrices_and_queries_keys_and_values_are_three() -> None:
    weights = initial_weights(torch.Generator().manual_seed(0))
    flat = FlatWeights(trained(weights))
    stacks = muon_stacks(weights)
    assert stacks[0].start == adam_count(weights)
    assert [s.start + s.count * s.rows * s.columns for s in stacks] == [
        *(s.start for s in stacks[1:]),
        len(flat.vector),
    ]
    found = {float(matrix[0, 0]) for stack in stacks for matrix in stack.view(flat.vector)}
    expected = {
        float(part[0, 0])
        for n, t in weights.items()
        if is_quantised(n) and n in flat.shapes
        for part in (t.chunk(3) if ".proj_qkv." in n else [t])
    }
    assert found == expected


def test_the_stacked_optimiser_is_the_plain_one_without_host() -> None:
    torch.manual_seed(1)
    shapes = {"a": (5,), "b": (7,), "c": (4, 4), "d": (4, 4), "e": (6, 4), "f": (4, 6)}
    weights = {name: torch.randn(shape) for name, shape in shapes.items()}
    plain, stacked = FlatWeights(weights), FlatWeights(weights)
    first = Optimiser(plain, matrix_rate=0.02, vector_rate=1e-2)
    stacks = [Stack(12, 2, 4, 4), Stack(44, 1, 6, 4), Stack(68, 1, 4, 6)]
    second = StackedOptimiser(stacked.vector, stacks, matrix_rate=0.02, vector_rate=1e-2)
    for _ in range(3):
        gradient = torch.randn_like(plain.vector)
        first.step(gradient, 0.7)
        second.step(gradient, torch.tensor(0.7))
    torch.testing.assert_close(stacked.vector, plain.vector, rtol=0, atol=1e-5)
    assert float(second.count) == 3


@pytest.mark.usefixtures("tiny")
def test_an_update_follows_its_controls_and_adds_up_its_terms() -> None:
    weights = initial_weights(torch.Generator().manual_seed(0))
    vector = FlatWeights(trained(weights)).vector
    optimiser = StackedOptimiser(vector, muon_stacks(weights), matrix_rate=0.02, vector_rate=1e-3)
    learner = Learner(Restorer(weights, torch.float32), FrozenVAE(VAE, torch.device("cpu")), optimiser)
    shape = Shape(ClipShape(2, 1, 32, 32), batch=2, decoded=1, pooled=2)
    pool = Pool(2)
    latent = torch.randn(2, 1, 4, 4, 16)
    pool.add(Pairs(latent, latent + 1, torch.randint(0, 256, (2, 3, 1, 32, 32), dtype=torch.uint8)))
    batch = Batch.empty(pool, shape)
    batch.fill(pool, torch.Generator().manual_seed(2))
    before, average = vector.clone(), learner.average.clone()
    with unchanged(learner.state()):
        learner.set_controls(0.0, 0.5, Schedule().weights(1.0))
        learner.update(batch)
        assert torch.equal(vector, before)
        assert learner.sums[0] == 1
    assert learner.sums[0] == 0
    losses = []
    learner.set_controls(1.0, 0.5, Schedule().weights(0.0))
    for _ in range(8):
        learner.sums.zero_()
        learner.update(batch)
        losses.append(float(learner.sums[1 + TERMS.index("latent")]))
    assert losses[-1] < losses[0] - 0.01
    assert not torch.equal(learner.average, average)
    assert float((learner.average - vector).abs().max()) > 0


def test_a_step_and_its_recording_are_compared_by_terms_and_direction() -> None:
    terms, change = torch.tensor([0.5, -4.0]), torch.tensor([1.0, 0.0])
    assert compare((terms, change), (terms, 2 * change)) == (0.0, pytest.approx(1))
    difference, cosine = compare((terms, change), (terms * 1.1, torch.tensor([0.0, 1.0])))
    assert difference == pytest.approx(0.1, rel=0.05)
    assert cosine == pytest.approx(0)


def test_weights_of_terms_come_and_go() -> None:
    schedule = Schedule(structure=0.4, structure_from=0.3, texture=0.2, texture_from=0.7)
    early, late = (dict(zip(TERMS, schedule.weights(f), strict=True)) for f in (0.0, 0.9))
    assert early["latent"] > late["latent"] > 0
    assert (early["structure"], early["texture"]) == (0, 0)
    assert (late["structure"], late["texture"]) == (0.4, 0.2)
    assert early["square"] == late["square"] == 0 < early["decibel"]


def test_structure_as_a_loss_has_finite_slopes_in_flat_places() -> None:
    output = torch.zeros(1, 3, 1, 64, 64, requires_grad=True)
    (slope,) = torch.autograd.grad(restoration_terms(output, torch.zeros_like(output))["structure"], output)
    assert bool(slope.isfinite().all())


def test_a_panned_photograph_is_the_photograph_moved_by_whole_pixels() -> None:
    still = torch.arange(3 * 60 * 80).float().view(1, 3, 1, 60, 80)
    clip = panned(still, 1)
    assert clip.shape[2] == PAN_FRAMES
    steps = clip[0, 0, 1:, 0, 0] - clip[0, 0, :-1, 0, 0]
    assert len(set(steps.tolist())) == 1
    assert all(int(pixel) in still for pixel in clip[0, 0, :, 0, 0])


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
def test_a_call_trains_measures_saves_and_is_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clips = tmp_path / "clips"
    clips.mkdir()
    for name, frames in (("choice-a", 1), ("film-b", 5)):
        numbers = np.random.default_rng(frames).integers(0, 256, (frames, 64, 64, 3), dtype=np.uint8)
        np.save(clips / f"{name}.npy", numbers)
    work = train_dit.Workload(
        shapes=(
            (0.7, Shape(ClipShape(4, 1, 32, 32), batch=4, decoded=1, pooled=4)),
            (0.3, Shape(ClipShape(2, 1, 48, 32), batch=4, decoded=4, pooled=4)),
        ),
        canvases=1,
        canvas_px=64,
        round_steps=2,
        held_out=ClipShape(1, 1, 48, 48),
    )
    monkeypatch.setattr(train_dit, "CPU", work)
    monkeypatch.setattr(held_out, "CANVAS_PX", 64)
    first = train_dit.Settings(
        tmp_path / "a", VAE, seconds=1000, stop_after=4, device="cpu", report_every=1, evaluation=clips, table=True
    )
    train_dit.train(first)
    second = replace(first, out=tmp_path / "b", resume=first.out)
    train_dit.train(second)
    before, after = (load_state(settings.out, {}) for settings in (first, second))
    assert 0 < before.step < after.step
    last = after.rows[-1]
    assert {"latent", "texture", "psnr_mild_raw", "distance_full_average"} < last.keys()
    assert last["distance_mild_ceiling"] < last["distance_mild_blurred"]
    printed = capsys.readouterr().out
    assert printed.count("film-b") == 4
    assert "choice-a" not in printed


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_a_call_on_a_gpu_records_its_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    work = replace(
        train_dit.GPU,
        shapes=(
            (0.5, Shape(ClipShape(8, 1, 128, 128), batch=8, decoded=4, pooled=16)),
            (0.5, Shape(ClipShape(4, 17, 64, 64), batch=4, decoded=1, pooled=8)),
        ),
        canvases=2,
        canvas_px=256,
        held_out=ClipShape(1, 5, 64, 64),
    )
    monkeypatch.setattr(train_dit, "GPU", work)
    train_dit.train(train_dit.Settings(tmp_path, VAE, seconds=25, stop_after=25, report_every=100))
    last = load_state(tmp_path, {}).rows[-1]
    assert last["step"] > 50
    assert last["psnr_mild_raw"] > last["psnr_mild_blurred"] - 1
    assert capsys.readouterr().out.count(": recorded;") == 2
