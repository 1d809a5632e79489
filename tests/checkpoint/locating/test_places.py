"""Settings and names from elsewhere: homes that are not there, hostile YAML, paths of other systems."""

import os
import time
from pathlib import Path

import pytest

from seedvr2_engine.checkpoint.locating import hub, registry
from seedvr2_engine.checkpoint.locating.extra_paths import extra_folders
from seedvr2_engine.checkpoint.locating.names import is_plain_name, model_paths, stays_inside
from seedvr2_engine.errors import ModelFileError

from ..fuzz.forged_files import second


@pytest.fixture
def homeless(monkeypatch):
    """As in a container whose user has no name."""

    def unknown(*_):
        raise RuntimeError("Could not determine home directory.")

    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA", "COMFYUI_PATH", "SEEDVR2_MODELS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", unknown)


def test_without_a_home_the_other_folders_are_searched(homeless, tmp_path, monkeypatch):
    assert hub.search_folders() == []
    with pytest.raises(ModelFileError, match="nor in any folder"):
        hub.find_model("a.gguf")
    with pytest.raises(ModelFileError, match="expected a home folder or"):
        hub.user_cache()
    (tmp_path / "a.gguf").touch()
    monkeypatch.setenv("SEEDVR2_MODELS", str(tmp_path))
    assert hub.find_model("a.gguf") == tmp_path / "a.gguf"


@pytest.mark.parametrize("setting", ["SEEDVR2_MODELS", "COMFYUI_PATH"])
def test_a_home_of_nobody_is_a_sentence(setting, monkeypatch):
    monkeypatch.setenv(setting, "~no-such-user-here/models")
    with pytest.raises(ModelFileError, match=f"{setting}: expected a folder, got .*write the whole path"):
        hub.search_folders()


def bomb(last: str) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    for level in range(1, 9):
        lines.append(f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]")
    return "\n".join(["comfyui:", *(f"  {line}" for line in lines), f"  {last}: *a8"])


HOSTILE = {
    "aliases as a base": bomb("base_path"),
    "aliases as a folder": bomb("vae"),
    "itself": "a: &a\n  vae: *a\n",
    "merged": "a: &a0 {x: 1}\n" + "".join(f"b{n}: &a{n + 1} {{<<: [{', '.join([f'*a{n}'] * 9)}]}}\n" for n in range(9)),
    "deep": "a: " + "[" * 5_000,
    "a huge number": "a: {vae: " + "9" * 20_000 + "}",
    "a date that is none": "a: {vae: 2001-99-99}",
    "large": "# " + "x" * 70_000,
    "a base that is a list": "a: {base_path: [x], vae: y}",
    "a home of nobody": "a: {base_path: ~no-such-user-here/x, vae: y}",
    "binary": "a: !!binary \xff",
    "python": "a: !!python/object/apply:os.system [exit]",
    "a key that is a list": "? [a]\n: b",
    "a text": "only a text",
    "control characters": "a: \x01",
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_yaml_is_one_sentence_and_quick(kind, tmp_path):
    file = tmp_path / "extra_model_paths.yaml"
    file.write_text(HOSTILE[kind], encoding="utf-8")
    began = time.process_time()
    with pytest.raises(ModelFileError) as caught:
        extra_folders(file)
    assert time.process_time() - began < second()
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 800


def test_aliases_that_people_use_are_followed(tmp_path):
    file = tmp_path / "extra_model_paths.yaml"
    file.write_text(
        "shared: &shared\n  base_path: &base /models\n  vae: v\nmore:\n  <<: *shared\n  seedvr2: s\n"
        "third:\n  base_path: *base\n  vae: |\n    one\n    two\n",
        encoding="utf-8",
    )
    folders = [path.as_posix() for path in extra_folders(file)[1]]
    assert folders == ["/models/v", "/models/v", "/models/s", "/models/one", "/models/two"]


INSIDE = [
    "a.gguf",
    "sub/a.gguf",
    "sub\\a.gguf",
    "..a.gguf",
    "\u00fcber \u6587.gguf",
    "caf\udce9.gguf",
    "conx.gguf",
    "a" * 250,
]
OUTSIDE = [
    *("", ".", "..", "./a", "../a", "..\\a", "a/../b", "a\\..\\b", "/a", "\\a", "\\Users\\x", "C:x", "C:\\x", "c:/x"),
    *(
        "\\\\server\\share\\x",
        "//server/share/x",
        "\\\\?\\C:\\x",
        "\\\\.\\NUL",
        "nul",
        "NUL.gguf",
        "sub/con.safetensors",
    ),
    *("COM1", "lpt9.txt", "CONIN$", "a\0b", "a\nb", "a\x1b[2J", ".. /x", "a/. ./b", "...", "a/ /b", "a//b", "a.", "a "),
    *("x" * 256, "a/" * 600 + "b", "\ud800.gguf"),
]


@pytest.mark.parametrize("name", INSIDE)
def test_names_that_stay_inside(name):
    assert stays_inside(name)


@pytest.mark.parametrize("name", OUTSIDE)
def test_names_that_leave_the_folder_or_mean_a_device_anywhere(name):
    assert not stays_inside(name)
    assert not is_plain_name(name)


def test_plain_names_and_the_registrys():
    assert not any(is_plain_name(name) for name in ("a/b", "a\\b", ".hidden", "a:b"))
    assert all(is_plain_name(model.name) for model in registry.MODEL_FILES)


def test_hidden_files_and_folders_are_no_models_and_links_are_the_users_own(tmp_path):
    (tmp_path / "models" / ".seedvr2-x").mkdir(parents=True)
    elsewhere = tmp_path / "elsewhere.gguf"
    for path in (elsewhere, tmp_path / "models" / "._a.gguf", tmp_path / "models" / ".seedvr2-x" / "converting.gguf"):
        path.touch()
    (tmp_path / "models" / "link.gguf").symlink_to(elsewhere)
    assert [path.name for path in model_paths(tmp_path / "models")] == ["link.gguf"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
def test_a_name_that_is_no_utf8_is_listed(tmp_path):
    raw = os.fsencode(tmp_path) + b"/caf\xe9.gguf"
    os.close(os.open(raw, os.O_CREAT))
    (model,) = hub.local_models([tmp_path])
    assert os.fsencode(model.path) == raw
    assert hub.find_model(model.name, folders=[tmp_path]) == model.path
