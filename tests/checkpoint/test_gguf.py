"""The GGUF backend: every type and layout against stored values, and every lie a header can tell."""

import struct
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from seedvr2_engine.checkpoint.base import Checkpoint
from seedvr2_engine.checkpoint.containers.gguf import dequantise
from seedvr2_engine.checkpoint.opening import open_checkpoint
from seedvr2_engine.errors import CheckpointError
from tests.checkpoint.fuzz.forged_files import (
    ARRAY,
    BF16,
    BOOL,
    F16,
    F32,
    FLOAT32,
    I32,
    INT8,
    INT16,
    INT32,
    INT64,
    Q8_0,
    Q8_1,
    Q8_K,
    STRING,
    UINT8,
    UINT16,
    UINT32,
    UINT64,
    ForgedTensor,
    array_payload,
    entry,
    gguf_file,
    nested_arrays,
    shape_entry,
    string_entry,
    text,
)

BLOCK_TYPES = (
    *("BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ1_M", "IQ1_S"),
    *("IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ3_S", "IQ3_XXS", "IQ4_NL", "IQ4_XS", "TQ1_0", "TQ2_0", "MXFP4", "NVFP4"),
)
VALUES = np.arange(64, dtype=np.float32) / 8 - 3
TENSOR = ForgedTensor("a", (64,), F32, VALUES.tobytes())


def opened(tmp_path: Path, content: bytes) -> Checkpoint:
    path = tmp_path / "file.gguf"
    path.write_bytes(content)
    return open_checkpoint(path)


@pytest.fixture(scope="module")
def blocks(golden_dir: Path) -> dict[str, torch.Tensor]:
    return load_file(golden_dir / "vae_gguf_blocks.safetensors")


@pytest.mark.parametrize("kind", BLOCK_TYPES)
def test_every_type_gives_the_stored_values(tmp_path: Path, blocks: dict[str, torch.Tensor], kind: str) -> None:
    stored, expected = blocks[f"{kind}.blocks"].numpy(), blocks[f"{kind}.f32"]
    axes = tuple(reversed(expected.shape))
    tensor = ForgedTensor("a", axes, gguf.GGMLQuantizationType[kind], stored.tobytes())
    with opened(tmp_path, gguf_file([tensor])) as checkpoint:
        assert checkpoint.tensors["a"].type == kind
        loaded = checkpoint.load("a")
        half = checkpoint.load("a", dtype=torch.float16)
    assert loaded.dtype == (torch.bfloat16 if kind == "BF16" else torch.float32)
    assert torch.equal(loaded.float(), expected)
    assert torch.equal(half, expected.half())


def test_the_golden_blocks_cover_every_type_the_package_dequantises() -> None:
    readable = set()
    for kind in gguf.GGMLQuantizationType:
        try:
            dequantise(np.zeros(gguf.GGML_QUANT_SIZES[kind][1], np.uint8), kind, torch.float32)
            readable.add(kind.name)
        except NotImplementedError:
            continue
    assert readable == {*BLOCK_TYPES, "F32", "F16"}


@pytest.mark.parametrize("file", ["layouts", "collapsed"])
def test_golden_layouts(golden_dir: Path, file: str) -> None:
    expected = load_file(golden_dir / "vae_gguf_expected.safetensors")
    with open_checkpoint(golden_dir / f"vae_gguf_{file}.gguf") as checkpoint:
        assert {f"{file}.{name}" for name in checkpoint.tensors} == {n for n in expected if n.startswith(file)}
        for name in checkpoint.tensors:
            values = expected[f"{file}.{name}"]
            # Only collapsed tensors need to be told their shape.
            shape = tuple(values.shape) if file == "collapsed" else None
            loaded = checkpoint.load(name, shape=shape)
            assert loaded.shape == values.shape, name
            assert torch.equal(loaded.float(), values), name
        assert checkpoint.metadata["general.architecture"] == "seedvr2_vae"


def test_long_tensors_are_dequantised_in_pieces() -> None:
    kind = gguf.GGMLQuantizationType.Q8_0
    values = np.random.default_rng(0).standard_normal((3, 32 * 5000), dtype=np.float32)
    stored = gguf.quants.quantize(values, kind)
    expected = torch.from_numpy(gguf.quants.dequantize(stored, kind).reshape(-1))
    assert torch.equal(dequantise(stored.reshape(-1), kind, torch.float32), expected)
    assert torch.equal(dequantise(stored.reshape(-1), kind, torch.bfloat16), expected.bfloat16())


def test_plain_types_keep_their_dtype(tmp_path: Path) -> None:
    content = gguf_file(
        [
            TENSOR,
            ForgedTensor("b", (4, 16), F16, VALUES.astype(np.float16).tobytes()),
            ForgedTensor("c", (2,), BF16, struct.pack("<HH", 0x3F80, 0xC020)),
            ForgedTensor("d", (), I32, struct.pack("<i", -9)),
        ]
    )
    with opened(tmp_path, content) as checkpoint:
        assert torch.equal(checkpoint.load("a"), torch.from_numpy(VALUES))
        assert checkpoint.load("b").dtype == torch.float16
        assert checkpoint.load("b").shape == (16, 4)
        assert torch.equal(checkpoint.load("c"), torch.tensor([1.0, -2.5], dtype=torch.bfloat16))
        assert checkpoint.load("d").item() == -9


