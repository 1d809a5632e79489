"""What single arguments mean at their edges."""

from fractions import Fraction

import pytest

from seedvr2_engine.cli import model_files
from seedvr2_engine.cli.arguments import check_count, parse_rate
from seedvr2_engine.errors import InvalidArgumentError, OutputError

from ..conftest import GOLDEN


def test_one_frame_and_no_more_becomes_a_picture(tmp_path):
    check_count(1, tmp_path / "a.png")
    for name in ("a.mp4", "a_%03d.png", "a.webp"):
        check_count(2, tmp_path / name)
    with pytest.raises(OutputError, match="expected one frame for a picture, found 2"):
        check_count(2, tmp_path / "a.png")


def test_two_decimals_of_an_ntsc_rate_suffice():
    assert parse_rate("23.98") == Fraction(24000, 1001)
    assert parse_rate("23.99") == Fraction(2399, 100)


def test_the_first_public_transformer_that_is_here_is_taken(tmp_path, monkeypatch):
    monkeypatch.setattr("seedvr2_engine.checkpoint.locating.hub.search_folders", lambda: [tmp_path])
    for name in ("seedvr2_ema_7b_fp16.safetensors", "seedvr2_ema_3b_fp8_e4m3fn.safetensors"):
        (tmp_path / name).touch()
    first = model_files._first_here(model_files.PUBLIC_DITS)
    assert first == tmp_path / "seedvr2_ema_3b_fp8_e4m3fn.safetensors"
    (tmp_path / "seedvr2_ema_3b_fp16.safetensors").touch()
    assert model_files._first_here(model_files.PUBLIC_DITS) == tmp_path / "seedvr2_ema_3b_fp16.safetensors"


def test_the_small_transformer_goes_with_the_small_vae_alone():
    assert model_files.choose_models("nano", "auto", "auto").vae.name == "nano_vae_q8_0.gguf"
    with pytest.raises(InvalidArgumentError, match="expected the small VAE beside the small transformer"):
        model_files.choose_models("nano", str(GOLDEN / "vae_tiny.safetensors"), "auto")
