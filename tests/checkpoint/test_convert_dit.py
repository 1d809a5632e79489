"""Transformers converted to every type and back: what is written, what is lost, what it says of itself."""

import hashlib
import json
from functools import cache
from pathlib import Path

import gguf
import pytest
import torch
from safetensors.torch import load_file, save_file

from seedvr2_engine.checkpoint.base import TensorInfo
from seedvr2_engine.checkpoint.convert import (
    LOSSES_KEY,
    SAFETENSORS_FORMATS,
    SOURCE_HASH_KEY,
    WRITABLE_TYPES,
    ConversionReport,
    convert_to_gguf,
    convert_to_safetensors,
)
from seedvr2_engine.checkpoint.describe import describe_checkpoint
from seedvr2_engine.checkpoint.detect_dit import load_text
from seedvr2_engine.checkpoint.locating.registry import MODEL_FILES
from seedvr2_engine.checkpoint.opening import open_checkpoint
from seedvr2_engine.checkpoint.writing.entries import dit_entries
from seedvr2_engine.checkpoint.writing.safetensors_writer import layout_of, nbytes_of
from seedvr2_engine.errors import CheckpointError, InvalidArgumentError, OutputError
from seedvr2_engine.loading_dit import NANO_DIT, load_dit
from seedvr2_engine.models.dit.config import PUBLIC_3B, PUBLIC_7B, DiTConfig
from seedvr2_engine.models.dit.model import NaDiT
from tests.checkpoint.fuzz.defined_values import DefinedFile

from .test_detect_dit import TEXTS, Listing

State = dict[str, torch.Tensor]
SMALL = DiTConfig("3b", width=64, layers=3, separate_layers=1, heads=2, head_width=32, mlp_width=256, text_width=96)
ROTATED = sum(".mlp." in name and name.endswith("proj_out.weight") for name in SMALL.tensor_shapes())
"""Matrices with columns in groups of 256."""
MATRICES = sum(name.startswith("blocks.") and len(shape) == 2 for name, shape in SMALL.tensor_shapes().items())

# Relative RMS over all weights, uniform random numbers; measured 0, 1.4e-4, 1.2e-3, 1.8e-2, 2.7e-3, 2.9e-3, 1.7e-2,
# 7.1e-2, and in GGUF 2.7e-3, 2.1e-2, 2.2e-2, 4.3e-2, 4.6e-2.
LOSS = {
    "F32": 0.0,
    "F16": 3e-4,
    "BF16": 2e-3,
    "FP8": 3e-2,
    "INT8": 6e-3,
    "INT8_CONVROT": 6e-3,
    "MXFP8": 3e-2,
    "NVFP4": 1.1e-1,
    "Q8_0": 6e-3,
    "Q5_1": 3e-2,
    "Q5_0": 3e-2,
    "Q4_1": 6e-2,
    "Q4_0": 7e-2,
}


@cache
def weights() -> State:
    torch.manual_seed(3)
    text = torch.randn(7, 96).bfloat16()
    state = {name: tensor.clone() for name, tensor in NaDiT(SMALL).state_dict().items()}
    return {**state, "positive_conditioning": text, "negative_conditioning": -text}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    save_file(weights(), tmp_path / "source.safetensors")
    return tmp_path / "source.safetensors"


def convert(source: Path, kind: str, target: Path | None = None, *, in_gguf: bool = False) -> ConversionReport:
    is_gguf = in_gguf or kind not in SAFETENSORS_FORMATS
    target = target or source.with_name(f"{kind}.{'gguf' if is_gguf else 'safetensors'}")
    return (convert_to_gguf if is_gguf else convert_to_safetensors)(source, target, kind)


def relative_rms(path: Path, truth: State) -> float:
    state = load_dit(path).state_dict()
    lost = sum((state[name].double() - truth[name].double()).square().sum().item() for name in state)
    return (lost / sum(truth[name].double().square().sum().item() for name in state)) ** 0.5


@pytest.mark.parametrize("kind", LOSS)
def test_there_and_back(source: Path, kind: str) -> None:
    report = convert(source, kind)
    loss = relative_rms(report.target, weights())
    assert loss <= LOSS[kind]
    assert loss >= LOSS[kind] / 4
    assert report.target_bytes == report.target.stat().st_size
    assert sum(report.tensors_by_type.values()) == len(weights())
    assert not report.lacks_text
    with open_checkpoint(report.target) as checkpoint:
        assert torch.equal(load_text(checkpoint), weights()["positive_conditioning"].float())  # type: ignore[arg-type]
    # What the quantised file stands for comes back without a further loss.
    for container in ("safetensors", "gguf"):
        back = report.target.with_name(f"back.{container}")
        assert convert(report.target, "F32", back, in_gguf=container == "gguf").relative_rms == 0
        first, second = load_dit(report.target).state_dict(), load_dit(back).state_dict()
        assert all(torch.equal(first[name], second[name]) for name in first)
    assert report.relative_rms == pytest.approx(loss, rel=1e-3, abs=1e-12)


