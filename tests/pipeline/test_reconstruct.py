"""A clip of any size and length comes back with the same size and length, frame by frame."""

import pytest
import torch

from seedvr2_engine.errors import InvalidArgumentError
from seedvr2_engine.pipeline.reconstruct import reconstruct


def clip(frames: int, height: int, width: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(frames)
    return [torch.rand(3, height, width, generator=generator) for _ in range(frames)]


@pytest.mark.parametrize("frames", [1, 2, 4, 5, 6, 13])
def test_size_and_count_are_kept(tiny_vae, frames):
    out = list(reconstruct(clip(frames, 21, 30), tiny_vae))
    assert len(out) == frames
    for picture in out:
        assert picture.shape == (3, 21, 30)
        assert picture.dtype == torch.float32
        assert picture.min() >= 0
        assert picture.max() <= 1


def test_no_frames_give_no_frames(tiny_vae):
    assert list(reconstruct([], tiny_vae)) == []


def test_whole_sizes_are_exactly_the_model(tiny_vae):
    frames = clip(5, 16, 24)
    video = torch.stack(frames, dim=1)[None] * 2 - 1
    expected = (tiny_vae.decode(tiny_vae.encode(video)) * 0.5 + 0.5).clamp(0, 1)[0]
    actual = torch.stack(list(reconstruct(frames, tiny_vae)), dim=1)
    torch.testing.assert_close(actual, expected, atol=2e-5, rtol=0)


def test_padding_repeats_the_edge_and_the_last_frame(tiny_vae):
    frames = clip(3, 13, 20)
    padded = [torch.nn.functional.pad(f[None], (0, 4, 0, 3), mode="replicate")[0] for f in frames]
    by_hand = list(reconstruct([*padded, padded[-1], padded[-1]], tiny_vae))[:3]
    for actual, expected in zip(reconstruct(frames, tiny_vae), by_hand, strict=True):
        assert torch.equal(actual, expected[:, :13, :20])


def test_frames_are_taken_as_they_are_needed(tiny_vae):
    taken = []

    def source():
        for index, frame in enumerate(clip(21, 16, 16)):
            taken.append(index)
            yield frame

    stream = reconstruct(source(), tiny_vae)
    next(stream)
    assert len(taken) == 5


@pytest.mark.parametrize("second", [torch.rand(3, 16, 24), torch.rand(1, 16, 16), torch.rand(16, 16)])
def test_other_shapes_midway_are_refused(tiny_vae, second):
    with pytest.raises(InvalidArgumentError, match="frame 1: expected shape"):
        list(reconstruct([torch.rand(3, 16, 16), second], tiny_vae))


def test_numbers_that_are_none_count_as_black_and_white(tiny_vae):
    frames = torch.rand(5, 3, 16, 16, generator=torch.manual_seed(0))
    frames[1, 0, 2, 3], frames[2, :, 0], frames[4, 1] = torch.nan, torch.inf, -torch.inf
    out, expected = (list(reconstruct(each, tiny_vae)) for each in (frames, frames.nan_to_num(0, 1, 0)))
    assert torch.equal(torch.stack(out), torch.stack(expected))
    with pytest.raises(InvalidArgumentError, match="expected floating-point values"):
        list(reconstruct([torch.zeros(3, 16, 16, dtype=torch.uint8)], tiny_vae))
