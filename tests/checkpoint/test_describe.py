"""Descriptions of checkpoint files."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from seedvr2_engine.checkpoint.convert import convert_to_gguf
from seedvr2_engine.checkpoint.describe import TypeUse, describe_checkpoint
from seedvr2_engine.errors import ModelFileError
from seedvr2_engine.models.vae.config import VAEConfig

TINY = VAEConfig(block_out_channels=(32, 64, 32, 32))


def test_a_safetensors_vae(golden_dir: Path) -> None:
    description = describe_checkpoint(golden_dir / "vae_tiny.safetensors")
    assert (description.format, description.architecture) == ("safetensors", "SeedVR2 VAE")
    assert description.vae == TINY
    assert (description.tensors, description.parameters) == (250, 2_517_795)
    assert description.types == (TypeUse("F16", 250, 2_517_795, 5_035_590),)
    assert description.file_bytes == (golden_dir / "vae_tiny.safetensors").stat().st_size
    assert description.layouts == ("native",)
    assert description.metadata["seed"] == "A"
    assert description.problems == ()


def test_a_converted_vae(golden_dir: Path, tmp_path: Path) -> None:
    report = convert_to_gguf(golden_dir / "vae_tiny.safetensors", tmp_path / "a.gguf", "Q8_0")
    description = describe_checkpoint(report.target)
    assert description.vae == TINY
    assert {use.type: use.tensors for use in description.types} == report.tensors_by_type
    assert description.types[0].type == "Q8_0"
    assert description.layouts == ("native", "reshaped")
    assert not any("orig_shape" in key for key in description.metadata)
    as_json = json.loads(description.to_json())
    assert as_json["vae"]["block_out_channels"] == [32, 64, 32, 32]
    assert as_json["path"] == str(report.target)
    assert as_json["types"][0]["tensors"] == 71


def test_problems_are_told_instead_of_raised(golden_dir: Path, tmp_path: Path) -> None:
    description = describe_checkpoint(golden_dir / "vae_gguf_collapsed.gguf")
    assert description.architecture == "SeedVR2 VAE"
    assert description.vae is None
    assert "expected the tensor encoder.down_blocks.0" in description.problems[0]

    state = load_file(golden_dir / "vae_tiny.safetensors")
    del state["decoder.conv_out.weight"]
    save_file(state, tmp_path / "a.safetensors")
    description = describe_checkpoint(tmp_path / "a.safetensors")
    assert description.vae == TINY
    assert "1 missing (decoder.conv_out.weight)" in description.problems[0]


def test_transformer(golden_dir: Path) -> None:
    description = describe_checkpoint(golden_dir / "dit_tiny_7b.safetensors")
    assert (description.architecture, description.vae, description.problems) == ("SeedVR2 DiT", None, ())
    assert description.dit is not None
    assert description.dit.family == "7b"


def test_incomplete_transformer(tmp_path: Path) -> None:
    save_file({"blocks.0.attn.proj_qkv.vid.weight": torch.zeros(2, 3)}, tmp_path / "a.safetensors")
    description = describe_checkpoint(tmp_path / "a.safetensors")
    assert (description.architecture, description.dit) == ("SeedVR2 DiT", None)
    assert "vid_in.proj.bias" in description.problems[0]


def test_other_models(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(2, 3)}, tmp_path / "a.safetensors", {"note": "two\nlines"})
    description = describe_checkpoint(tmp_path / "a.safetensors")
    assert (description.architecture, description.vae, description.problems) == ("unknown", None, ())
    assert description.metadata == {"note": "'two\\nlines'"}


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError):
        describe_checkpoint(tmp_path / "absent")
