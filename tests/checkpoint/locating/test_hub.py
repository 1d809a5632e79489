"""The search for model files: ComfyUI's folders, SEEDVR2_MODELS, the user cache, and the list of what is there."""

import hashlib
import os
from pathlib import Path

import pytest

from seedvr2_engine.checkpoint.locating import hub as engine_hub
from seedvr2_engine.checkpoint.locating.hub import find_model, local_models, search_folders, user_cache
from seedvr2_engine.checkpoint.locating.registry import ModelFile
from seedvr2_engine.errors import ModelFileError

CONTENT = b"weights of a small model"


def model_file(name: str) -> ModelFile:
    digest = hashlib.sha256(CONTENT).hexdigest()
    return ModelFile(name, "vae", "someone/models", name, None, len(CONTENT), digest, "a test file")


@pytest.fixture(autouse=True)
def _own_surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("COMFYUI_PATH", "SEEDVR2_MODELS", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def comfyui(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "ComfyUI"
    (root / "models" / "vae").mkdir(parents=True)
    monkeypatch.setenv("COMFYUI_PATH", str(root))
    return root


def test_the_order_of_the_folders(comfyui: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (comfyui / "models" / "SeedVR2").mkdir()
    monkeypatch.setenv("SEEDVR2_MODELS", os.pathsep.join([str(tmp_path / "one"), "", str(tmp_path / "two")]))
    (comfyui / "extra_model_paths.yaml").write_text(
        f"""
shared:
    base_path: {tmp_path}/share
    checkpoints: checkpoints/
    SEEDVR2: |
        seedvr2/
        ../other/seedvr2
empty:
fast:
    is_default: true
    vae: fast-disk
""",
        encoding="utf-8",
    )
    assert search_folders() == [
        comfyui / "fast-disk",
        comfyui / "models" / "SeedVR2",
        comfyui / "models" / "vae",
        tmp_path / "share" / "seedvr2",
        tmp_path / "other" / "seedvr2",
        tmp_path / "one",
        tmp_path / "two",
        tmp_path / "cache" / "seedvr2" / "models",
    ]


def test_paths_in_the_yaml_are_expanded(comfyui: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.setenv("DRIVE", "/mnt/big")
    (comfyui / "extra_model_paths.yaml").write_text(
        "a: {base_path: ~/models, vae: v}\nb: {base_path: $DRIVE, vae: v}\nc: {vae: /abs/v}\n", encoding="utf-8"
    )
    folders = search_folders()
    for folder in ("/home/someone/models/v", "/mnt/big/v", "/abs/v"):
        assert Path(folder) in folders


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a: [1, 2", "expected YAML"),
        ("- a\n- b\n", "expected named sections"),
        ("a: text\n", "expected named sections"),
        ("a:\n  vae: [1, 2]\n", "expected a.vae to be text"),
        ("!!python/object/apply:os.system ['true']\n", "expected YAML"),
    ],
)
def test_a_broken_yaml_ends_with_one_sentence(comfyui: Path, text: str, complaint: str) -> None:
    (comfyui / "extra_model_paths.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ModelFileError, match=complaint) as caught:
        search_folders()
    assert "\n" not in str(caught.value)
    assert "extra_model_paths.yaml" in str(caught.value)


def test_an_empty_yaml_is_no_error(comfyui: Path) -> None:
    (comfyui / "extra_model_paths.yaml").write_text("# nothing yet\n", encoding="utf-8")
    assert comfyui / "models" / "SEEDVR2" in search_folders()


def test_a_wrong_comfyui_path_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path / "gone"))
    with pytest.raises(ModelFileError, match=r"COMFYUI_PATH: expected .*gone"):
        search_folders()


def test_comfyui_is_found_from_its_custom_nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = tmp_path / "ComfyUI" / "custom_nodes" / "seedvr2" / "seedvr2_engine" / "checkpoint" / "hub.py"
    monkeypatch.setattr(engine_hub, "__file__", str(module))
    assert search_folders()[:2] == [tmp_path / "ComfyUI" / "models" / name for name in ("SEEDVR2", "vae")]


def test_a_relative_cache_home_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert user_cache() == Path.home() / ".cache" / "seedvr2" / "models"


def test_a_path_wins_over_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place in ("here", "folder"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "vae.gguf").write_bytes(b"")
    monkeypatch.chdir(tmp_path / "here")
    assert find_model("vae.gguf", folders=[tmp_path / "folder"]) == Path("vae.gguf")
    assert find_model(str(tmp_path / "folder" / "vae.gguf"), folders=[]) == tmp_path / "folder" / "vae.gguf"


def test_the_first_folder_wins_and_names_may_hold_subfolders(tmp_path: Path) -> None:
    folders = [tmp_path / "a", tmp_path / "b", tmp_path / "c"]
    for folder in folders[1:]:
        (folder / "sub").mkdir(parents=True)
        (folder / "sub" / "vae.gguf").write_bytes(b"")
    assert find_model("sub/vae.gguf", folders=folders) == tmp_path / "b" / "sub" / "vae.gguf"


def test_the_default_search_reaches_the_user_cache() -> None:
    user_cache().mkdir(parents=True)
    (user_cache() / "vae.gguf").write_bytes(b"")
    assert find_model("vae.gguf") == user_cache() / "vae.gguf"


def test_a_missing_name_says_where_it_was_looked_for_and_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError) as caught:
        find_model("ema_vae_fp16.safetensors", folders=[tmp_path / "a", tmp_path / "b"])
    message = str(caught.value)
    assert f"{tmp_path / 'a'}, {tmp_path / 'b'}" in message
    assert "`seedvr2 download ema_vae_fp16.safetensors`" in message
    with pytest.raises(ModelFileError, match="`seedvr2 models` lists"):
        find_model("mine.safetensors", folders=[tmp_path])


@pytest.mark.parametrize(
    ("name", "complaint"),
    [("{tmp}/gone.gguf", "check the path"), ("../gone.gguf", "check the path"), ("{tmp}", "got a folder")],
)
def test_a_wrong_path_is_not_searched_for(tmp_path: Path, name: str, complaint: str) -> None:
    with pytest.raises(ModelFileError, match=complaint):
        find_model(name.format(tmp=tmp_path), folders=[tmp_path])


def test_local_models_are_listed_with_what_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = [model_file(name) for name in ("small.safetensors", "same.gguf", "short.gguf", "embedding.pt")]
    monkeypatch.setattr(engine_hub, "MODEL_FILES", tuple(known))
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "small.safetensors").write_bytes(CONTENT)
    (tmp_path / "same.gguf").write_bytes(CONTENT[:-1] + b"\0")
    (tmp_path / "short.gguf").write_bytes(CONTENT[:-1])
    (tmp_path / "embedding.pt").write_bytes(CONTENT)
    for other in (
        "mine.safetensors",
        "notes.txt",
        "old.pt",
        "small.safetensors.0123abcd.partial",
        "small.safetensors.rejected",
    ):
        (tmp_path / other).write_bytes(b"")

    def verdicts(verify: bool) -> dict[str, bool | None]:
        return {found.name: found.verified for found in local_models([tmp_path / "gone", tmp_path], verify=verify)}

    expected = {"embedding.pt": None, "mine.safetensors": None, "same.gguf": None, "short.gguf": False}
    assert verdicts(verify=False) == {**expected, "sub/small.safetensors": None}
    checked = {"embedding.pt": True, "mine.safetensors": None, "same.gguf": False, "short.gguf": False}
    assert verdicts(verify=True) == {**checked, "sub/small.safetensors": True}
    for found in local_models([tmp_path]):
        assert find_model(found.name, folders=[tmp_path]) == found.path
        assert found.size_bytes == found.path.stat().st_size
    assert [found.known for found in local_models([tmp_path]) if found.name == "mine.safetensors"] == [None]
