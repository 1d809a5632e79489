"""What the export writes is the model that was trained, in a file that the package reads."""

from pathlib import Path

import pytest
import torch

from seedvr2_engine import load_dit, load_vae
from seedvr2_engine.checkpoint.text_embedding import load_text_embedding
from seedvr2_engine.models.dit.sampler import dit_input, sample
from training.degrade import MILD
from training.dit_measure import better_kind
from training.dit_network import NANO_DIT, TEXT, Restorer, initial_weights, trained
from training.evaluate_dit import Models, Scores, evaluate, mean, score, upscale
from training.export_dit import learned_weights, write_curve, write_gguf
from training.held_out import procedural_clips
from training.optimiser import FlatWeights
from training.scenes import ClipShape
from training.state import Progress, save_state
from training.train_dit import STORED_AS

VAE = Path(__file__).parents[2] / "seedvr2_engine" / "nano" / "nano_vae_q8_0.gguf"


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved state whose average is other weights, and better."""
    weights = initial_weights(torch.Generator().manual_seed(0))
    flat = FlatWeights(trained(weights))
    torch.manual_seed(1)
    other = flat.vector + 0.02 * torch.randn_like(flat.vector)
    vectors = {"weights": flat.vector, "average": other}
    rows = [{"distance_a_raw": 0.1, "distance_a_average": 0.3}, {"distance_a_raw": 0.2, "distance_a_average": 0.1}]
    folder = tmp_path_factory.mktemp("state")
    save_state(folder, vectors, Progress(step=5, rows=[*rows, {"latent": 0.5}]), stored_as=STORED_AS)
    return folder


def test_the_file_is_the_trained_model_with_its_text(state: Path, tmp_path: Path) -> None:
    weights, progress, kind = learned_weights(state)
    assert (progress.step, kind) == (5, "average")
    path = tmp_path / "nano.gguf"
    write_gguf(weights, path)
    assert [file.name for file in tmp_path.iterdir()] == ["nano.gguf"]
    assert path.stat().st_size < 12_000_000
    dit, text = load_dit(path), load_text_embedding(path)
    assert dit.config == NANO_DIT
    torch.testing.assert_close(text, weights[TEXT])
    restorer = Restorer(weights, torch.float32)
    restorer.load(FlatWeights(trained(weights)).vector)
    torch.manual_seed(2)
    condition, noise = torch.randn(2, 1, 5, 6, 4, 16)
    with torch.no_grad():
        expected = restorer.restore(condition, noise)
        found = sample(lambda noisy, time: dit(dit_input(noisy, condition), text, time), noise)
    assert float((found - expected).square().mean().sqrt() / expected.std()) < 0.01
    assert float((found - condition).abs().mean()) > 0.05, "the model changes nothing, so this test shows nothing"


def test_the_better_weights_are_those_of_the_last_measurement() -> None:
    with pytest.raises(ValueError, match="found none"):
        better_kind([{"latent": 1.0}])
    assert better_kind([{"distance_a_raw": 0.1, "distance_a_average": 0.2}]) == "raw"


def test_the_curve_is_a_row_a_report(tmp_path: Path) -> None:
    write_curve(Progress(rows=[{"step": 1.0}, {"step": 2.0, "latent": 0.5}]), tmp_path / "curve.csv")
    assert (tmp_path / "curve.csv").read_text().splitlines() == ["step,latent", "1.0,", "2.0,0.5"]


def test_an_untrained_model_gives_the_vae_s_own_picture_and_is_scored(tmp_path: Path) -> None:
    path = tmp_path / "nano.gguf"
    write_gguf(initial_weights(torch.Generator().manual_seed(0)), path)
    models = Models(load_dit(path), load_vae(VAE), load_text_embedding(path))
    enlarged = torch.rand(1, 3, 1, 32, 48, generator=torch.Generator().manual_seed(3)) * 2 - 1
    plain = models.vae.decode(models.vae.encode(enlarged)).clamp(-1, 1)
    assert float((upscale(models, enlarged, "none") - plain).abs().mean()) < 0.02
    clips = procedural_clips(ClipShape(2, 1, 48, 48), torch.device("cpu"))
    rows = list(evaluate(models, clips.items(), MILD, "lab"))
    assert [name for name, _, _ in rows] == ["procedural 1", "procedural 2"]
    assert all(ours.distance > bicubic.distance for _, bicubic, ours in rows)
    assert mean([Scores(1.0, 0.5, 0.0), Scores(3.0, 0.7, 0.2)]).psnr_db == 2
    assert score(enlarged, enlarged).ssim == pytest.approx(1)
