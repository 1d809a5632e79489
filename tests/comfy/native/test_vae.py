"""The VAE for ComfyUI's own SeedVR2 nodes, against that VAE's protocol."""

import shutil
import sys
import types

import pytest
import torch

from seedvr2_engine.engine import reference_backend
from seedvr2_engine.engine.optimize import serve_on
from seedvr2_engine.engine.settings import Settings
from seedvr2_engine.errors import DeviceMemoryError, InvalidArgumentError
from seedvr2_engine.loading import load_vae
from seedvr2_engine.plan.gpus import find_gpu

from ...conftest import GOLDEN
from ..stub import InterruptedByUserError
from .native_stub import NativeModel, NativeVAE

CPU = torch.device("cpu")
TINY = GOLDEN / "vae_tiny.safetensors"


@pytest.fixture(scope="module")
def plain():
    return load_vae(TINY)


@pytest.fixture
def native(comfyui, plain):
    return NativeVAE(NativeModel(plain), comfyui.management)


def engine_vae(nodes, vae=None, **inputs):
    return nodes["SeedVR2EngineVAE"].execute(**{"model": "connected", "vae": vae, **inputs}).args[0]


def picture(*size):
    return torch.rand(*size, generator=torch.manual_seed(3))


@pytest.mark.parametrize("size", [(6, 16, 24, 3), (1, 24, 16, 4), (2, 5, 16, 16, 3)])
def test_encode_and_decode_are_the_native_ones(nodes, native, size):
    ours = engine_vae(nodes, native)
    expected = native.encode(picture(*size))
    found = ours.encode(picture(*size))
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(ours.decode(expected), native.decode(expected), atol=1e-5, rtol=0)
    flat = expected.reshape(len(expected), -1, *expected.shape[-2:])
    torch.testing.assert_close(ours.decode(flat), native.decode(flat), atol=1e-5, rtol=0)


