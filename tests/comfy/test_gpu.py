"""The nodes on a GPU: the engine serves, memory comes back, runs repeat."""

import gc

import pytest
import torch

from seedvr2_engine.loading import load_vae

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU"),
]


def load(nodes, **inputs):
    return nodes["SeedVR2LoadVAEModel"].execute(**{"model": "nano", "device": "cuda:0", **inputs}).args[0]


def allocated() -> int:
    gc.collect()
    torch.cuda.synchronize()
    return torch.cuda.memory_allocated()


def clip(frames=9, height=180, width=320):
    return torch.linspace(0, 1, frames * height * width * 3).reshape(frames, height, width, 3)


def test_there_and_back_is_close_to_the_plain_model(nodes):
    config = load(nodes)
    latent = nodes["SeedVR2VAEEncode"].execute(image=clip(), vae=config).args[0]
    restored = nodes["SeedVR2VAEDecode"].execute(samples=latent, vae=config).args[0]
    assert config["is_optimized"] == config["model"].served.is_engine
    plain = load_vae("nano", device="cuda").decode(latent["samples"].cuda() / 0.9152)[0, :, :9, :180, :320]
    expected = plain.permute(1, 2, 3, 0).mul(0.5).add(0.5).clamp(0, 1).cpu()
    psnr = -10 * (restored - expected).square().mean().log10()
    assert psnr > 40


def test_runs_keep_no_memory_and_unloading_gives_all_back(nodes):
    before = allocated()
    config = load(nodes)

    def run():
        latent = nodes["SeedVR2VAEEncode"].execute(image=clip(), vae=config).args[0]
        frames = nodes["SeedVR2VAEDecode"].execute(samples=latent, vae=config).args[0]
        return allocated(), frames

    run()
    second, first_frames = run()
    for _ in range(8):
        last, frames = run()
    assert last == second
    assert torch.equal(frames, first_frames)
    resident = config["model"].resident
    assert resident.loaded_size() <= second - before + (1 << 20)
    resident.detach()
    assert allocated() - before < 1 << 20
    assert torch.equal(run()[1], first_frames)


def test_the_native_vae_on_the_engine(nodes, comfyui):
    from .native.native_stub import NativeModel, NativeVAE

    native = NativeVAE(NativeModel(load_vae("nano")), comfyui.management)
    expected_latent = native.encode(clip())
    expected = native.decode(expected_latent)
    tiled = native.decode_tiled(expected_latent, 16, 4)
    native.device, native.vae_dtype = torch.device("cuda:0"), torch.float16
    before = allocated()
    for precision in ("fp16", "auto"):
        vae = nodes["SeedVR2EngineVAE"].execute(model="connected", precision=precision, vae=native).args[0]
        for found, exact in (
            (vae.decode(vae.encode(clip())), expected),
            (vae.decode(expected_latent), expected),
            (vae.decode_tiled(expected_latent, 16, 4), tiled),
        ):
            assert found.device.type == "cpu"
            assert -10 * (found - exact).square().mean().log10() > 40
        assert vae.first_stage_model.vae.served.is_engine
        first, left = vae.decode(expected_latent), []
        for _ in range(10):
            comfyui.management.unload_all_models()
            left.append(allocated())
            assert torch.equal(vae.decode(expected_latent), first)
        assert max(left) - before < 1 << 20
        comfyui.management.unload_all_models()


def test_the_upscaler_with_the_engine(nodes, comfyui):
    from safetensors.torch import load_file, save_file

    from ..conftest import GOLDEN

    text = torch.randn(7, 64, generator=torch.manual_seed(1))
    path = comfyui.root / "models" / "SEEDVR2" / "gpu_dit.safetensors"
    save_file({**load_file(GOLDEN / "dit_tiny_3b.safetensors"), "positive_conditioning": text}, path)
    dit = nodes["SeedVR2LoadDiTModel"].execute(model=path.name, device="cuda:0", blocks_to_swap=2).args[0]
    config = load(nodes)
    inputs = {"seed": 1, "resolution": 128, "batch_size": 5, "temporal_overlap": 1}
    runs = [
        nodes["SeedVR2VideoUpscaler"].execute(image=clip(7, 36, 64), dit=dit, vae=config, **inputs).args[0]
        for _ in range(2)
    ]
    assert runs[0].shape == (7, 128, 226, 3)
    assert torch.equal(*runs)
