"""What a CPU computes frame by frame must be the 3-D convolution, however a clip is cut."""

import pytest
import torch
from torch import Tensor

from seedvr2_engine.models.vae import convolution
from seedvr2_engine.models.vae.blocks import FrameGroupNorm
from seedvr2_engine.models.vae.causal import CausalCache, CausalConv3d, causal_conv3x3x3

# Large enough for groups of four, and with a last band that is not whole.
LARGE = (90, 90)
SMALL = (5, 7)


def picture_rate(channels_in: int, channels_out: int) -> CausalConv3d:
    conv = causal_conv3x3x3(channels_in, channels_out)
    conv.frames_per_latent = 4
    return conv


CONVOLUTIONS = {
    "picture rate": lambda: picture_rate(16, 24),
    "latent rate": lambda: causal_conv3x3x3(16, 24),
    "few channels": lambda: picture_rate(3, 16),
    "halving time": lambda: CausalConv3d(16, 16, kernel_size=3, stride=2),
    "halving space": lambda: CausalConv3d(16, 16, kernel_size=(1, 3, 3), stride=(1, 2, 2)),
    "one position": lambda: CausalConv3d(16, 8, kernel_size=1),
}


def noise(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.parametrize("size", [LARGE, SMALL])
@pytest.mark.parametrize("frames", [1, 2, 5, 9, 12])
@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_it_is_the_3d_convolution(kind, frames, size, monkeypatch):
    if frames == 5:  # As on a CPU without AVX.
        monkeypatch.setattr(convolution, "_has_onednn", lambda: False)
    torch.manual_seed(0)
    conv = CONVOLUTIONS[kind]()
    x = noise(2, conv.in_channels, frames, *size)
    expected = CausalConv3d.forward(conv.double(), x.double()).detach()
    with torch.no_grad():
        actual = conv.float()(x)
    torch.testing.assert_close(actual.double(), expected, atol=2e-5, rtol=0)


@pytest.mark.parametrize("has_onednn", [True, False])
@pytest.mark.parametrize("size", [LARGE, SMALL])
@pytest.mark.parametrize("kind", [kind for kind in CONVOLUTIONS if kind != "halving time"])
def test_cuts_change_no_bit(kind, size, has_onednn, monkeypatch):
    if has_onednn and not convolution._has_onednn():
        pytest.skip("no oneDNN for x86 here")
    monkeypatch.setattr(convolution, "_has_onednn", lambda: has_onednn)
    torch.manual_seed(0)
    conv = CONVOLUTIONS[kind]()
    x = noise(1, conv.in_channels, 13, *size)
    with torch.no_grad():
        whole = conv(x)
        for first in (5, 9):
            cache = CausalCache()
            parts = [conv(part, cache) for part in x.tensor_split([first, first + 4], dim=2) if part.shape[2]]
            assert torch.equal(torch.cat(parts, dim=2), whole)


def test_without_gradients_frames_are_taken_and_with_them_not():
    conv = causal_conv3x3x3(4, 4)
    assert not convolution.takes_frames(conv, noise(1, 4, 1, 4, 4))
    with torch.no_grad():
        assert convolution.takes_frames(conv, noise(1, 4, 1, 4, 4))
        assert not convolution.takes_frames(conv, noise(1, 4, 1, 4, 4).bfloat16())


@pytest.mark.parametrize("size", [LARGE, SMALL])
def test_a_mean_far_from_zero_costs_the_norm_no_digits(size):
    norm = FrameGroupNorm(8, 16, eps=1e-6)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    x = (noise(2, 16, 3, *size) + 100).contiguous(memory_format=torch.channels_last_3d)
    expected = norm.double()(x.double()).detach()
    with torch.no_grad():
        torch.testing.assert_close(norm.float()(x).double(), expected, atol=1e-4, rtol=0)