def test_loaded_tensors_outlive_the_file(tmp_path: Path) -> None:
    with opened(tmp_path, gguf_file([TENSOR])) as checkpoint:
        loaded = checkpoint.load("a")
    (tmp_path / "file.gguf").write_bytes(bytes(8))
    assert torch.equal(loaded, torch.from_numpy(VALUES))


@pytest.mark.parametrize("kind", [Q8_1, Q8_K])
def test_types_without_a_dequantiser_are_refused_on_loading(tmp_path: Path, kind: int) -> None:
    values, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType(kind)]
    with (
        opened(tmp_path, gguf_file([ForgedTensor("a", (values,), kind, bytes(size))])) as checkpoint,
        pytest.raises(CheckpointError, match=r"a in .*can be dequantised, got Q8_"),
    ):
        checkpoint.load("a")


@pytest.mark.parametrize("kind", [UINT8, INT8, UINT16, INT16, UINT32, INT32, UINT64, INT64])
def test_original_shapes_of_any_integer_type(tmp_path: Path, kind: int) -> None:
    content = gguf_file([TENSOR], [shape_entry("a", (2, 4, 2, 2, 2), kind)])
    with opened(tmp_path, content) as checkpoint:
        assert checkpoint.tensors["a"].shape == (64,)
        assert checkpoint.tensors["a"].original_shape == (2, 4, 2, 2, 2)
        assert torch.equal(checkpoint.load("a"), torch.from_numpy(VALUES).reshape(2, 4, 2, 2, 2))
        assert checkpoint.load("a", shape=(8, 8)).shape == (8, 8)


@pytest.mark.parametrize(
    "lie",
    [
        shape_entry("a", (2, 4, 2, 2, 4)),
        shape_entry("a", (2, 2, 2, 2, 2, 2)),
        shape_entry("a", ()),
        shape_entry("a", (-2, -32)),
        shape_entry("a", (0, 64)),
        shape_entry("a", (1,) * 100),
        string_entry("comfy.gguf.orig_shape.a", "64"),
        entry("comfy.gguf.orig_shape.a", ARRAY, struct.pack("<IQ2f", FLOAT32, 2, 2.0, 32.0)),
        entry("comfy.gguf.orig_shape.a", ARRAY, struct.pack("<IQ", BOOL, 64) + b"\1" * 64),
    ],
    ids=["count", "axes", "empty", "negative", "zero", "long", "text", "floats", "bools"],
)
def test_lying_original_shapes(tmp_path: Path, lie: bytes) -> None:
    with pytest.raises(CheckpointError, match="expected an original shape of 64 values for a"):
        opened(tmp_path, gguf_file([TENSOR], [lie]))


def test_metadata_of_every_type(tmp_path: Path) -> None:
    metadata = [
        string_entry("text", "für"),
        entry("byte", UINT8, b"\xff"),
        entry("bool", BOOL, b"\1"),
        entry("float", FLOAT32, struct.pack("<f", 0.5)),
        entry("big", INT64, struct.pack("<q", -(1 << 40))),
        entry("list", ARRAY, array_payload(INT16, (1, -2))),
        entry("long", ARRAY, array_payload(INT16, range(1000))),
        entry("texts", ARRAY, struct.pack("<IQ", STRING, 2) + text("a") + text("")),
        entry("nested", ARRAY, nested_arrays(3)),
    ]
    with opened(tmp_path, gguf_file([TENSOR], metadata)) as checkpoint:
        assert checkpoint.metadata == {
            "text": "für",
            "byte": "255",
            "bool": "True",
            "float": "0.5",
            "big": str(-(1 << 40)),
            "list": "1, -2",
            "long": "array of 1000 values",
            "texts": "array of 2 values",
            "nested": "array of 1 values",
        }


@pytest.mark.parametrize("alignment", [1, 8, 64])
def test_other_alignments(tmp_path: Path, alignment: int) -> None:
    odd = ForgedTensor("b", (3,), F16, b"\0<\0@\0D")
    last = ForgedTensor("c", (64,), F32, VALUES.tobytes())
    metadata = [entry("general.alignment", UINT32, struct.pack("<I", alignment))]
    with opened(tmp_path, gguf_file([TENSOR, odd, last], metadata, alignment=alignment)) as checkpoint:
        assert checkpoint.load("b").tolist() == [1.0, 2.0, 4.0]
        assert torch.equal(checkpoint.load("c"), torch.from_numpy(VALUES))


def test_version_2_and_data_in_any_order(tmp_path: Path) -> None:
    first = ForgedTensor("b", (8,), F32, VALUES[8:16].tobytes(), offset=64)
    second = ForgedTensor("a", (8,), F32, bytes(32) + VALUES[8:16].tobytes(), offset=0)
    with opened(tmp_path, gguf_file([first, second], version=2)) as checkpoint:
        assert checkpoint.load("b").tolist() == VALUES[8:16].tolist()
        assert checkpoint.load("a").tolist() == VALUES[8:16].tolist()