@pytest.mark.parametrize(
    ("kind", "counts", "layout"),
    [
        ("FP8", {"FP8": MATRICES}, {"FP8 E4M3, a scale a tensor": MATRICES}),
        ("INT8", {"INT8": MATRICES}, {"INT8, a scale a row": MATRICES}),
        (
            "INT8_CONVROT",
            {"INT8": MATRICES - ROTATED, "INT8_CONVROT": ROTATED},
            {"INT8, a scale a row": MATRICES - ROTATED, "INT8, a scale a row, rotated by 256": ROTATED},
        ),
        ("MXFP8", {"MXFP8": MATRICES}, {"MXFP8": MATRICES}),
        ("NVFP4", {"NVFP4": MATRICES}, {"NVFP4": MATRICES}),
        ("Q4_0", {"Q4_0": MATRICES}, {"Q4_0": MATRICES}),
    ],
)
def test_what_is_quantised(source: Path, kind: str, counts: dict[str, int], layout: dict[str, int]) -> None:
    report = convert(source, kind)
    rest = {name: count for name, count in report.tensors_by_type.items() if name not in ("F16", "F32", "BF16")}
    assert rest == counts
    description = describe_checkpoint(report.target)
    assert {use.type: use.tensors for use in description.quantised} == layout
    assert description.problems == ()
    with open_checkpoint(report.target) as checkpoint:
        for name, info in checkpoint.tensors.items():
            is_matrix = name.startswith("blocks.") and len(info.shape) == 2
            assert (info.quantisation is not None) == is_matrix, name


@pytest.mark.parametrize("kind", SAFETENSORS_FORMATS)
def test_another_reader_sees_the_same(source: Path, kind: str) -> None:
    report = convert(source, kind)
    file = DefinedFile(report.target.read_bytes())
    load_file(report.target)  # The package's own reader takes it.
    with open_checkpoint(report.target) as checkpoint:
        for name in checkpoint.tensors:
            values = checkpoint.load(name).double().flatten()
            truth = torch.from_numpy(file.values(name).astype("f8"))
            assert (values - truth).abs().max() <= 4e-7 * truth.abs().max(), name
    for name, entry in file.header.items():
        width = {"F32": 4, "F16": 2, "BF16": 2}.get(entry["dtype"], 1)
        assert entry["data_offsets"][0] % width == 0, name


def test_what_public_loaders_rely_on(source: Path) -> None:
    reader = gguf.GGUFReader(convert(source, "Q8_0").target)
    assert reader.get_field("general.architecture").contents() == "seedvr2"
    kinds = {tensor.name: tensor.tensor_type.name for tensor in reader.tensors}
    assert kinds["blocks.0.attn.proj_qkv.vid.weight"] == "Q8_0"
    assert kinds["vid_in.proj.weight"] == kinds["txt_in.weight"] == "F16"
    assert kinds["vid_in.proj.bias"] == kinds["positive_conditioning"] == "F32"


def test_notes_are_comfyuis(source: Path) -> None:
    file = DefinedFile(convert(source, "INT8_CONVROT").target.read_bytes())
    assert file.note("blocks.0.mlp.vid.proj_out.weight") == {
        "format": "int8_tensorwise",
        "convrot": True,
        "convrot_groupsize": 256,
    }
    assert file.note("blocks.0.mlp.vid.proj_in.weight") == {"format": "int8_tensorwise"}
    assert file.header["blocks.0.mlp.vid.proj_in.weight_scale"]["shape"] == [256, 1]
    assert file.header["positive_conditioning"]["dtype"] == "BF16"


# Bytes of the public files in Comfy-Org/SeedVR2, which have the same tensors and no metadata.
@pytest.mark.parametrize(
    ("config", "kind", "public_bytes"),
    [
        (PUBLIC_7B, "F16", 16_480_583_960),
        (PUBLIC_3B, "INT8_CONVROT", 3_458_259_704),
        (PUBLIC_7B, "INT8_CONVROT", 8_334_897_976),
        (PUBLIC_7B, "NVFP4", 4_759_694_792),
        (PUBLIC_3B, "MXFP8", 3_557_857_550),
        (PUBLIC_3B, "NVFP4", 1_996_687_726),
        (PUBLIC_7B, "MXFP8", 8_581_725_960),
    ],
)
def test_sizes_are_those_of_the_public_files(config: DiTConfig, kind: str, public_bytes: int) -> None:
    class WithTexts(Listing):
        def _read(self, info: TensorInfo, *_: object) -> torch.Tensor:
            return torch.zeros(info.count)

    checkpoint = WithTexts({**config.tensor_shapes(), **TEXTS})
    entries = dit_entries(checkpoint, config, kind, is_gguf=False)
    text, places = layout_of(entries, {})
    assert 8 + len(text) + sum(map(nbytes_of, entries)) == public_bytes
    assert len(places) == len(json.loads(text))
    assert public_bytes in [model.size_bytes for model in MODEL_FILES if model.is_native]


