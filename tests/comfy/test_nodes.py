"""What the nodes do: load, hand on, upscale, stop, free, refuse."""

import copy
import gc
import logging

import pytest
import torch

from seedvr2_engine.engine.optimize_dit import DitReport
from seedvr2_engine.errors import InvalidArgumentError, SeedVR2Error
from seedvr2_engine.loading import load_vae
from seedvr2_engine.loading_dit import load_dit
from seedvr2_engine.pipeline.options import UpscaleOptions
from seedvr2_engine.pipeline.upscaler import Upscaler

from ..conftest import GOLDEN
from .small_models import DIT_FILE, TEXT, VAE_FILE, clip, dit_config, upscale, vae_config
from .stub import InterruptedByUserError

pytestmark = pytest.mark.usefixtures("files")


def test_frames_equal_the_pipelines_own(nodes):
    image = clip()
    options = UpscaleOptions(resolution=32, chunk_frames=5, overlap=2, seed=3, color="wavelet")
    models = load_dit(GOLDEN / "dit_tiny_3b.safetensors"), load_vae(GOLDEN / "vae_tiny.safetensors")
    frames = Upscaler(*models, options, text=TEXT).upscale(image.movedim(-1, 1))
    expected = torch.stack(list(frames)).movedim(1, -1)
    result = upscale(nodes, image, temporal_overlap=2)
    assert result.shape == (6, 32, 44, 3)
    assert result.dtype == torch.float32
    assert torch.equal(result, expected)


def test_the_transformer_computes_in_the_format_that_is_asked_for(nodes, monkeypatch):
    asked = []

    def optimize(dit, vae, text, *, precision, offload):
        asked.append((precision, dit.dtype, offload))
        # Something else, so that it shows what serves.
        return copy.deepcopy(dit), DitReport(precision, "made up")

    monkeypatch.setattr("seedvr2_engine.comfy.dit_model.optimize_dit", optimize)
    dit, vae = dit_config(nodes), vae_config(nodes)
    resident = dit["weights"].resident
    for precision in ("auto", "auto", "int8", "int8", "auto"):
        upscale(nodes, clip(1), dit=dit, vae=vae, batch_size=1, dit_precision=precision)
        served = resident.built
        upscale(nodes, clip(1), dit=dit, vae=vae, batch_size=1, dit_precision=precision)
        assert resident.built is served
    assert [name for name, *_ in asked] == ["auto", "int8", "auto"]
    resident.unload()
    upscale(nodes, clip(1), dit=dit, vae=vae, batch_size=1)
    assert len(asked) == 4


def test_a_format_that_this_device_lacks_is_refused(nodes):
    with pytest.raises(InvalidArgumentError, match="dit precision: fp8 was asked for, but it runs on cpu"):
        upscale(nodes, clip(1), batch_size=1, dit_precision="fp8")
    with pytest.raises(InvalidArgumentError, match="dit precision: expected one of auto, bf16"):
        upscale(nodes, clip(1), batch_size=1, dit_precision="fp4")


def test_alpha_comes_back(nodes):
    assert upscale(nodes, clip(1, channels=4), batch_size=1).shape == (1, 32, 44, 4)


def test_the_loader_hands_on_the_dictionary_of_the_request(nodes, caplog):
    caplog.set_level(logging.INFO)
    config = vae_config(nodes, model="nano", decode_tiled=True, decode_tile_size=512, decode_tile_overlap=64)
    vae = config["model"]
    assert vae.decode(torch.zeros(1, 16, 1, 2, 2)).shape == (1, 3, 1, 16, 16)
    assert config["engine_report"].precision == "reference"
    known = {key: value for key, value in config.items() if key not in ("model", "engine_report")}
    assert known == {
        "model_name": "nano", "device": "cpu", "offload_device": "none", "cache_model": False,
        "encode_tiled": False, "encode_tile_size": 512, "encode_tile_overlap": 64,
        "decode_tiled": True, "decode_tile_size": 512, "decode_tile_overlap": 64,
        "tile_debug": "false", "torch_compile_args": None, "node_id": "7",
        "is_gguf": True, "is_optimized": False,
        "enable_blackwell_optimization": True, "precision": "auto",
    }  # fmt: skip
    for line in ("[VAE Loader] Loading VAE model: nano", "Format: GGUF", "✓ Model loaded", "_ENGINE] REFERENCE on CPU"):
        assert line in caplog.text


