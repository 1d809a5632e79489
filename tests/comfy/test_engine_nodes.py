"""The nodes with the engine instead of the plain model: its kernels' references stand in for a GPU."""

import logging

import pytest
import torch

from seedvr2_engine.engine import reference_backend
from seedvr2_engine.engine.optimize import serve_on
from seedvr2_engine.engine.settings import Settings
from seedvr2_engine.plan.gpus import find_gpu

CPU = torch.device("cpu")


@pytest.fixture
def gpu(nodes, monkeypatch, tmp_path):
    """Lets the loader's entry make an engine for a GPU that is not here; returns a choice of GPUs."""
    chosen = ["rtx5070ti"]
    asked = []

    def entry(vae, *, device, precision, enable_fp8, verbose):
        asked.append((precision, enable_fp8))
        settings = Settings(precision=precision, enable_fp8=enable_fp8, min_psnr_db=None)
        return serve_on(vae.float(), settings, find_gpu(chosen[0]), CPU, reference_backend)

    monkeypatch.setattr("seedvr2_engine.comfy.vae_model.optimize_3d_vae_for_blackwell", entry)
    return chosen, asked


def load(nodes, **inputs):
    return nodes["SeedVR2LoadVAEModel"].execute(**{"model": "nano", "device": "cpu", **inputs}).args[0]


def test_a_gguf_file_is_optimised_before_it_is_handed_on(nodes, gpu, caplog):
    caplog.set_level(logging.INFO)
    config = load(nodes, decode_tiled=True, decode_tile_size=512, decode_tile_overlap=64)
    assert config["is_gguf"]
    assert config["is_optimized"]
    assert config["decode_tile_size"] >= 1280
    report = config["engine_report"]
    assert report.precision == "mxfp8"
    assert f"{report.layers.eight_bit} of {report.layers.total} convolutions" in caplog.text
    assert "[BLACKWELL_ENGINE] MXFP8 on " in caplog.text
    assert "is no Blackwell GPU" not in caplog.text
    assert gpu[1] == [("auto", True)]


def test_other_gpus_are_named_with_what_is_used(nodes, gpu, caplog):
    caplog.set_level(logging.INFO)
    gpu[0][0] = "h200"
    assert load(nodes)["is_optimized"]
    assert "(sm_90) is no Blackwell GPU: fp8 is used instead" in caplog.text
    assert "[HOPPER_ENGINE]" in caplog.text


def test_what_is_asked_of_the_entry_follows_file_and_switches(nodes, gpu, comfyui):
    from ..conftest import GOLDEN

    plain = comfyui.root / "models" / "vae" / "plain.safetensors"
    plain.write_bytes((GOLDEN / "vae_tiny.safetensors").read_bytes())
    assert load(nodes, model=plain.name)["engine_report"].precision == "fp16"
    load(nodes, model=plain.name, precision="fp8")
    assert not load(nodes, enable_blackwell_optimization=False)["is_optimized"]
    assert gpu[1] == [("auto", False), ("fp8", True), ("reference", True)]


def test_encode_and_decode_are_the_engines(nodes, gpu):
    config = load(nodes)
    image = torch.linspace(0, 1, 5 * 16 * 24 * 3).reshape(5, 16, 24, 3)
    latent = nodes["SeedVR2VAEEncode"].execute(image=image, vae=config).args[0]
    restored = nodes["SeedVR2VAEDecode"].execute(samples=latent, vae=config).args[0]
    engine = config["model"].served.server
    expected = (
        engine.decode(latent["samples"] / 0.9152)[0, ..., :24].float().mul(0.5).add(0.5).clamp(0, 1).permute(1, 2, 3, 0)
    )
    assert torch.equal(restored, expected)


def test_working_memory_is_given_back_before_weights(nodes, gpu):
    config = load(nodes)
    resident = config["model"].resident
    weights = resident.loaded_size()
    config["model"].decode(torch.zeros(1, 16, 2, 2, 3))
    grown = resident.loaded_size()
    assert grown > weights
    assert resident.partially_unload(CPU, 1 << 40) > 0
    assert resident.built is not None
    assert resident.loaded_size() < grown
    resident.detach(unpatch_all=False)
    assert resident.built is not None
    resident.detach()
    assert resident.loaded_size() == 0


def test_the_engine_plans_with_what_the_nodes_allow(nodes, gpu):
    config = load(nodes)
    engine = config["model"].served.server
    engine.limit(2 << 30)
    shape_plans = engine.decode(torch.zeros(1, 16, 1, 2, 3)), len(engine._plans)
    engine.limit(2 << 30)
    assert len(engine._plans) == shape_plans[1] > 0
    engine.limit(3 << 30)
    assert not engine._plans
