"""Files of models: which are offered, loaded, converted and refused."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from seedvr2_engine.errors import InvalidArgumentError, ModelFileError, SeedVR2Error
from seedvr2_engine.loading import NANO_VAE
from seedvr2_engine.loading_dit import NANO_DIT

from .small_models import DIT_FILE, VAE_FILE, dit_config, vae_config

pytestmark = pytest.mark.usefixtures("files")


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


def test_converted_files_are_offered_and_load(nodes, files):
    node = nodes["SeedVR2ConvertToGGUF"]
    assert node.execute(model=VAE_FILE, type="F16").args == ("small_vae_f16.gguf",)
    assert vae_config(nodes, model="small_vae_f16.gguf")["is_gguf"] is True
    with pytest.raises(SeedVR2Error, match="expected no such file"):
        node.execute(model=VAE_FILE, type="F16")
    for name in ("../up", "a/b", "C:x", ".hidden", "a\\b", "nul", "x" * 300, "a\n", "\ud800", "a\0", "..\\up"):
        with pytest.raises(InvalidArgumentError, match="plain name"):
            node.execute(model=VAE_FILE, type="F16", file_name=name)


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