HUGE = 1 << 62


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"GGUF", r"expected 4 bytes for the version at byte 4, found 0 to the end"),
        (b"GGUF" + bytes(4), "version 2 or 3, found 0"),
        (gguf_file([TENSOR], version=1), "version 2 or 3, found 1"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "little-endian GGUF file, found a big-endian one"),
        (gguf_file([TENSOR])[:-1], r"expected a to end at byte \d+, found a file of"),
        (gguf_file([TENSOR], counts=(HUGE, 0)), "at most 16384 tensors"),
        (gguf_file([TENSOR], counts=(1, HUGE)), "at most 16384 metadata entries"),
        (gguf_file([TENSOR], counts=(16_384, 0)), "truncated or damaged"),
        (gguf_file([], [text("key", HUGE)]), "a metadata key of at most 65535 bytes"),
        (gguf_file([], [text("key", 1000)]), "expected 1000 bytes for a metadata key"),
        (gguf_file([], [entry(b"\xff", UINT8, b"1")]), "a metadata key in UTF-8"),
        (gguf_file([], [entry("k", STRING, text("v", HUGE))]), "a metadata text of at most"),
        (gguf_file([], [entry("k", STRING, text("v", 9))]), "expected 9 bytes for a metadata text"),
        (gguf_file([], [entry("k", 13, b"")]), "a metadata type from 0 to 12, found 13"),
        (gguf_file([], [entry("k", UINT8, b"1")] * 2), "metadata keys that differ, found k twice"),
        (gguf_file([], [entry("k", ARRAY, array_payload(INT32, (1,), HUGE))]), f"array of {HUGE} values"),
        (gguf_file([], [entry("k", ARRAY, struct.pack("<IQ", STRING, HUGE))]), "truncated or damaged"),
        (gguf_file([], [entry("k", ARRAY, struct.pack("<IQ", 77, 1))]), "a metadata type from 0 to 12"),
        (gguf_file([], [entry("k", ARRAY, nested_arrays(100_000))]), "nested at most 4 deep"),
        (gguf_file([TENSOR], [entry("general.alignment", UINT32, bytes(4))]), "power of two, found 0"),
        (gguf_file([TENSOR], [entry("general.alignment", UINT32, b"\x18\0\0\0")]), "power of two, found 24"),
        (gguf_file([TENSOR], [string_entry("general.alignment", "32")]), "power of two, found 32"),
        (gguf_file([ForgedTensor("x" * 70_000, (1,), F32, bytes(4))]), "a tensor name of at most 65535"),
        (gguf_file([ForgedTensor(b"\xc3", (1,), F32, bytes(4))]), "a tensor name in UTF-8"),
        (gguf_file([ForgedTensor("a", (1,) * 6, F32, bytes(4))]), "at most 5 axes for a, found 6"),
        (gguf_file([ForgedTensor("a", (0, 4), F32, b"")]), r"whole blocks of 1 F32 values, found \(4, 0\)"),
        (gguf_file([ForgedTensor("a", (48,), Q8_0, bytes(34))]), "whole blocks of 32 Q8_0 values"),
        (gguf_file([ForgedTensor("a", (), Q8_0, bytes(34))]), "whole blocks of 32 Q8_0 values"),
        (gguf_file([ForgedTensor("a", (HUGE, HUGE, HUGE, HUGE, HUGE), F32, b"")]), "found a file of"),
        (gguf_file([ForgedTensor("a", (1,), 4, bytes(4))]), "expected a known GGML type, found number 4"),
        (gguf_file([ForgedTensor("a", (8,), F32, bytes(36), offset=4)]), "multiple of 32, found 4"),
        (gguf_file([ForgedTensor("a", (8,), F32, bytes(32), offset=HUGE)]), "found a file of"),
        (gguf_file([TENSOR, ForgedTensor("b", (8,), F32, b"", offset=32)]), "found b inside another one"),
        (
            gguf_file(
                [ForgedTensor("a", (33,), 24, bytes(33), offset=0), ForgedTensor("b", (8,), F32, bytes(64), offset=32)]
            ),
            "found b inside another one",
        ),
        (gguf_file([TENSOR, TENSOR]), "tensor names that differ, found a twice"),
    ],
)
def test_damaged_headers(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        opened(tmp_path, content)
    assert "\n" not in str(caught.value)


def test_every_truncation_is_refused(tmp_path: Path, golden_dir: Path) -> None:
    content = (golden_dir / "vae_gguf_collapsed.gguf").read_bytes()
    for size in (*range(4, 520), 16_736, len(content) - 1):
        with pytest.raises(CheckpointError, match="truncated or damaged"):
            opened(tmp_path, content[:size])


def test_the_header_is_bounded(tmp_path: Path) -> None:
    values = struct.pack("<IQ", UINT8, 17 << 20) + bytes(17 << 20)
    with pytest.raises(CheckpointError, match="a header of at most 16777216 bytes"):
        opened(tmp_path, gguf_file([], [entry("k", ARRAY, values)]))
