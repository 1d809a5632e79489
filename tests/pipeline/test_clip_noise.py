"""The noises of a clip: none repeats another, and the reference's are its own."""

import pytest
import torch

from seedvr2_engine.pipeline.clip_noise import ClipNoise

CPU = torch.device("cpu")
SIZE = (24, 32)


def drawn(noise: ClipNoise) -> list[torch.Tensor]:
    """Start, condition and picture noise of the first three, (24, 32, 3) each."""
    start, condition = noise.of_latents(range(3), SIZE, 3, torch.float32)
    pictures = [picture.movedim(0, -1) for picture in noise.of_pictures(range(3), SIZE)]
    return [*start, *condition, *pictures]


@pytest.mark.parametrize("kind", ["position", "reference"])
def test_no_noise_of_a_clip_resembles_another(kind):
    likeness = torch.corrcoef(torch.stack([noise.flatten() for noise in drawn(ClipNoise(7, kind, CPU))]))
    assert (likeness - torch.eye(9)).abs().max() < 0.1


def test_picture_noise_of_the_reference_has_the_seed_that_it_has_there():
    for seed, count, expected_seed in ((42, 2, 1_000_042), ((1 << 64) - 1, 1, 999_999)):  # The largest wraps around.
        generator = torch.Generator().manual_seed(expected_seed)
        expected = torch.empty(count, 3, *SIZE).transpose(0, 1).normal_(generator=generator).transpose(0, 1) * 0.025
        pictures = ClipNoise(seed, "reference", CPU).of_pictures(range(count), SIZE)
        assert torch.equal(torch.stack(list(pictures)), expected)
