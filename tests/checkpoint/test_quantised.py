"""Quantised layouts of safetensors: every one is read exactly, and what is not quite right is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from seedvr2_engine.checkpoint.base import Checkpoint
from seedvr2_engine.checkpoint.containers import unpack as unpacking
from seedvr2_engine.checkpoint.containers.unpack import UNPACKED_TYPES, unpack
from seedvr2_engine.checkpoint.opening import open_checkpoint
from seedvr2_engine.errors import CheckpointError, InvalidArgumentError
from tests.checkpoint.fuzz.defined_values import DefinedFile
from tests.checkpoint.fuzz.forged_files import safetensors_file
from tests.checkpoint.fuzz.quantised_files import (
    Entry,
    all_layers,
    floats,
    fp8_layer,
    int8_layer,
    mxfp8_layer,
    note,
    nvfp4_layer,
    without_notes,
)

GOLDEN = ("fp8", "fp8_old", "header", "int8", "int8_convrot", "mxfp8", "nvfp4")
# No rounding but that of the definition itself; NVFP4's two scales may be multiplied in another order.
TOLERANCE = {"header": 2e-6, "int8_convrot": 2e-6, "nvfp4": 2e-7}


def opened(tmp_path: Path, entries: list[Entry], metadata: dict[str, str] | None = None) -> Checkpoint:
    path = tmp_path / "file.safetensors"
    path.write_bytes(safetensors_file(entries, metadata))
    return open_checkpoint(path)


def assert_as_defined(checkpoint: Checkpoint) -> None:
    file = DefinedFile(checkpoint.path.read_bytes())
    for name, info in checkpoint.tensors.items():
        truth = file.values(name)
        values = checkpoint.load(name).double().numpy().reshape(-1)
        assert values.shape == (info.count,)
        np.testing.assert_allclose(values, truth.astype(np.float64), rtol=3e-7, atol=4e-7 * np.abs(truth).max())


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_layers(golden_dir: Path, name: str) -> None:
    expected = load_file(golden_dir / f"quant_{name}_expected.safetensors")
    products = {key for key in expected if key.rpartition(".")[2] in ("x", "y", "x_rot_int8", "x_scale", "y_int8")}
    with open_checkpoint(golden_dir / f"quant_{name}.safetensors") as checkpoint:
        assert checkpoint.tensors.keys() == expected.keys() - products
        for key in checkpoint.tensors:
            values = checkpoint.load(key, shape=tuple(expected[key].shape), dtype=torch.float32)
            error = (values - expected[key]).abs().max() / expected[key].abs().max()
            assert error <= TOLERANCE.get(name, 0), key


def test_golden_products_of_rotated_layers(golden_dir: Path) -> None:
    """With inputs rotated and in INT8, the stored numbers give the product that they are for."""
    expected = load_file(golden_dir / "quant_int8_convrot_expected.safetensors")
    with open_checkpoint(golden_dir / "quant_int8_convrot.safetensors") as checkpoint:
        for layer in sorted({key.removesuffix(".y") for key in expected if key.endswith(".y")}):
            x, y, bias = expected[f"{layer}.x"], expected[f"{layer}.y"], expected[f"{layer}.bias"]
            weight = checkpoint.load(f"{layer}.weight")
            product = x.double() @ weight.double().T + bias.double()
            assert (product - y).abs().max() <= 1e-5 * y.abs().max()

            packed = checkpoint.load_packed(f"{layer}.weight")
            assert packed is not None
            assert packed.scale is not None
            stored = packed.data.view(torch.int8).view(weight.shape).double()
            inputs = expected[f"{layer}.x_rot_int8"].double()
            product = (inputs @ stored.T) * expected[
                f"{layer}.x_scale"
            ].double() * packed.scale.double() + bias.double()
            y_int8 = expected[f"{layer}.y_int8"]
            assert (product - y_int8).abs().max() <= 2e-6 * y_int8.abs().max()
            assert 1e-3 < (y_int8 - y).norm() / y.norm() < 2e-2


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
@pytest.mark.parametrize("in_header", [False, True])
def test_every_layout_is_read_as_defined(tmp_path: Path, prefix: str, in_header: bool) -> None:
    entries, metadata = without_notes(all_layers(prefix), prefix) if in_header else (all_layers(prefix), None)
    with opened(tmp_path, entries, metadata) as checkpoint:
        assert_as_defined(checkpoint)
        assert [info.layout for info in checkpoint.tensors.values()] == [
            "FP8 E4M3, a scale a tensor",
            "INT8, a scale a row",
            "INT8, a scale a row, rotated by 16",
            "INT8, a scale a row, rotated by 256",
            "MXFP8",
            "MXFP8",
            "NVFP4",
            "NVFP4",
            None,
            "FP8 E4M3",
        ]
        assert not any(info.is_integer for info in checkpoint.tensors.values())


def test_sizes_count_what_belongs_to_a_weight(tmp_path: Path) -> None:
    with opened(tmp_path, [*mxfp8_layer("a", 160, 160), *nvfp4_layer("b", 144, 80)]) as checkpoint:
        assert checkpoint.tensors["a.weight"].nbytes == 160 * 160 + 256 * 8
        assert checkpoint.tensors["b.weight"].nbytes == 144 * 40 + 256 * 8
        assert checkpoint.tensors["b.weight"].shape == (144, 80)


def test_padding_is_taken_off(tmp_path: Path) -> None:
    with opened(tmp_path, [*mxfp8_layer("a", 64, 96), *nvfp4_layer("b", 48, 32)]) as checkpoint:
        whole = checkpoint.load("a.weight")
        part = checkpoint.load("a.weight", shape=(33, 70), dtype=torch.bfloat16)
        assert torch.equal(part, whole[:33, :70].bfloat16())
        assert part.is_contiguous()
        assert torch.equal(checkpoint.load("b.weight", shape=(33, 17)), checkpoint.load("b.weight")[:33, :17])
        for shape in ((32, 96), (64, 64), (65, 96), (33, 70, 1)):
            with pytest.raises(CheckpointError, match=r"expected .* got \(64, 96\)"):
                checkpoint.load("a.weight", shape=shape)


def test_what_engines_get(tmp_path: Path) -> None:
    rotated = int8_layer("b", 6, 32, convrot=True, convrot_groupsize=16)
    with opened(
        tmp_path,
        [*fp8_layer("a", 4, 24), *rotated, *mxfp8_layer("c", 160, 160), *nvfp4_layer("d", 16, 32), *all_layers("z.")],
    ) as checkpoint:
        packed = {name[0]: checkpoint.load_packed(f"{name}.weight") for name in "abcd"}
        assert [packed[name].type for name in "abcd"] == ["F8_E4M3", "INT8", "MXFP8", "NVFP4"]  # type: ignore[union-attr]
        fp8, int8, mxfp8, nvfp4 = (packed[name] for name in "abcd")
        assert fp8 is not None
        assert (fp8.scale, fp8.input_scale) == (torch.tensor([0.013]), torch.tensor([7.0]))
        assert fp8.full_precision
        assert int8 is not None
        assert int8.scale is not None
        assert (int8.scale.shape, int8.rotation, int8.full_precision, int8.shape) == ((6,), 16, False, None)
        assert mxfp8 is not None
        assert mxfp8.scale is not None
        assert (mxfp8.scale.shape, mxfp8.scale.dtype, mxfp8.shape) == ((256, 8), torch.uint8, (160, 160))
        assert nvfp4 is not None
        assert nvfp4.scale is not None
        assert nvfp4.tensor_scale is not None
        assert nvfp4.pre_scale is not None
        assert (nvfp4.scale.shape, nvfp4.scale.dtype, nvfp4.shape) == ((128, 4), torch.float8_e4m3fn, (16, 32))
        assert (nvfp4.tensor_scale.shape, nvfp4.pre_scale.shape) == ((), (32,))
        for name, info in checkpoint.tensors.items():
            stored = checkpoint.load_packed(name)
            if stored is None:
                assert info.type == "F16"
            else:
                assert stored.type in UNPACKED_TYPES
                assert torch.equal(
                    unpack(stored, info.shape, torch.float16), checkpoint.load(name, dtype=torch.float16)
                )


@pytest.mark.parametrize("size", [0, 2])
def test_what_older_files_ask_for(tmp_path: Path, size: int) -> None:
    entries = [*missing(fp8_layer("a", 4, 24), "a.comfy_quant"), ("scaled_fp8", "F8_E4M3", (size,), bytes(size))]
    with opened(tmp_path, entries) as checkpoint:
        packed = checkpoint.load_packed("a.weight")
        assert list(checkpoint.tensors) == ["a.weight"]
    assert packed is not None
    assert packed.full_precision == (size == 2)


def test_pieces_join_without_a_seam(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [
        *mxfp8_layer("a", 416, 64),
        *nvfp4_layer("b", 400, 48),
        *int8_layer("c", 300, 64, convrot=True, convrot_groupsize=64),
        *fp8_layer("d", 300, 40),
    ]
    with opened(tmp_path, entries) as checkpoint:
        whole = {name: checkpoint.load(name) for name in checkpoint.tensors}
        monkeypatch.setattr(unpacking, "_STEP_VALUES", 100)
        for name, values in whole.items():
            assert torch.equal(checkpoint.load(name), values)


def test_packed_weights_that_cannot_be_unpacked(tmp_path: Path) -> None:
    with opened(tmp_path, int8_layer("a", 6, 32)) as checkpoint:
        packed = checkpoint.load_packed("a.weight")
    assert packed is not None
    with pytest.raises(InvalidArgumentError, match="got 'INT3'"):
        unpack(packed._replace(type="INT3"), (6, 32), torch.float32)


def changed(entries: list[Entry], name: str, **fields: Any) -> list[Entry]:
    """The entries with one of them renamed, or with another type, shape, or bytes that fit the shape."""
    out = []
    for entry in entries:
        old, dtype, shape, raw = entry
        if old == name:
            dtype, shape = fields.get("dtype", dtype), fields.get("shape", shape)
            width = {"F32": 4, "F16": 2, "BF16": 2, "F64": 8}.get(dtype, 1)
            raw = fields.get("raw", (raw + bytes(1 << 16))[: int(np.prod(shape)) * width])
            out.append((fields.get("name", old), dtype, shape, raw))
        else:
            out.append(entry)
    return out


def missing(entries: list[Entry], name: str) -> list[Entry]:
    return [entry for entry in entries if entry[0] != name]


FP8, INT8 = (lambda: fp8_layer("a", 4, 24)), (lambda: int8_layer("a", 6, 32))
MXFP8, NVFP4 = (lambda: mxfp8_layer("a", 64, 64)), (lambda: nvfp4_layer("a", 32, 32))
ROTATED = {"convrot": True}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: missing(FP8(), "a.weight_scale"), "beside this float8_e4m3fn weight, found no weight_scale"),
        (lambda: changed(FP8(), "a.weight", dtype="F8_E5M2"), "of a float8_e4m3fn weight, found F32"),
        (lambda: changed(FP8(), "a.weight_scale", shape=(24,)), r"found F32 \(24,\)"),
        (lambda: [*FP8(), floats("a.weight_scale_2", [1], ())], "expected no such tensor beside a weight in float8"),
        (lambda: [*FP8(), floats("a.pre_quant_scale", [1] * 24, (24,))], "expected no such tensor"),
        (lambda: [*FP8(), floats("a.weight_scale_inv", [1], ())], "expected no such tensor"),
        (lambda: [*FP8(), floats("a.scale_weight", [1], ())], "expected one scale, found two"),
        (lambda: missing(INT8(), "a.comfy_quant"), "of an FP8 weight, found F32"),
        (lambda: missing(INT8(), "a.weight_scale"), "found no weight_scale"),
        (lambda: changed(INT8(), "a.weight", dtype="U8"), "of an INT8 matrix"),
        (lambda: changed(INT8(), "a.weight", shape=(6, 16, 2)), "of an INT8 matrix"),
        (lambda: changed(INT8(), "a.weight_scale", shape=(6, 2)), "one per output channel"),
        (lambda: changed(INT8(), "a.weight_scale", dtype="I32", raw=bytes(24)), "expected a float scale"),
        (lambda: int8_layer("a", 6, 32, convrot=True), "expected columns in groups of 256.*found 32"),
        (lambda: int8_layer("a", 6, 32, convrot=True, convrot_groupsize=8), "16, 64, .*found 8"),
        (lambda: int8_layer("a", 6, 32, convrot=True, convrot_groupsize=0), "found 0"),
        (lambda: int8_layer("a", 6, 32, convrot=True, convrot_groupsize=16.0), "found 16.0"),
        (lambda: int8_layer("a", 6, 32, convrot=1, convrot_groupsize=16), "and its known options, found"),
        (lambda: int8_layer("a", 6, 32, params=[1]), "and its known options"),
        (lambda: int8_layer("a", 6, 32, params={"group_size": 4}), "and its known options"),
        (lambda: missing(MXFP8(), "a.weight_scale"), "beside this mxfp8 weight, found no weight_scale"),
        (lambda: changed(MXFP8(), "a.weight", shape=(64, 48)), r"multiples of 32 \(MXFP8\), found F8_E4M3 \(64, 48\)"),
        (lambda: changed(MXFP8(), "a.weight", shape=(60, 64)), "multiples of 32"),
        (lambda: changed(MXFP8(), "a.weight", shape=(64, 8, 8)), "multiples of 32"),
        (lambda: changed(MXFP8(), "a.weight", shape=(0, 64)), "multiples of 32"),
        (lambda: changed(MXFP8(), "a.weight", dtype="I8"), "expected a matrix of F8_E4M3"),
        (lambda: changed(MXFP8(), "a.weight_scale", shape=(64, 2)), r"MXFP8 scales \(128, 4\) of U8 or F8_E8M0, found"),
        (lambda: changed(MXFP8(), "a.weight_scale", dtype="F8_E4M3"), "found F8_E4M3"),
        (lambda: [*MXFP8(), floats("a.weight_scale_2", [1], ())], "expected no such tensor beside a weight in mxfp8"),
        (lambda: missing(NVFP4(), "a.weight_scale_2"), "found no weight_scale_2"),
        (lambda: missing(NVFP4(), "a.weight_scale"), "found no weight_scale;"),
        (lambda: missing(NVFP4(), "a.comfy_quant"), "a quantisation that cannot be read exactly"),
        (lambda: changed(NVFP4(), "a.weight", dtype="I8"), "expected a matrix of U8 .*multiples of 16"),
        (lambda: changed(NVFP4(), "a.weight", shape=(32, 12)), r"multiples of 16 \(NVFP4\), found U8 \(32, 12\)"),
        (lambda: changed(NVFP4(), "a.weight_scale", dtype="F8_E8M0"), "of F8_E4M3 or U8, found F8_E8M0"),
        (lambda: changed(NVFP4(), "a.weight_scale", shape=(128, 8)), r"\(128, 4\)"),
        (lambda: changed(NVFP4(), "a.weight_scale_2", shape=(2,)), r"float factors \(\) of a.weight, found F32 \(2,\)"),
        (lambda: changed(NVFP4(), "a.weight_scale_2", dtype="U8"), "found U8"),
        (lambda: changed(NVFP4(), "a.pre_quant_scale", shape=(8,)), r"float factors \(32,\)"),
        (lambda: changed(FP8(), "a.comfy_quant", raw=b"{", shape=(1,)), "expected a note of"),
        (lambda: changed(FP8(), "a.comfy_quant", dtype="I8"), "a note of at most 4096 bytes, found I8"),
        (lambda: changed(FP8(), "a.comfy_quant", shape=(5000,)), r"found U8 \(5000,\)"),
        (lambda: changed(FP8(), "a.comfy_quant", raw=b'{"a":' + b"[" * 4000, shape=(4005,)), "expected a note of"),
    ],
)  # fmt: skip
def test_forged_layers_are_refused_with_one_sentence(
    tmp_path: Path, make: Callable[[], list[Entry]], message: str
) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        opened(tmp_path, make())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("notes", "message"),
    [
        ("[", "expected JSON with a note for each"),
        ("[]", "expected JSON with a note"),
        ('{"layers": 3}', "expected JSON with a note"),
        ("[" * 100_000, "expected JSON with a note"),
        ({"b": {"format": "mxfp8"}}, "one weight of the layer b, found 0"),
        ({"a": {"format": "mxfp9"}}, "_quantization_metadata in .*expected a note of"),
        ({"a": 1}, "expected a note of"),
        ({"a": {"format": "nvfp4"}}, "weight_scale_2 beside this nvfp4 weight, found no weight_scale_2"),
    ],
)
def test_forged_notes_in_the_header(tmp_path: Path, notes: object, message: str) -> None:
    entries, _ = without_notes(mxfp8_layer("a", 64, 64))
    text = notes if isinstance(notes, str) else json.dumps({"layers": notes})
    with pytest.raises(CheckpointError, match=message) as caught:
        opened(tmp_path, entries, {"_quantization_metadata": text})
    assert "\n" not in str(caught.value)


def test_two_notes_must_agree(tmp_path: Path) -> None:
    entries = mxfp8_layer("a", 64, 64)
    _, metadata = without_notes(entries)
    with opened(tmp_path, entries, dict(metadata)) as checkpoint:
        assert checkpoint.tensors["a.weight"].layout == "MXFP8"
    entries = [*missing(entries, "a.comfy_quant"), note("a", format="float8_e4m3fn")]
    with pytest.raises(CheckpointError, match=r"found another one in the header than in a\.comfy_quant"):
        opened(tmp_path, entries, dict(metadata))


def test_a_layer_under_two_prefixes_is_nobodys(tmp_path: Path) -> None:
    entries, metadata = without_notes([*int8_layer("a", 6, 32), *int8_layer("vae.a", 6, 32)])
    metadata = {"_quantization_metadata": json.dumps({"layers": {"a": {"format": "int8_tensorwise"}}})}
    with pytest.raises(CheckpointError, match="one weight of the layer a, found 2"):
        opened(tmp_path, entries, metadata)


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    content = safetensors_file(all_layers())
    path = tmp_path / "a.safetensors"
    for size in (*range(0, 3000, 97), *range(3000, len(content), 5000), len(content) - 1):
        path.write_bytes(content[:size])
        with pytest.raises(CheckpointError) as caught:
            open_checkpoint(path)
        assert "\n" not in str(caught.value)


def test_a_wrong_rotation_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seedvr2_engine.quant.int8.rotate", lambda values, group: values)
    with opened(tmp_path, all_layers()) as checkpoint, pytest.raises(AssertionError, match="Mismatched"):
        assert_as_defined(checkpoint)
