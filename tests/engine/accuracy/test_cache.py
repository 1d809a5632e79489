"""The choice of layers is remembered for the weights, the recipe and the architecture that it was made for."""

import json
from pathlib import Path

import pytest

from seedvr2_engine.engine.accuracy import check as check_module
from seedvr2_engine.engine.accuracy.cache import cache_path
from seedvr2_engine.loading import load_vae
from seedvr2_engine.quant import QuantRecipe

from .rounded_decoder import VICTIM, run

pytestmark = pytest.mark.usefixtures("calibrated_once")


def test_the_choice_is_kept_for_the_next_run(outlier, clip, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    file = cache_path(outlier, QuantRecipe("fp8"), "sm_90")
    assert tmp_path in file.parents
    first, _ = run(outlier, clip, limit=40, cache_file=file)
    monkeypatch.setattr(check_module, "layer_errors", None)
    monkeypatch.setattr(check_module, "sample_clips", None)
    second, tried = run(outlier, None, limit=40, cache_file=file)
    assert second.from_cache
    assert (second.kept, second.psnr_db) == (first.kept, first.psnr_db)
    assert [r.layer_precision(VICTIM)[0] for r in tried] == ["fp16"]
    assert "earlier" in second.describe()
    assert [path.suffix for path in file.parent.iterdir()] == [".json"]


def test_other_weights_recipes_and_architectures_have_their_own_choice(nano, outlier):
    recipe = QuantRecipe("fp8")
    paths = {
        cache_path(nano, recipe, "sm_90"),
        cache_path(outlier, recipe, "sm_90"),
        cache_path(nano, recipe, "sm_89"),
        cache_path(nano, QuantRecipe("int8"), "sm_90"),
        cache_path(nano, recipe.keeping_in_16_bits(VICTIM, "a test"), "sm_90"),
    }
    assert len(paths) == 5
    assert cache_path(load_vae("nano"), recipe, "sm_90") in paths


@pytest.mark.parametrize("content", ["", "[]", '{"kept": [{}]}', '{"kept": 5}', "\x00"])
def test_a_damaged_or_unwritable_cache_is_measured_again(nano, clip, tmp_path, content):
    file = tmp_path / "choice.json"
    file.write_text(content)
    result, _ = run(nano, clip, limit=30, cache_file=file)
    assert not result.from_cache
    assert json.loads(file.read_text())["psnr_db"] == result.psnr_db
    blocked = tmp_path / "choice.json" / "below a file.json"
    assert run(nano, clip, limit=30, cache_file=blocked)[0].psnr_db == result.psnr_db


def test_another_limit_is_measured_again(nano, clip, tmp_path):
    file = tmp_path / "choice.json"
    run(nano, clip, limit=30, cache_file=file)
    assert not run(nano, clip, limit=31, cache_file=file)[0].from_cache


def test_without_a_home_nothing_is_kept(nano, monkeypatch):
    def unknown(*_):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", unknown)
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    assert cache_path(nano, QuantRecipe("fp8"), "sm_90") is None
