"""Whole, sliced, streamed and tiled runs of one model must agree, and wrong arguments must be refused."""

import pytest
import torch

from seedvr2_engine.errors import InvalidArgumentError
from seedvr2_engine.models.precision import exact_float32
from seedvr2_engine.models.vae.causal import CausalCache
from seedvr2_engine.models.vae.model import VideoVAE, time_slices
from seedvr2_engine.models.vae.tiling import TileSpec

from ...conftest import TINY

ROUNDING = 5e-5


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.mark.parametrize("frames", [1, 5, 9, 21])
@pytest.mark.parametrize("slice_frames", [4, 8, 12, 40])
def test_sliced_equals_whole(tiny_vae, frames, slice_frames):
    video = noise(1, 3, frames, 16, 24, seed=frames)
    latent = tiny_vae.encode(video)
    torch.testing.assert_close(tiny_vae.encode(video, slice_frames=slice_frames), latent, atol=ROUNDING, rtol=0)
    whole = tiny_vae.decode(latent)
    torch.testing.assert_close(tiny_vae.decode(latent, slice_frames=slice_frames), whole, atol=ROUNDING, rtol=0)


def test_sliced_equals_whole_to_the_last_bits_in_float64():
    from ...conftest import build_tiny_vae

    vae = build_tiny_vae().double()
    video = noise(2, 3, 13, 24, 16).double()
    latent = vae.encode(video)
    assert (vae.encode(video, slice_frames=4) - latent).abs().max() < 1e-12
    assert (vae.decode(latent, slice_frames=4) - vae.decode(latent)).abs().max() < 1e-12


@pytest.mark.parametrize("slice_frames", [4, 8])
@pytest.mark.parametrize("tile", [None, TileSpec(16, 8)])
def test_streamed_equals_sliced(tiny_vae, slice_frames, tile):
    video = noise(2, 3, 13, 24, 32)
    latent = tiny_vae.encode(video, slice_frames=slice_frames, tile=tile)
    streamed = torch.stack(list(tiny_vae.stream_encode(video.unbind(2), slice_frames=slice_frames, tile=tile)), dim=2)
    assert torch.equal(streamed, latent)
    frames = torch.stack(list(tiny_vae.stream_decode(latent.unbind(2), slice_frames=slice_frames, tile=tile)), dim=2)
    assert torch.equal(frames, tiny_vae.decode(latent, slice_frames=slice_frames, tile=tile))


def test_streams_yield_before_the_clip_has_ended(tiny_vae):
    taken = []

    def frames():
        for index in range(13):
            taken.append(index)
            yield noise(1, 3, 16, 16, seed=index)

    stream = tiny_vae.stream_decode(tiny_vae.stream_encode(frames()))
    next(stream)
    assert len(taken) == 5
    assert len(list(stream)) == 12


def test_memory_of_a_stream_does_not_grow(tiny_vae):
    cache = CausalCache()
    sizes = []
    with torch.no_grad():
        for index in range(4):
            tiny_vae.decoder(noise(1, 16, 2 if index == 0 else 1, 2, 3), cache)
            sizes.append(cache.nbytes)
    assert len(set(sizes)) == 1
    assert len(cache) == 33


def test_causality(tiny_vae):
    latent = noise(1, 16, 5, 3, 4)
    changed = latent.clone()
    changed[:, :, 3:] += 1
    before, after = tiny_vae.decode(latent), tiny_vae.decode(changed)
    assert torch.equal(before[:, :, :9], after[:, :, :9])
    assert not torch.equal(before[:, :, 9], after[:, :, 9])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sixteen_bits_follow_float32(tiny_vae, dtype):
    from ...conftest import build_tiny_vae

    latent = noise(1, 16, 2, 6, 9)
    exact = tiny_vae.decode(latent)
    rough = build_tiny_vae().to(dtype).decode(latent)
    assert rough.dtype == dtype
    relative = (rough.float() - exact).norm() / exact.norm()
    assert 1e-4 < relative < {torch.bfloat16: 6e-2, torch.float16: 8e-3}[dtype]


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU here")
@pytest.mark.parametrize(("dtype", "relative"), [(torch.float32, 2e-5), (torch.float16, 8e-3), (torch.bfloat16, 6e-2)])
def test_cuda_follows_the_cpu(tiny_vae, dtype, relative):
    from ...conftest import build_tiny_vae

    vae = build_tiny_vae().to("cuda", dtype)
    video = noise(1, 3, 9, 40, 56)
    latent = tiny_vae.encode(video)
    for actual, expected in [
        (vae.encode(video), latent),
        (vae.encode(video, slice_frames=4), latent),
        (vae.decode(latent), tiny_vae.decode(latent)),
        (vae.decode(latent, slice_frames=4), tiny_vae.decode(latent)),
    ]:
        assert actual.device.type == "cuda"
        assert (actual.float().cpu() - expected).norm() / expected.norm() < relative


def test_tf32_switches_are_put_back():
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    with exact_float32():
        assert not torch.backends.cudnn.allow_tf32
        assert not torch.backends.cuda.matmul.allow_tf32
    assert (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32) == before


def test_time_slices_cover_the_clip():
    assert time_slices(5, None) == [slice(0, 5)]
    assert time_slices(1, 4) == [slice(0, 1)]
    assert time_slices(14, 4) == [slice(0, 5), slice(5, 9), slice(9, 13), slice(13, 14)]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda v: v.encode(noise(1, 3, 6, 16, 16)), r"4n\+1 frames"),
        (lambda v: v.encode(noise(1, 4, 5, 16, 16)), r"\(N, 3, T, H, W\)"),
        (lambda v: v.encode(noise(3, 5, 16, 16)), r"\(N, 3, T, H, W\)"),
        (lambda v: v.encode(noise(1, 3, 5, 4, 16)), "at least 8x8 px"),
        (lambda v: v.encode(torch.zeros(1, 3, 1, 16, 16, dtype=torch.uint8)), "floating-point"),
        (lambda v: v.encode(noise(1, 3, 5, 16, 16), slice_frames=6), "multiple of 4"),
        (lambda v: v.decode(noise(1, 16, 0, 2, 2)), "without empty axes"),
        (lambda v: v.decode(noise(1, 32, 2, 2, 2)), r"\(N, 16, T, H, W\)"),
        (lambda v: v.decode(noise(1, 16, 2, 2, 2), slice_frames=0), "multiple of 4"),
        (lambda v: list(v.stream_encode(noise(6, 1, 3, 16, 16).unbind(0))), r"4n\+1"),
        (lambda v: list(v.stream_decode(noise(2, 1, 3, 2, 2).unbind(0))), r"\(N, 16, T, H, W\)"),
        (lambda v: TileSpec(4), "at least 8 px"),
        (lambda v: TileSpec(64, 64), "less than the tile size"),
        (lambda v: TileSpec(64, 5), "0 or at least 8 px"),
        (lambda v: TileSpec((64, 32), (0, 48)), "less than the tile size"),
    ],
)
def test_wrong_arguments_are_refused(tiny_vae, call, words):
    with pytest.raises(InvalidArgumentError, match=words):
        call(tiny_vae)


def test_training_through_the_networks_keeps_gradients():
    vae = VideoVAE(TINY)
    video = noise(1, 3, 5, 16, 16)
    vae.decoder(vae.encoder(video)[:, :16]).square().mean().backward()
    assert all(p.grad is not None for p in vae.parameters() if p.requires_grad)