def test_files_say_what_was_lost(source: Path) -> None:
    first = convert(source, "NVFP4")
    assert first.source_losses == ""
    metadata = describe_checkpoint(first.target).metadata
    assert metadata[LOSSES_KEY] == f"NVFP4 {first.relative_rms:.2e}"
    assert metadata[SOURCE_HASH_KEY] == hashlib.sha256(source.read_bytes()).hexdigest()
    second = convert(first.target, "Q5_0")
    assert second.source_losses == metadata[LOSSES_KEY]
    third = convert(second.target, "F32")
    assert third.source_losses == f"{metadata[LOSSES_KEY]}; Q5_0 {second.relative_rms:.2e}"
    assert describe_checkpoint(third.target).metadata[LOSSES_KEY] == f"{third.source_losses}; F32 0.00e+00"
    # What lost nothing is not told again.
    assert convert(third.target, "Q4_0").source_losses == third.source_losses


def test_losses_that_nobody_wrote_down(tmp_path: Path) -> None:
    state = {name: t.to(torch.float8_e4m3fn) if t.ndim == 2 else t for name, t in weights().items()}
    save_file(state, tmp_path / "source.safetensors")
    report = convert(tmp_path / "source.safetensors", "F16")
    assert report.source_losses == "FP8 E4M3 (not known how much)"
    assert describe_checkpoint(report.target).metadata[LOSSES_KEY].startswith(f"{report.source_losses}; F16 ")


def test_a_source_without_text_and_with_a_prefix(tmp_path: Path) -> None:
    state = {f"model.diffusion_model.{n}": t for n, t in weights().items() if not n.endswith("conditioning")}
    save_file(state, tmp_path / "source.safetensors")
    report = convert(tmp_path / "source.safetensors", "MXFP8")
    assert report.lacks_text
    assert relative_rms(report.target, weights()) <= LOSS["MXFP8"]


def test_the_shipped_transformer(tmp_path: Path) -> None:
    report = convert_to_safetensors(NANO_DIT, tmp_path / "a.safetensors", "INT8")
    assert report.source_losses == "Q8_0 (not known how much)"
    assert report.relative_rms < 1e-2
    load_dit(report.target)


def test_sizes_that_suit_no_format(golden_dir: Path, tmp_path: Path) -> None:
    for kind in ("MXFP8", "NVFP4"):
        with pytest.raises(CheckpointError, match=f"expected matrices whose sizes suit {kind}, found none"):
            convert_to_safetensors(golden_dir / "dit_tiny_7b.safetensors", tmp_path / "a.safetensors", kind)
    assert list(tmp_path.iterdir()) == []


def test_a_vae_becomes_no_safetensors_file(golden_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"found a VAE; choose a name ending in \.gguf"):
        convert_to_safetensors(golden_dir / "vae_tiny.safetensors", tmp_path / "a.safetensors", "F16")
    with pytest.raises(InvalidArgumentError, match="INT8_CONVROT, MXFP8, NVFP4, got 'Q8_0'"):
        convert_to_safetensors(golden_dir / "vae_tiny.safetensors", tmp_path / "a.safetensors", "Q8_0")


@pytest.mark.parametrize("kind", ["FP8", "NVFP4", "Q8_0"])
def test_values_that_do_not_fit(tmp_path: Path, kind: str) -> None:
    state = {name: tensor.clone() for name, tensor in weights().items()}
    state["vid_in.proj.weight"][1, 2] = 1e6
    save_file(state, tmp_path / "source.safetensors")
    with pytest.raises(CheckpointError, match=r"vid_in.proj.weight .* the range of F16, found 1e\+06; convert to F32"):
        convert(tmp_path / "source.safetensors", kind)
    assert [path.name for path in tmp_path.iterdir()] == ["source.safetensors"]


def test_only_conversions_are_overwritten(source: Path, golden_dir: Path, tmp_path: Path) -> None:
    report = convert(source, "INT8")
    again = convert_to_safetensors(source, report.target, "FP8", overwrite=True)
    assert again.tensors_by_type["FP8"] == MATRICES
    precious = tmp_path / "precious.safetensors"
    save_file(weights(), precious)
    vae = tmp_path / "vae.safetensors"
    vae.write_bytes((golden_dir / "vae_tiny.safetensors").read_bytes())
    for target in (precious, vae):
        before = target.read_bytes()
        with pytest.raises(OutputError, match="expected an older conversion of a transformer to safetensors"):
            convert_to_safetensors(source, target, "FP8", overwrite=True)
        assert target.read_bytes() == before


class Stop(BaseException):
    """What Ctrl-C raises in the middle of a conversion."""


@pytest.mark.parametrize("kind", ["NVFP4", "Q8_0"])
def test_an_interrupted_conversion_leaves_nothing(source: Path, kind: str) -> None:
    def stop(done: int, total: int) -> None:
        if done > total // 2:
            raise Stop

    write = convert_to_gguf if kind == "Q8_0" else convert_to_safetensors
    with pytest.raises(Stop):
        write(source, source.with_name("a"), kind, on_progress=stop)
    assert [path.name for path in source.parent.iterdir()] == ["source.safetensors"]


def test_every_type_was_converted() -> None:
    assert LOSS.keys() == {*SAFETENSORS_FORMATS, *WRITABLE_TYPES}