def test_tiles_of_the_plain_model_are_those_asked_for(nodes):
    latent = torch.randn(1, 16, 1, 12, 12, generator=torch.manual_seed(5))
    whole = vae_config(nodes)["model"].decode(latent)
    tiled = vae_config(nodes, decode_tiled=True, decode_tile_size=64, decode_tile_overlap=32)["model"].decode(latent)
    assert whole.shape == tiled.shape
    assert not torch.equal(whole, tiled)


def test_the_vae_is_used_as_it_is(nodes, monkeypatch):
    config = vae_config(nodes)
    monkeypatch.setattr("seedvr2_engine.comfy.vae_model.load_vae", lambda *_, **__: pytest.fail("loaded again"))
    upscale(nodes, clip(1), vae=config, batch_size=1)


def test_configurations_of_the_public_pack_will_do(nodes):
    dit = {"model": DIT_FILE, "device": "cpu", "offload_device": "none", "cache_model": False, "node_id": "1",
           "blocks_to_swap": 0, "swap_io_components": False, "attention_mode": "sdpa",
           "torch_compile_args": None}  # fmt: skip
    vae = {"model": VAE_FILE, "device": "cpu", "offload_device": "none", "cache_model": False, "encode_tiled": False,
           "encode_tile_size": 1024, "encode_tile_overlap": 128, "decode_tiled": False, "decode_tile_size": 1024,
           "decode_tile_overlap": 128, "tile_debug": "false", "torch_compile_args": None, "node_id": "2"}  # fmt: skip
    assert torch.equal(upscale(nodes, clip(5), dit=dit, vae=vae), upscale(nodes, clip(5)))


def test_unloaded_models_come_back(nodes, comfyui):
    dit, vae = dit_config(nodes), vae_config(nodes)
    first = upscale(nodes, clip(5), dit=dit, vae=vae)
    assert vae["model"].resident.loaded_size() > 0
    comfyui.management.unload_all_models()
    assert vae["model"].resident.built is None
    assert dit["weights"].resident.loaded_size() == 0
    assert torch.equal(upscale(nodes, clip(5), dit=dit, vae=vae), first)


def test_repeated_runs_keep_nothing(nodes):
    dit, vae = dit_config(nodes), vae_config(nodes)

    def live_bytes():
        upscale(nodes, clip(5), dit=dit, vae=vae)
        gc.collect()
        # By type: isinstance wakes lazy modules that other packages keep.
        return sum(item.untyped_storage().nbytes() for item in gc.get_objects() if type(item) is torch.Tensor)

    live_bytes()
    assert live_bytes() == live_bytes()


@pytest.mark.parametrize("after", [0, 3, 9, 20])
def test_the_button_stops_within_a_frame(nodes, comfyui, after):
    dit, vae = dit_config(nodes), vae_config(nodes)
    comfyui.management.countdown = after
    with pytest.raises(InterruptedByUserError):
        upscale(nodes, clip(9), dit=dit, vae=vae)
    # Every frame of every stage asks, and nothing runs after the answer.
    assert comfyui.management.countdown is None
    upscale(nodes, clip(1), dit=dit, vae=vae, batch_size=1)


def test_progress_rises_to_the_end_with_pictures(nodes, comfyui):
    upscale(nodes, clip(9), temporal_overlap=1)
    values = [value for value, _, _ in comfyui.bars[-1].updates]
    assert values == sorted(values)
    assert values[-1] == 1000
    previews = [preview for _, _, preview in comfyui.bars[-1].updates if preview]
    assert previews[0][0] == "JPEG"
    assert previews[0][1].size == (44, 32)


