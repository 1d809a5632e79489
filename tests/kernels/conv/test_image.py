"""The two ends of the VAE: unfolding and folding, and that with them a 3x1x1 convolution is the 3x3x3 one."""

import torch
import torch.nn.functional as F

from seedvr2_engine.kernels import layout, reference
from seedvr2_engine.kernels.conv import image

from ..tolerances import assert_close


def test_unfold_equals_the_reference() -> None:
    picture = torch.randn(3, 2, 5, 37)
    outputs = [torch.full((2, 5, 37, 32), float("nan"), dtype=torch.float16) for _ in range(2)]
    image.unfold(picture, outputs[0])
    reference.unfold(picture, outputs[1])
    assert torch.equal(*outputs)


def test_fold_equals_the_reference() -> None:
    taps, bias = torch.randn(2, 5, 37, 32), torch.randn(3)
    # A view of a longer clip: frames are written where they belong.
    clips = [torch.full((3, 4, 5, 37), float("nan")) for _ in range(2)]
    image.fold(taps, bias, clips[0][:, 1:3])
    reference.fold(taps, bias, clips[1][:, 1:3])
    assert_close(clips[0][:, 1:3], clips[1][:, 1:3], torch.float32)
    assert clips[0][:, [0, 3]].isnan().all()


def test_unfolded_pixels_make_the_first_convolution_temporal() -> None:
    picture, weight = torch.randn(3, 4, 5, 6), torch.randn(8, 3, 3, 3, 3)
    rows = torch.empty(4, 5, 6, 32)
    reference.unfold(picture, rows)
    folded = F.conv3d(rows.permute(3, 0, 1, 2)[None], layout.unfolded_weight(weight))[0]
    assert_close(folded, F.conv3d(picture[None], weight, padding=(0, 1, 1))[0], torch.float32)


def test_folded_taps_make_the_last_convolution_temporal() -> None:
    x, weight, bias = torch.randn(8, 4, 5, 6), torch.randn(3, 8, 3, 3, 3), torch.randn(3)
    taps = F.conv3d(x[None], layout.folded_weight(weight))[0].permute(1, 2, 3, 0)
    picture = torch.empty(3, 2, 5, 6)
    reference.fold(taps, bias, picture)
    assert_close(picture, F.conv3d(x[None], weight, bias, padding=(0, 1, 1))[0], torch.float32)
