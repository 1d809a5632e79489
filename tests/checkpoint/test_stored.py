"""Files that change while they are read, and headers that lie."""

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from seedvr2_engine.checkpoint.containers import staging, stored
from seedvr2_engine.checkpoint.describe import describe_checkpoint
from seedvr2_engine.checkpoint.opening import open_checkpoint
from seedvr2_engine.errors import CheckpointError, InvalidArgumentError, ModelFileError

from .fuzz import forged_files as forge

VALUES = torch.arange(50_000, dtype=torch.float32)
RAW = VALUES.numpy().tobytes()


def file_of(kind: str, tmp_path: Path) -> Path:
    path = tmp_path / f"a.{kind}"
    if kind == "gguf":
        path.write_bytes(forge.gguf_file([forge.ForgedTensor("a", (50_000,), forge.F32, RAW)]))
    else:
        path.write_bytes(forge.safetensors_file([("a", "F32", (50_000,), RAW)]))
    return path


@pytest.mark.parametrize("kind", ["gguf", "safetensors"])
@pytest.mark.parametrize("change", ["cut", "emptied", "overwritten", "longer"])
def test_a_file_that_changes_while_it_is_open_is_a_sentence(kind, change, tmp_path):
    path = file_of(kind, tmp_path)
    with open_checkpoint(path) as checkpoint:
        assert torch.equal(checkpoint.load("a"), VALUES)
        os.utime(path, ns=(1, 1))  # Not within the clock's resolution of what comes next.
        if change in ("cut", "emptied"):
            os.truncate(path, 0 if change == "emptied" else path.stat().st_size // 2)
        else:
            with path.open("r+b") as file:
                file.seek(0 if change == "longer" else 1000, 2 if change == "longer" else 0)
                file.write(b"other bytes")
        with pytest.raises(CheckpointError, match="found it changed meanwhile"):
            checkpoint.load("a")


@pytest.mark.parametrize("kind", ["gguf", "safetensors"])
def test_a_file_that_is_replaced_or_removed_is_read_to_its_end(kind, tmp_path):
    path = file_of(kind, tmp_path)
    with open_checkpoint(path) as checkpoint:
        other = tmp_path / "other"
        other.write_bytes(b"short")
        other.replace(path)
        assert torch.equal(checkpoint.load("a"), VALUES)
    with pytest.raises(InvalidArgumentError, match="found a closed one"):
        checkpoint.load("a")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes by name here")
def test_what_is_no_regular_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.gguf")
    with pytest.raises(CheckpointError, match="found a folder or a device"):
        open_checkpoint(tmp_path / "a.gguf")
    for name in ("x" * 300, "a\0b"):
        with pytest.raises(ModelFileError, match="cannot be read"):
            open_checkpoint(tmp_path / name)


ENTRY = '"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}'


@pytest.mark.parametrize("notes", ["null", "{}", '{"k\\u001b[31m": "v\\u0007\\n\\u202e"}'])
def test_remarks_that_are_nothing_or_odd_are_read(notes, tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(forge.raw_safetensors(f'{{"__metadata__": {notes}, {ENTRY}}}', b"1234"))
    description = describe_checkpoint(path)
    assert description.tensors == 1
    assert all(text.isprintable() for pair in description.metadata.items() for text in pair)
    json.loads(description.to_json())


FORGED = [
    *(f'{{"__metadata__": {notes}, {ENTRY}}}' for notes in ("[]", "1", '"x"', "true", '{"k": null}', '{"k": {}}')),
    *(f'{{"__metadata__": {{}}, "__metadata__": {notes}, {ENTRY}}}' for notes in ("{}", "null")),
    *(f'{{"a": {entry}}}' for entry in ("null", "[]", "1", '"x"', "{}", "true")),
    *(
        f'{{"a": {{"dtype": {dtype}, "shape": {shape}, "data_offsets": {offsets}}}}}'
        for dtype, shape, offsets in (
            ("null", "[1]", "[0, 4]"),
            ("7", "[1]", "[0, 4]"),
            ('"F99"', "[1]", "[0, 4]"),
            ('"F32"', "null", "[0, 4]"),
            ('"F32"', "1", "[0, 4]"),
            ('"F32"', "[null]", "[0, 4]"),
            ('"F32"', "[1.0]", "[0, 4]"),
            ('"F32"', "[-1]", "[0, 4]"),
            ('"F32"', "[NaN]", "[0, 4]"),
            ('"F32"', "[1e0]", "[0, 4]"),
            ('"F32"', f"[{9 * 10**30}]", "[0, 4]"),
            ('"F32"', f"[{2**63}, {2**63}]", "[0, 4]"),
            ('"F32"', f"[{'9' * 100_000}]", "[0, 4]"),
            ('"F32"', "[1]", "null"),
            ('"F32"', "[1]", "[0]"),
            ('"F32"', "[1]", "[4, 0]"),
            ('"F32"', "[1]", "[0, 4, 8]"),
            ('"F32"', "[1]", "[-4, 0]"),
            ('"F32"', "[1]", f"[0, {2**64}]"),
            ('"F32"', "[1]", '["0", "4"]'),
        )
    ),
    f"{{{ENTRY}, {ENTRY}}}",
    f'{{{ENTRY}, "x": NaN}}',
    f'{{{ENTRY}, "x": ' + "[" * 100_000,
    '{"a":' * 100_000,
    f"{{{ENTRY}}} more",
    "{",
    "{'a': 1}",
    b'{"\xff": 1}',
    b"{\x00}",
]


@pytest.mark.parametrize("header", FORGED, ids=range(len(FORGED)))
def test_forged_headers_are_one_sentence_and_quick(header, tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(forge.raw_safetensors(header, b"1234"))
    began = time.process_time()
    with pytest.raises(CheckpointError) as caught:
        describe_checkpoint(path)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000
    assert time.process_time() - began < forge.second()


@pytest.mark.parametrize("kind", ["gguf", "safetensors"])
@pytest.mark.parametrize("at_a_place", [True, False])
def test_threads_that_read_one_file_do_not_disturb_each_other(kind, at_a_place, tmp_path, monkeypatch):
    if at_a_place and not hasattr(os, "preadv"):
        pytest.skip("this system has no read at a place")
    monkeypatch.setattr(stored, "_READS_AT_A_PLACE", at_a_place)
    names = [f"t{index}" for index in range(64)]
    values = {name: torch.full((5000,), float(index)) for index, name in enumerate(names)}
    path = tmp_path / f"a.{kind}"
    raw = {name: tensor.numpy().tobytes() for name, tensor in values.items()}
    if kind == "gguf":
        path.write_bytes(forge.gguf_file([forge.ForgedTensor(name, (5000,), forge.F32, raw[name]) for name in names]))
    else:
        path.write_bytes(forge.safetensors_file([(name, "F32", (5000,), raw[name]) for name in names]))
    with open_checkpoint(path) as checkpoint, ThreadPoolExecutor(8) as threads:
        for name, found in zip(names * 4, threads.map(checkpoint.load, names * 4), strict=True):
            assert torch.equal(found, values[name])


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU")
@pytest.mark.parametrize("kind", ["gguf", "safetensors"])
def test_what_is_read_onto_a_gpu_is_what_is_read(kind, tmp_path, monkeypatch):
    path = file_of(kind, tmp_path)
    monkeypatch.setattr(staging, "_STAGE_BYTES", 30_000)
    with open_checkpoint(path) as checkpoint:
        for dtype in (None, torch.float16):
            found = checkpoint.load("a", dtype=dtype, device=torch.device("cuda"))
            assert found.device.type == "cuda"
            assert torch.equal(found.cpu(), VALUES.to(found.dtype))
        os.truncate(path, path.stat().st_size // 2)
        with pytest.raises(CheckpointError, match="found it changed meanwhile"):
            checkpoint.load("a", device=torch.device("cuda"))
