"""The table of public model files: consistent rows, pinned, and found by exact name only."""

import re

import pytest

from seedvr2_engine.checkpoint.locating.registry import MODEL_FILES, ModelFile, find
from seedvr2_engine.errors import ModelFileError


@pytest.mark.parametrize("model", MODEL_FILES, ids=lambda model: model.name)
def test_every_row_is_pinned_and_plain(model: ModelFile) -> None:
    assert re.fullmatch(r"[0-9a-f]{64}", model.sha256)
    assert model.revision is None or re.fullmatch(r"[0-9a-f]{40}", model.revision)
    assert re.fullmatch(r"[\w.-]+/[\w.-]+", model.repository)
    assert re.fullmatch(r"[\w.-]+", model.name)
    assert model.path.split("/")[-1] == model.name
    assert ".." not in model.path
    assert model.size_bytes > 100_000
    assert model.description


def test_names_are_unique() -> None:
    names = [model.name for model in MODEL_FILES]
    assert len(set(names)) == len(names)


def test_equal_hashes_mean_equal_sizes_and_kinds() -> None:
    seen: dict[str, tuple[int, str]] = {}
    for model in MODEL_FILES:
        assert seen.setdefault(model.sha256, (model.size_bytes, model.kind)) == (model.size_bytes, model.kind)


def test_the_vae_is_the_public_one() -> None:
    vae = find("ema_vae_fp16.safetensors")
    assert (vae.kind, vae.repository, vae.size_bytes) == ("vae", "numz/SeedVR2_comfyUI", 501_324_814)
    assert vae.sha256 == "20678548f420d98d26f11442d3528f8b8c94e57ee046ef93dbb7633da8612ca1"


def test_pickles_are_only_the_text_embedding() -> None:
    others = [model for model in MODEL_FILES if not model.name.endswith((".safetensors", ".gguf"))]
    assert [(model.name, model.kind) for model in others] == [("pos_emb.pt", "text")]


def test_a_misspelt_name_gets_the_closest_ones() -> None:
    with pytest.raises(ModelFileError, match=r"ema_vae_f16.safetensors: .*ema_vae_fp16\.safetensors.*seedvr2 models"):
        find("ema_vae_f16.safetensors")


def test_a_strange_name_gets_no_suggestion() -> None:
    with pytest.raises(ModelFileError, match="seedvr2 models") as caught:
        find("????")
    assert "closest" not in str(caught.value)
