"""Frames from the device to the host."""

import pytest
import torch

from seedvr2_engine.pipeline.to_host import on_host


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


def test_nothing_is_nothing():
    assert list(on_host([])) == []
