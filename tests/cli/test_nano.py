"""The small transformer that ships with the package: its file, and `seedvr2 upscale --dit nano`."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from seedvr2_engine import UpscaleOptions, Upscaler, load_dit, load_text_embedding, load_vae
from seedvr2_engine.errors import InvalidArgumentError
from seedvr2_engine.loading_dit import NANO_DIT
from seedvr2_engine.video import open_sink, open_source

from ..video.made.clips import ClipSpec, ramp, write_clip
from .test_commands import seedvr2

LARGEST_BYTES = 12_000_000


def test_the_file_is_small_and_has_its_text_inside() -> None:
    assert NANO_DIT.stat().st_size <= LARGEST_BYTES
    dit, text = load_dit("nano"), load_text_embedding(NANO_DIT)
    assert (dit.config.family, dit.config.width, dit.config.layers) == ("3b", 320, 6)
    assert 8e6 < sum(parameter.numel() for parameter in dit.parameters()) < 10e6
    assert text.shape == (8, dit.config.text_width)
    assert all(bool(parameter.isfinite().all()) for parameter in dit.parameters())


def test_its_names_are_known_everywhere(tmp_path: Path) -> None:
    assert torch.equal(load_text_embedding("nano"), load_text_embedding(NANO_DIT))
    assert "SeedVR2 DiT" in seedvr2("info", NANO_DIT.name).stdout
    assert "--dit nano" in seedvr2("models").stdout
    picture = tmp_path / "in.png"
    with open_sink(picture, width=32, height=32) as sink:
        sink.write(torch.rand(3, 32, 32))
    # By its path, too, the small transformer brings the small VAE.
    result = seedvr2("upscale", picture, tmp_path / "out.png", "--dit", NANO_DIT, "--scale", "1", "--plan")
    assert "VAE nano_vae_q8_0.gguf" in " ".join(result.stdout.split())


@pytest.mark.parametrize("load", [load_vae, load_dit])
def test_a_device_that_is_not_there_is_named(load: Callable[..., object]) -> None:
    with pytest.raises(InvalidArgumentError, match="device: expected auto, cpu, cuda or cuda:N, got 'gpu'"):
        load("nano", device="gpu")
    with pytest.raises(InvalidArgumentError, match=r"expected torch\.float32, .*got 'float16'"):
        load("nano", dtype="float16")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two folders of pictures from one command."""
    folder = tmp_path_factory.mktemp("nano")
    clip = write_clip(folder / "clip.mp4", [ramp(index, 48, 32) for index in range(5)], ClipSpec("libx264", "yuv420p"))
    for name in ("a", "b"):
        result = seedvr2("upscale", clip, folder / name, "--dit", "nano", "--scale", "2", "--frames", "5")
        assert result.exit_code == 0, result.stderr
        assert "nano_dit_q8_0.gguf with its own text embedding, VAE nano_vae_q8_0.gguf" in " ".join(
            result.stderr.split()
        )
    return folder / "a", folder / "b"


def test_it_upscales_a_clip_and_repeats(results: tuple[Path, Path]) -> None:
    first, second = (sorted(folder.iterdir()) for folder in results)
    assert len(first) == len(second) == 5
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_a_smooth_picture_stays_what_it_is(results: tuple[Path, Path]) -> None:
    with open_source(results[0]) as source:
        frames = torch.stack([frame.rgb for frame in source])
    expected = torch.stack([torch.from_numpy(ramp(index, 48, 32)) for index in range(5)]).permute(0, 3, 1, 2) / 255
    small = torch.nn.functional.avg_pool2d(frames, 2)
    assert frames.shape == (5, 3, 64, 96)
    assert float((small - expected).abs().mean()) < 0.03


def test_what_fills_up_a_picture_does_not_bleed_into_it() -> None:
    picture = torch.linspace(0.5, 0.9, 60).expand(3, 36, 60)
    upscaler = Upscaler(load_dit("nano"), load_vae("nano"), UpscaleOptions(scale=1), text=load_text_embedding(NANO_DIT))
    (result,) = upscaler.upscale([picture])
    error = (result - picture).abs().mean(dim=0)
    assert float(error[:, -2:].mean()) < 0.05
    assert float(error[-2:].mean()) < 0.05
