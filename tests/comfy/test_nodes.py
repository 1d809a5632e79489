"""What the nodes do: load, hand on, upscale, stop, free, refuse."""

import copy
import gc
import logging
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from seedvr2_engine.engine.optimize_dit import DitReport
from seedvr2_engine.errors import InvalidArgumentError, ModelFileError, SeedVR2Error
from seedvr2_engine.loading import NANO_VAE, load_vae
from seedvr2_engine.loading_dit import NANO_DIT, load_dit
from seedvr2_engine.pipeline.options import UpscaleOptions
from seedvr2_engine.pipeline.upscaler import Upscaler

from ..conftest import GOLDEN
from .stub import InterruptedByUserError

TEXT = torch.randn(7, 64, generator=torch.manual_seed(1))
DIT_FILE = "small_dit.safetensors"
VAE_FILE = "small_vae.safetensors"


@pytest.fixture(scope="module", autouse=True)
def files(comfyui):
    folder = comfyui.root / "models" / "SEEDVR2"
    save_file({**load_file(GOLDEN / "dit_tiny_3b.safetensors"), "positive_conditioning": TEXT}, folder / DIT_FILE)
    shutil.copy(GOLDEN / "vae_tiny.safetensors", folder / VAE_FILE)
    return folder


def clip(frames=6, height=20, width=28, channels=3):
    return torch.rand(frames, height, width, channels, generator=torch.manual_seed(2))


def dit_config(nodes, **inputs):
    return nodes["SeedVR2LoadDiTModel"].execute(**{"model": DIT_FILE, "device": "cpu", **inputs}).args[0]


def vae_config(nodes, **inputs):
    return nodes["SeedVR2LoadVAEModel"].execute(**{"model": VAE_FILE, "device": "cpu", **inputs}).args[0]


def upscale(nodes, image, dit=None, vae=None, **inputs):
    inputs = {"seed": 3, "resolution": 32, "color_correction": "wavelet", **inputs}
    node = nodes["SeedVR2VideoUpscaler"]
    return node.execute(image=image, dit=dit or dit_config(nodes), vae=vae or vae_config(nodes), **inputs).args[0]


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


def test_a_changed_file_is_a_changed_input(nodes, files):
    node = nodes["SeedVR2LoadVAEModel"]
    copy = files / "mine.safetensors"
    shutil.copy(files / VAE_FILE, copy)
    before = node.fingerprint_inputs(model=copy.name)
    assert node.fingerprint_inputs(model=copy.name) == before
    save_file({**load_file(copy)}, copy, metadata={"changed": "yes"})
    assert node.fingerprint_inputs(model=copy.name) != before
    assert node.fingerprint_inputs(model="ema_vae_fp16.safetensors") is None
    copy.unlink()


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


def test_files_are_offered_by_what_they_hold(nodes, files, comfyui):
    from seedvr2_engine.comfy.model_files import model_names

    shared = comfyui.root / "models" / "vae"
    (shared / "sub").mkdir(exist_ok=True)
    shutil.copy(files / VAE_FILE, shared / "sub" / "another.safetensors")
    save_file({"weight": torch.zeros(1)}, shared / "other_model.safetensors")
    (files / "broken.gguf").write_bytes(b"GGUF")
    names = model_names("vae")
    assert VAE_FILE in names
    assert "sub/another.safetensors" in names
    assert "broken.gguf" in names
    assert DIT_FILE not in names
    assert "other_model.safetensors" not in names
    assert DIT_FILE in model_names("dit")
    assert vae_config(nodes, model="sub/another.safetensors")["is_gguf"] is False


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


def test_converted_files_are_offered_and_load(nodes, files):
    node = nodes["SeedVR2ConvertToGGUF"]
    assert node.execute(model=VAE_FILE, type="F16").args == ("small_vae_f16.gguf",)
    assert vae_config(nodes, model="small_vae_f16.gguf")["is_gguf"] is True
    with pytest.raises(SeedVR2Error, match="expected no such file"):
        node.execute(model=VAE_FILE, type="F16")
    for name in ("../up", "a/b", "C:x", ".hidden", "a\\b", "nul", "x" * 300, "a\n", "\ud800", "a\0", "..\\up"):
        with pytest.raises(InvalidArgumentError, match="plain name"):
            node.execute(model=VAE_FILE, type="F16", file_name=name)