# The last tile is shorter than two overlaps in both directions.
@pytest.mark.parametrize(("tile", "overlap"), [(32, 16), (32, 24), (512, 128)])
def test_tiles_are_cut_and_blended_as_natively(nodes, native, tile, overlap):
    ours = engine_vae(nodes, native)
    image = picture(1, 40, 56, 3)
    expected = native.encode_tiled(image, tile, overlap)
    torch.testing.assert_close(ours.encode_tiled(image, tile, overlap), expected, atol=1e-5, rtol=0)
    pictures = native.decode_tiled(expected, tile // 8, overlap // 8)
    torch.testing.assert_close(ours.decode_tiled(expected, tile // 8, overlap // 8), pictures, atol=1e-5, rtol=0)


def test_whole_frames_where_tiles_were_asked_for(nodes, native):
    ours = engine_vae(nodes, native, whole_frames=True)
    image = picture(5, 40, 40, 3)
    latent = native.encode(image)
    torch.testing.assert_close(ours.encode_tiled(image, 32, 16), latent, atol=1e-5, rtol=0)
    torch.testing.assert_close(ours.decode_tiled(latent, 4, 2), native.decode(latent), atol=1e-5, rtol=0)


def test_the_native_object_stays_as_it_is(nodes, native):
    before = dict(vars(native))
    ours = engine_vae(nodes, native)
    ours.encode(picture(1, 16, 16, 3))
    assert vars(native) == before
    assert native.first_stage_model.calls == []
    assert ours.memory_used_decode((1, 16, 2, 90, 160), torch.float16) > 1
    assert ours.memory_used_encode((1, 3, 5, 720, 1280), torch.float16) > 1
    assert ours.get_sd().keys() == native.get_sd().keys()
    assert ours.first_stage_model.preferred_decode_tile(1 << 20, torch.float16) == 32
    assert ours.first_stage_model.preferred_decode_tile(1 << 50, torch.float16) == 96
    # What is made of ours is made of the same weights.
    again = engine_vae(nodes, ours, whole_frames=True)
    assert torch.equal(again.encode(picture(1, 16, 16, 3)), ours.encode(picture(1, 16, 16, 3)))


def test_it_is_in_the_books_and_comes_back(nodes, native, comfyui):
    ours = engine_vae(nodes, native)
    assert ours.patcher.loaded_size() == 0
    latent = ours.encode(picture(1, 16, 16, 3))
    assert ours.patcher.loaded_size() > 0
    assert any(entry.model is ours.patcher for entry in comfyui.management.current_loaded_models)
    comfyui.management.unload_all_models()
    assert ours.patcher.loaded_size() == 0
    assert torch.equal(ours.encode(picture(1, 16, 16, 3)), latent)


def test_progress_and_the_button(nodes, native, comfyui):
    ours = engine_vae(nodes, native)
    latent = ours.encode(picture(9, 16, 16, 3))
    assert comfyui.bars[-1].updates[-1][:2] == (1000, 1000)
    comfyui.management.countdown = 2
    with pytest.raises(InterruptedByUserError):
        ours.decode(latent)
    assert len(comfyui.bars[-1].updates) == 2
    assert ours.decode(latent).shape == (1, 9, 16, 16, 3)
    assert comfyui.bars[-1].updates[-1][0] == 1000


def test_want_of_memory_is_said_in_comfyuis_way(nodes, native, monkeypatch):
    ours = engine_vae(nodes, native)
    latent = ours.encode(picture(1, 16, 16, 3))

    def refuse(*_, **__):
        raise DeviceMemoryError("too little")

    monkeypatch.setattr(ours.first_stage_model.vae.served.server, "stream_decode", refuse)
    with pytest.raises(torch.OutOfMemoryError, match="too little"):
        ours.decode(latent)


def test_the_engine_computes_it(nodes, native, monkeypatch):
    """Its kernels' references stand in for a GPU."""
    asked = []

    def entry(vae, *, device, precision, enable_fp8, verbose):
        asked.append((precision, enable_fp8))
        settings = Settings(precision=precision, enable_fp8=enable_fp8, min_psnr_db=None)
        return serve_on(vae.float(), settings, find_gpu("h200"), CPU, reference_backend)

    monkeypatch.setattr("seedvr2_engine.comfy.native.vae_object.optimize_3d_vae_for_blackwell", entry)
    image = picture(5, 40, 24, 3)
    expected = native.encode(image)
    for precision, enables in (("auto", False), ("fp8", True)):
        ours = engine_vae(nodes, native, precision=precision)
        latent = ours.encode(image)
        assert ours.first_stage_model.vae.served.is_engine
        error = (latent - expected).square().mean() / expected.square().mean()
        assert 0 < error < (0.1 if precision == "fp8" else 1e-4)
        pictures = ours.decode(latent)
        assert (pictures - native.decode(latent)).square().mean() < 1e-2
        assert asked[-1] == (precision, enables)
        tiled = ours.decode_tiled(latent, 3, 1)
        assert (tiled - native.decode_tiled(latent, 3, 1)).square().mean() < 1e-2


def test_a_file_needs_no_vae(nodes, comfyui, plain, monkeypatch):
    shutil.copy(TINY, comfyui.root / "models" / "vae" / "for_native.safetensors")
    with pytest.raises(InvalidArgumentError, match="ComfyUI with SeedVR2 of its own"):
        engine_vae(nodes, model="for_native.safetensors")
    made = []

    def make(sd):
        made.append({name: tuple(tensor.shape) for name, tensor in sd.items()})
        return NativeVAE(NativeModel(None), comfyui.management)

    seedvr = types.ModuleType("comfy.ldm.seedvr.vae")
    seedvr.VideoAutoencoderKLWrapper = NativeModel
    sd = types.ModuleType("comfy.sd")
    sd.VAE = make
    for name, module in (("comfy.sd", sd), ("comfy.ldm", types.ModuleType("comfy.ldm")), (seedvr.__name__, seedvr)):
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(sys.modules["comfy"], "sd", sd, raising=False)
    monkeypatch.setitem(sys.modules, "comfy.ldm.seedvr", types.ModuleType("comfy.ldm.seedvr"))
    ours = engine_vae(nodes, model="for_native.safetensors")
    assert "decoder.up_blocks.2.upsamplers.0.upscale_conv.weight" in made[0]
    expected = NativeVAE(NativeModel(plain), comfyui.management).encode(picture(5, 16, 16, 3))
    torch.testing.assert_close(ours.encode(picture(5, 16, 16, 3)), expected, atol=1e-5, rtol=0)
    assert ours.get_sd()["encoder.conv_in.weight"].dtype == torch.float16


def test_what_is_no_native_vae_is_refused(nodes, native):
    with pytest.raises(InvalidArgumentError, match="connect Load VAE, or choose a file"):
        engine_vae(nodes)
    for other in (object(), types.SimpleNamespace(first_stage_model=object(), format_encoded=None)):
        with pytest.raises(InvalidArgumentError, match="a VAE of ComfyUI's own SeedVR2"):
            engine_vae(nodes, other)
    ours = engine_vae(nodes, native)
    for shape in ((1, 4, 2, 2, 2), (1, 17, 2, 2)):
        with pytest.raises(InvalidArgumentError, match="samples: expected latents"):
            ours.decode(torch.zeros(shape))
    node = nodes["SeedVR2EngineVAE"]
    assert node.validate_inputs(model="connected") is True
    assert "none of the offered files" in node.validate_inputs(model="no_such.gguf")
    assert node.fingerprint_inputs(model="connected") == "connected"