def test_encode_and_decode_give_the_clip_back(nodes):
    vae = vae_config(nodes, model="nano")
    image = torch.linspace(0, 1, 6 * 21 * 30 * 3).reshape(6, 21, 30, 3)
    latent = nodes["SeedVR2VAEEncode"].execute(image=image, vae=vae).args[0]
    assert latent["samples"].shape == (1, 16, 3, 4, 4)
    restored = nodes["SeedVR2VAEDecode"].execute(samples=latent, vae=vae).args[0]
    assert restored.shape == image.shape
    assert (restored - image).abs().mean() < 0.1
    single = nodes["SeedVR2VAEDecode"].execute(samples={"samples": latent["samples"][:, :, 0]}, vae=vae).args[0]
    assert single.shape == (1, 32, 32, 3)


@pytest.mark.parametrize(
    ("inputs", "sentence"),
    [
        ({"device": "cuda:7"}, "device: cuda:7"),
        ({"decode_tiled": True, "decode_tile_size": 64, "decode_tile_overlap": 96}, "overlap"),
        ({"precision": "fp8"}, "precision: fp8 was asked for"),
        ({"model": "no_such.gguf"}, "'no_such.gguf' is none of the offered files"),
        ({"model": "../SEEDVR2/small_vae.safetensors"}, "none of the offered files"),
        ({"model": DIT_FILE}, "found a diffusion transformer"),
    ],
)
def test_bad_settings_of_the_vae_loader_are_one_sentence(nodes, inputs, sentence):
    with pytest.raises(SeedVR2Error, match=sentence) as caught:
        vae_config(nodes, **inputs)
    assert "\n" not in str(caught.value)
    vae_config(nodes)


def test_frames_that_are_not_finite_become_something(nodes):
    image = clip(5)
    image[1, 3, 4] = float("nan")
    image[2, 0, 0] = float("inf")
    image[3, 9] = float("-inf")
    clean = torch.nan_to_num(image, nan=0.0, posinf=1.0, neginf=0.0)
    assert torch.equal(upscale(nodes, image), upscale(nodes, clean))
    vae = vae_config(nodes)
    latent, expected = (nodes["SeedVR2VAEEncode"].execute(image=i, vae=vae).args[0] for i in (image, clean))
    assert torch.equal(latent["samples"], expected["samples"])
    latent["samples"][0, :, 0, 0, 0] = float("nan")
    decoded = nodes["SeedVR2VAEDecode"].execute(samples=latent, vae=vae).args[0]
    assert decoded.min() >= 0
    assert decoded.max() <= 1


@pytest.mark.parametrize(
    "samples",
    [
        *(None, {}, [], {"samples": None}, {"samples": torch.zeros(2)}),
        {"samples": torch.zeros(1, 16, 1, 2, 2, dtype=torch.int64)},
        {"samples": torch.zeros(1, 4, 1, 2, 2)},
        {"samples": torch.zeros(0, 16, 1, 2, 2)},
    ],
)
def test_latents_that_are_none(nodes, samples):
    with pytest.raises(InvalidArgumentError, match="samples: expected"):
        nodes["SeedVR2VAEDecode"].execute(samples=samples, vae=vae_config(nodes))


@pytest.mark.parametrize("source", [None, 7, (1, 2), ("a", "b", "c"), (1.0, 16, 16), (10**9, 16, 16), (1, 0, 16)])
def test_what_other_nodes_keep_beside_latents_is_ignored(nodes, source):
    samples = {"samples": torch.zeros(1, 16, 1, 2, 2), "seedvr2_source": source}
    assert nodes["SeedVR2VAEDecode"].execute(samples=samples, vae=vae_config(nodes)).args[0].shape == (1, 16, 16, 3)


