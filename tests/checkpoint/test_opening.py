"""Opening files by their content, and reading safetensors with and without FP8 scales."""

import json
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from seedvr2_engine.checkpoint.base import Checkpoint
from seedvr2_engine.checkpoint.opening import open_checkpoint
from seedvr2_engine.errors import CheckpointError, InvalidArgumentError, ModelFileError
from tests.checkpoint.fuzz.forged_files import raw_safetensors, safetensors_file

FLOATS = np.array([[1.0, -2.5, 3.25], [0.1, 65504.0, -1e-3]], np.float32)


def opened(tmp_path: Path, content: bytes, name: str = "file.safetensors") -> Checkpoint:
    path = tmp_path / name
    path.write_bytes(content)
    return open_checkpoint(path)


def test_the_name_of_a_file_does_not_matter(tmp_path: Path, golden_dir: Path) -> None:
    gguf = (golden_dir / "vae_gguf_collapsed.gguf").read_bytes()
    assert opened(tmp_path, gguf, "a.safetensors").format == "gguf"
    plain = safetensors_file([("x", "F32", (2, 3), FLOATS.tobytes())])
    assert opened(tmp_path, plain, "a.gguf").format == "safetensors"
    assert opened(tmp_path, plain, "a.pth").format == "safetensors"


# The first two are what torch.save writes today and what it wrote before version 1.6.
@pytest.mark.parametrize("zipped", [True, False])
def test_pickles_are_refused_with_the_way_out(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "model.safetensors"
    torch.save({"x": torch.ones(2)}, path, _use_new_zipfile_serialization=zipped)
    assert zipfile.is_zipfile(path) == zipped
    with pytest.raises(CheckpointError, match=r"pickle.*can run code.*save_file\(torch.load\(.*weights_only=True"):
        open_checkpoint(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"<!DOCTYPE html><html></html>", "web page"),
        (b"\n<html><body>not found</body></html>", "web page"),
        (b"hello, world, this is a text", "found neither"),
        (b"GGU", "found neither"),
    ],
)
def test_other_files_are_named(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        opened(tmp_path, content)


def test_no_file_and_no_regular_file(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="found none; check the path"):
        open_checkpoint(tmp_path / "absent.gguf")
    with pytest.raises(CheckpointError, match="folder or a device"):
        open_checkpoint(tmp_path)
    with pytest.raises(ModelFileError, match="cannot be read"):
        open_checkpoint(tmp_path / ("x" * 300))


GOOD = safetensors_file([("x", "F32", (2, 3), FLOATS.tobytes())])
ONE = '{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (GOOD[:-1], "truncated or damaged"),
        (GOOD + b"\0", "truncated or damaged"),
        (struct.pack("<Q", 1 << 60) + GOOD[8:], "header of 1152921504606846976 bytes, found only"),
        (raw_safetensors("{" + " " * (3 << 20) + "}"), "at most 2097152 bytes"),
        (raw_safetensors('{"x":' + "[" * 100_000), "truncated or damaged"),
        (raw_safetensors(f'{{"x":{ONE},"x":{ONE}}}', bytes(4)), "x occurs twice"),
        (raw_safetensors(f'{{"x":{ONE},"y":{ONE}}}', bytes(4)), "truncated or damaged"),
        (raw_safetensors('{"x":' + ONE.replace("4]", "8]") + "}", bytes(8)), "truncated or damaged"),
        (raw_safetensors('{"x":' + ONE.replace("[1]", "[18446744073709551615,9]") + "}", bytes(4)), "damaged"),
        (raw_safetensors(b'{"\xff":{}}'), "truncated or damaged"),
        (raw_safetensors('{"x":' + ONE.replace("F32", "F33") + "}", bytes(4)), "truncated or damaged"),
    ],
    ids=["short", "long", "length", "big", "nested", "twice", "overlap", "size", "overflow", "utf8", "dtype"],
)
def test_damaged_safetensors(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        opened(tmp_path, content)
    assert "\n" not in str(caught.value)


def test_values_dtypes_and_metadata(tmp_path: Path) -> None:
    content = safetensors_file(
        [
            ("f32", "F32", (2, 3), FLOATS.tobytes()),
            ("f16", "F16", (6,), FLOATS.astype(np.float16).tobytes()),
            ("bf16", "BF16", (1, 2), struct.pack("<HH", 0x3F80, 0xC020)),
            ("i64", "I64", (), struct.pack("<q", -7)),
            ("none", "F32", (0, 4), b""),
        ],
        {"author": "a test"},
    )
    with opened(tmp_path, content) as checkpoint:
        assert checkpoint.metadata == {"author": "a test"}
        info = checkpoint.tensors["f16"]
        assert (info.shape, info.type, info.nbytes, info.count) == ((6,), "F16", 12, 6)
        assert torch.equal(checkpoint.load("f32"), torch.from_numpy(FLOATS))
        assert checkpoint.load("f16").dtype == torch.float16
        assert torch.equal(checkpoint.load("bf16"), torch.tensor([[1.0, -2.5]], dtype=torch.bfloat16))
        assert checkpoint.load("i64").item() == -7
        assert checkpoint.load("none").shape == (0, 4)
        assert torch.equal(checkpoint.load("f32", dtype=torch.bfloat16), torch.from_numpy(FLOATS).to(torch.bfloat16))
        assert checkpoint.load("f16", shape=(3, 1, 2)).shape == (3, 1, 2)


def test_loaded_tensors_outlive_the_file(tmp_path: Path) -> None:
    with opened(tmp_path, GOOD) as checkpoint:
        loaded = checkpoint.load("x")
    (tmp_path / "file.safetensors").write_bytes(bytes(len(GOOD)))
    assert torch.equal(loaded, torch.from_numpy(FLOATS))
    with pytest.raises(InvalidArgumentError, match="closed"):
        checkpoint.load("x")


def test_asking_for_what_is_not_there(tmp_path: Path) -> None:
    content = safetensors_file([("x", "F32", (2, 3), FLOATS.tobytes()), ("u", "U16", (1,), b"\0\0")])
    with opened(tmp_path, content) as checkpoint:
        with pytest.raises(CheckpointError, match=r"^y in .*found none"):
            checkpoint.load("y")
        with pytest.raises(CheckpointError, match=r"expected \(2, 4\) \(8 values\), got \(2, 3\) \(6 values\)"):
            checkpoint.load("x", shape=(2, 4))
        with pytest.raises(CheckpointError, match="expected a plain or FP8 type, got U16"):
            checkpoint.load("u")


def test_names_from_a_file_cannot_break_the_message(tmp_path: Path) -> None:
    with (
        opened(tmp_path, safetensors_file([("a\n\x1b[31m", "U16", (1,), b"\0\0")])) as checkpoint,
        pytest.raises(CheckpointError, match=r"'a\\n\\x1b\[31m'"),
    ):
        checkpoint.load("a\n\x1b[31m")


def e4m3(code: int) -> float:
    """The value of an FP8 E4M3 (fn) number, from its definition."""
    sign, exponent, mantissa = -1.0 if code >> 7 else 1.0, code >> 3 & 15, code & 7
    if exponent == 15 and mantissa == 7:
        return float("nan")
    return sign * (mantissa / 8 * 2.0**-6 if exponent == 0 else (1 + mantissa / 8) * 2.0 ** (exponent - 7))


CODES = bytes(range(256))
E4M3 = torch.tensor([e4m3(code) for code in CODES]).reshape(4, 64)


def fp8_file(*companions: tuple[str, str, tuple[int, ...], bytes], dtype: str = "F8_E4M3") -> bytes:
    return safetensors_file([("a.weight", dtype, (4, 64), CODES), *companions])


def test_fp8_without_scales(tmp_path: Path) -> None:
    with opened(tmp_path, fp8_file()) as checkpoint:
        loaded = checkpoint.load("a.weight")
    assert loaded.dtype == torch.float32
    torch.testing.assert_close(loaded, E4M3, rtol=0, atol=0, equal_nan=True)


def test_fp8_e5m2(tmp_path: Path) -> None:
    with opened(tmp_path, safetensors_file([("a", "F8_E5M2", (2,), b"\x3c\xc1")])) as checkpoint:
        assert checkpoint.load("a").tolist() == [1.0, -2.5]


@pytest.mark.parametrize("name", ["a.weight_scale", "a.scale_weight"])
@pytest.mark.parametrize(
    ("dtype", "shape", "raw", "factors"),
    [
        ("F32", (), struct.pack("<f", 0.3), [0.3]),
        ("F32", (1,), struct.pack("<f", 0.3), [0.3]),
        ("F16", (4,), struct.pack("<4e", 0.5, 1, 2, 4), [0.5, 1, 2, 4]),
        ("F32", (4, 1), struct.pack("<4f", 0.1, 0.2, 0.3, 0.4), [0.1, 0.2, 0.3, 0.4]),
        ("BF16", (1, 1), struct.pack("<H", 0x3F00), [0.5]),
    ],
)
def test_fp8_scales_are_applied(
    tmp_path: Path, name: str, dtype: str, shape: tuple[int, ...], raw: bytes, factors: list[float]
) -> None:
    content = fp8_file(
        (name, dtype, shape, raw),
        ("a.input_scale", "F32", (), struct.pack("<f", 9.0)),
        ("scaled_fp8", "F8_E4M3", (0,), b""),
    )
    expected = E4M3 * torch.tensor(factors, dtype=torch.float32).reshape(-1, 1)
    with opened(tmp_path, content) as checkpoint:
        assert list(checkpoint.tensors) == ["a.weight"]
        loaded = checkpoint.load("a.weight")
        half = checkpoint.load("a.weight", dtype=torch.float16)
    torch.testing.assert_close(loaded, expected, rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(half, expected.half(), rtol=0, atol=0, equal_nan=True)


ONE_SCALE = ("a.weight_scale", "F32", (), struct.pack("<f", 0.3))


@pytest.mark.parametrize(
    ("companions", "message"),
    [
        ([("a.weight_scale_2", "F32", (), bytes(4))], r"a\.weight_scale_2.*cannot be read exactly"),
        ([("a.pre_quant_scale", "F32", (64,), bytes(256))], "cannot be read exactly"),
        ([("a.weight_scale_inv", "F32", (1, 1), bytes(4))], "cannot be read exactly"),
        ([("a.weight_scale", "F32", (4, 2), bytes(32))], r"one per output channel.*\(4, 2\)"),
        ([("a.weight_scale", "F32", (64,), bytes(256))], "one per output channel"),
        ([("a.weight_scale", "F8_E8M0", (4,), bytes(4))], "expected a float scale"),
        ([ONE_SCALE, ("a.scale_weight", "F32", (), bytes(4))], "expected one scale, found two"),
    ],
)
def test_quantisations_that_cannot_be_honoured(
    tmp_path: Path, companions: list[tuple[str, str, tuple[int, ...], bytes]], message: str
) -> None:
    with pytest.raises(CheckpointError, match=message):
        opened(tmp_path, fp8_file(*companions))


@pytest.mark.parametrize("dtype", ["I8", "F16"])
def test_a_scale_belongs_to_an_fp8_weight(tmp_path: Path, dtype: str) -> None:
    raw = bytes(4 if dtype == "I8" else 8)
    with pytest.raises(CheckpointError, match=f"of an FP8 weight.*beside {dtype}"):
        opened(tmp_path, safetensors_file([("a.weight", dtype, (4,), raw), ONE_SCALE]))


def test_a_scale_without_a_weight_is_a_tensor(tmp_path: Path) -> None:
    with opened(tmp_path, safetensors_file([ONE_SCALE])) as checkpoint:
        assert list(checkpoint.tensors) == ["a.weight_scale"]


@pytest.mark.parametrize(
    ("note", "plain"),
    [
        ({"format": "float8_e4m3fn"}, True),
        ({"format": "float8_e4m3fn", "full_precision_matrix_mult": True}, True),
        ({"format": "float8_e4m3fn", "orig_dtype": "torch.bfloat16", "orig_shape": [4, 64]}, True),
        ({"format": "float8_e4m3fn", "rotation": 64}, False),
        ({"format": "float8_e4m3fn", "convrot": True}, False),
        ({"format": "float8_e4m3fn", "full_precision_matrix_mult": 1}, False),
        ({"format": "convrot_w4a4"}, False),
        (["float8_e4m3fn"], False),
        ({}, False),
    ],
)
def test_quantisation_notes(tmp_path: Path, note: object, plain: bool) -> None:
    raw = json.dumps(note).encode()
    content = fp8_file(ONE_SCALE, ("a.comfy_quant", "U8", (len(raw),), raw))
    if plain:
        with opened(tmp_path, content) as checkpoint:
            assert list(checkpoint.tensors) == ["a.weight"]
    else:
        with pytest.raises(CheckpointError, match=r"expected a note of .* and its known options, found"):
            opened(tmp_path, content)


def test_a_large_file_is_not_read_on_opening(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(1 << 20)}, tmp_path / "big.safetensors")
    with open_checkpoint(tmp_path / "big.safetensors") as checkpoint:
        loaded = checkpoint.load("x", dtype=torch.float16)
    assert loaded.untyped_storage().nbytes() == 2 << 20
