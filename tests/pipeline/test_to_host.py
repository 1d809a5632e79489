"""Frames from the device to the host."""

import pytest
import torch

from seedvr2_engine.pipeline.to_host import on_host, staged


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def test_frames_arrive_in_order_as_they_were(device):
    """Also where the caller keeps them all, their sizes change, and what they were read from is written over."""
    shapes = [(3, 4, 6), (3, 4, 6), (4, 4, 6), (3, 8, 2), (3, 8, 2)] + [(3, 40, 60)] * 7
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs an NVIDIA GPU")
    exact = [torch.rand(shape, generator=torch.Generator().manual_seed(i)) for i, shape in enumerate(shapes)]
    reused = torch.zeros(3 * 40 * 60, device=device)

    def frames():
        for frame in exact:
            view = reused[: frame.numel()].view(frame.shape)
            view.copy_(frame)
            yield view if device == "cuda" else view.clone()

    arrived = list(on_host(frames()))
    assert [frame.device.type for frame in arrived] == ["cpu"] * len(exact)
    assert not any(frame.is_pinned() for frame in arrived if device == "cuda")
    assert all(torch.equal(a, b) for a, b in zip(arrived, exact, strict=True))


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU")
def test_page_locked_frames_keep_their_values_and_are_not_written_over():
    exact = [torch.full((3, 40, 60), float(i)) for i in range(9)]
    arrived = list(on_host((frame.cuda() for frame in exact), is_pinned=True))
    assert all(frame.is_pinned() for frame in arrived)
    assert all(torch.equal(a, b) for a, b in zip(arrived, exact, strict=True))


def test_nothing_is_nothing():
    assert list(on_host([])) == []


def test_frames_on_the_cpu_are_given_out_as_they_are():
    frames = [torch.rand(3, 4, 6) for _ in range(3)]
    assert all(a is b for a, b in zip(on_host(frames), frames, strict=True))
    assert all(a is b for a, b in zip(staged(frames, 8), frames, strict=True))


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU")
def test_staged_memory_is_used_again_and_the_last_frames_are_announced():
    exact = [torch.full((3, 40, 60), float(i)) for i in range(9)]
    announced, places = [], set()

    for index, frame in enumerate(staged((frame.cuda() for frame in exact), 4, while_waiting=announced.append)):
        places.add(frame.data_ptr())
        assert torch.equal(frame, exact[index])
    assert len(places) == 4
    assert all(0 <= before < 3 for before in announced)