@pytest.mark.parametrize(
    ("inputs", "sentence"),
    [
        ({"device": "cuda:7"}, "device: cuda:7"),
        ({"decode_tiled": True, "decode_tile_size": 64, "decode_tile_overlap": 96}, "overlap"),
        ({"cache_model": True}, "cache_model: expected an offload_device"),
        ({"offload_device": "cuda:5"}, "offload_device: expected one of none, cpu"),
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


def test_a_workflow_cannot_destroy_models(nodes, files):
    """Converting with the name of a transformer, public or not, asked to overwrite."""
    node = nodes["SeedVR2ConvertToGGUF"]
    public, own = files / "seedvr2_ema_3b-Q4_K_M.gguf", files / "my_dit.gguf"
    for path in (public, own):
        shutil.copy(NANO_DIT, path)
    try:
        for path in (public, own):
            for name in (path.name, path.stem):
                with pytest.raises(SeedVR2Error, match=r"a name of your own|expected a VAE in GGUF"):
                    node.execute(model=VAE_FILE, type="Q8_0", file_name=name, overwrite=True)
            assert path.read_bytes() == NANO_DIT.read_bytes()
        for name in (VAE_FILE, DIT_FILE):  # They get an ending of their own.
            assert node.execute(model=VAE_FILE, type="Q8_0", file_name=name).args == (f"{name}.gguf",)
        assert node.execute(model=VAE_FILE, type="F16", file_name=DIT_FILE, overwrite=True).args == (
            f"{DIT_FILE}.gguf",
        )
    finally:
        for path in (public, own, files / f"{VAE_FILE}.gguf", files / f"{DIT_FILE}.gguf"):
            path.unlink(missing_ok=True)


@pytest.mark.parametrize(
    "name",
    [
        *("\\Users\\x", "C:x", "C:\\x.gguf", "..\\SEEDVR2\\small_vae.safetensors", "//server/share/x", "NUL", "\ud800"),
        *("x" * 5000, "a\0b", "sub/" * 2000 + "x", "", ".", "\x1b[2J"),
    ],
)
def test_names_that_leave_the_folders_are_refused_everywhere(nodes, name):
    for node in ("SeedVR2LoadVAEModel", "SeedVR2LoadDiTModel"):
        answer = nodes[node].validate_inputs(model=name, device="cpu")
        assert "none of the offered files" in answer
        assert len(answer) < 600
        assert answer.isprintable()
        with pytest.raises(ModelFileError, match="none of the offered files"):
            nodes[node].execute(model=name, device="cpu")
        assert nodes[node].fingerprint_inputs(model=name) is None


def test_a_link_inside_the_folder_and_a_name_from_windows_load(nodes, files, tmp_path):
    elsewhere = tmp_path / "vae.safetensors"
    shutil.copy(files / VAE_FILE, elsewhere)
    (files / "link.safetensors").symlink_to(elsewhere)
    try:
        assert vae_config(nodes, model="link.safetensors")["model_name"] == "link.safetensors"
    finally:
        (files / "link.safetensors").unlink()


def test_a_conversion_that_was_killed_is_not_offered(nodes, files):
    left = files / ".seedvr2-x"
    left.mkdir()
    shutil.copy(NANO_VAE, left / "converting.gguf")
    try:
        options = nodes["SeedVR2LoadVAEModel"].define_schema().inputs[0].options["options"]
        assert VAE_FILE in options
        assert not any("seedvr2-" in name for name in options)
    finally:
        shutil.rmtree(left)


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
        (torch.rand(1, 8, 8, 3), {"batch_size": 4}, "choose 5"),
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


def test_files_of_comfyuis_own_seedvr2_go_where_its_loaders_look(nodes, comfyui, monkeypatch):
    import seedvr2_engine.comfy.model_files as model_files

    asked = []
    monkeypatch.setattr(model_files, "download", lambda known, folder, on_progress: asked.append((known, folder)))
    offered = model_files.model_names("dit")
    for name, kind, folder in (
        ("seedvr2_3b_int8_convrot.safetensors", "dit", "diffusion_models"),
        ("seedvr2_7b_sharp_nvfp4.safetensors", "dit", "diffusion_models"),
        ("seedvr2_ema_vae_fp16.safetensors", "vae", "vae"),
        ("ema_vae_fp16.safetensors", "vae", "SEEDVR2"),
    ):
        model_files.locate(name, kind)
        assert asked[-1][0].name == name
        assert asked[-1][1] == comfyui.root / "models" / folder
        assert name in (offered if kind == "dit" else model_files.model_names("vae"))
    # A file of that name that lies there is taken, if it is that file.
    there = comfyui.root / "models" / "diffusion_models" / "seedvr2_3b_int8_convrot.safetensors"
    there.write_bytes(b"x")
    try:
        with pytest.raises(ModelFileError, match="expected the public file of 3,458,259,704 bytes"):
            dit_config(nodes, model=there.name)
    finally:
        there.unlink()


def test_damaged_and_missing_public_files(nodes, files, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelFileError, match="HF_HUB_OFFLINE"):
        vae_config(nodes, model="ema_vae_fp16.safetensors")
    damaged = files / "ema_vae_fp16.safetensors"
    shutil.copy(files / VAE_FILE, damaged)
    try:
        with pytest.raises(ModelFileError, match="the download is damaged or"):
            vae_config(nodes, model=damaged.name)
    finally:
        damaged.unlink()
    cut = files / "seedvr2_ema_3b-Q8_0.gguf"
    cut.write_bytes(b"GGUF")
    try:
        with pytest.raises(ModelFileError, match="expected the public file of 3,660,613,984 bytes, found 4 bytes"):
            dit_config(nodes, model=cut.name)
    finally:
        cut.unlink()


def test_workflows_of_other_machines_validate(nodes):
    for name, model in (("SeedVR2LoadVAEModel", "ema_vae_fp16.safetensors"), ("SeedVR2LoadDiTModel", DIT_FILE)):
        node = nodes[name]
        assert node.validate_inputs(model=model, device="cuda:0", offload_device="cuda:1") is True
        assert "none of the offered" in node.validate_inputs(model="missing.gguf", device="cpu")
        assert "device" in node.validate_inputs(model=model, device="toaster")


def test_compile_settings_are_taken_and_not_needed(nodes, caplog):
    caplog.set_level(logging.INFO)
    settings = nodes["SeedVR2TorchCompileSettings"].execute(backend="inductor", mode="default").args[0]
    assert settings == {"backend": "inductor", "mode": "default"}
    vae_config(nodes, torch_compile_args=settings)
    dit_config(nodes, torch_compile_args=settings)
    assert caplog.text.count("not needed") == 2