@pytest.mark.parametrize(
    ("image", "inputs", "sentence"),
    [
        (None, {}, "got nothing; connect an IMAGE"),
        ([torch.rand(8, 8, 3)], {}, "got list"),
        (torch.zeros(1, 8, 8, 3, dtype=torch.uint8), {}, "got uint8"),
        (torch.rand(8, 8, 3), {}, r"got float32 \(8, 8, 3\)"),
        (torch.rand(1, 3, 8, 8), {}, "3 or 4"),
        (torch.rand(0, 8, 8, 3), {}, "at least one frame"),
        (torch.rand(1, 8, 8, 2), {}, "3 or 4"),
    ],
)
def test_bad_input_of_the_upscaler_is_one_sentence(nodes, image, inputs, sentence):
    with pytest.raises(InvalidArgumentError, match=sentence):
        upscale(nodes, image, **inputs)


def test_what_is_connected_must_be_a_model(nodes):
    with pytest.raises(InvalidArgumentError, match=r"Load DiT Model"):
        upscale(nodes, clip(1), dit={"anything": 1})
    with pytest.raises(InvalidArgumentError, match=r"Load VAE Model"):
        upscale(nodes, clip(1), vae={"anything": 1})
    with pytest.raises(InvalidArgumentError, match=r"Load VAE Model"):
        nodes["SeedVR2VAEDecode"].execute(samples={"samples": torch.zeros(1, 16, 1, 2, 2)}, vae=None)
    with pytest.raises(InvalidArgumentError, match="expected a floating-point batch"):
        nodes["SeedVR2VAEEncode"].execute(image=None, vae=vae_config(nodes))


def test_compile_settings_are_taken_and_not_needed(nodes, caplog):
    caplog.set_level(logging.INFO)
    settings = nodes["SeedVR2TorchCompileSettings"].execute(backend="inductor", mode="default").args[0]
    assert settings == {"backend": "inductor", "mode": "default"}
    vae_config(nodes, torch_compile_args=settings)
    dit_config(nodes, torch_compile_args=settings)
    assert caplog.text.count("not needed") == 2


def test_a_batch_from_a_link_is_rounded_as_the_widget_rounds(nodes, caplog):
    models = {"dit": dit_config(nodes), "vae": vae_config(nodes)}
    expected = upscale(nodes, clip(7), batch_size=5, temporal_overlap=1, **models)
    assert torch.equal(upscale(nodes, clip(7), batch_size=4, temporal_overlap=1, **models), expected)
    assert "batch_size 4: 4n+1 frames pass the model, so it is 5" in caplog.text
    one = upscale(nodes, clip(2), batch_size=1, **models)
    for batch_size in (0, -3):
        assert torch.equal(upscale(nodes, clip(2), batch_size=batch_size, **models), one)


@pytest.mark.parametrize(
    "inputs",
    [
        *({"cache_model": True}, {"offload_device": "cuda:5"}, {"offload_device": "xpu:0", "cache_model": True}),
        {"offload_device": None},
    ],
)
def test_what_is_accepted_for_old_workflows_never_refuses(nodes, inputs):
    old = {"SeedVR2LoadDiTModel": {"attention_mode": "of_the_future"}, "SeedVR2LoadVAEModel": {"tile_debug": "both"}}
    for node_id, load, model in (
        ("SeedVR2LoadDiTModel", dit_config, DIT_FILE),
        ("SeedVR2LoadVAEModel", vae_config, VAE_FILE),
    ):
        load(nodes, **inputs, **old[node_id])
        # An input that `validate_inputs` names is not held against its list by ComfyUI.
        taken = {key: value for key, value in {**inputs, **old[node_id]}.items() if key != "cache_model"}
        assert nodes[node_id].validate_inputs(model=model, device="cpu", **taken) is True


def test_a_name_from_windows_means_the_file_in_a_folder(nodes, files):
    (files / "sub").mkdir(exist_ok=True)
    (files / "sub" / "windows.safetensors").write_bytes((files / VAE_FILE).read_bytes())
    try:
        assert nodes["SeedVR2LoadVAEModel"].validate_inputs(model="sub\\windows.safetensors", device="cpu") is True
        assert vae_config(nodes, model="sub\\windows.safetensors")["model_name"]
    finally:
        (files / "sub" / "windows.safetensors").unlink()
