"""Small forged files take no time: bounded by what is read and not by what a number in them promises."""

import json
import struct
import time
from contextlib import suppress

import pytest

from seedvr2_engine.checkpoint.describe import describe_checkpoint
from seedvr2_engine.errors import CheckpointError

from . import forged_files as forge

SIZE = (16 << 20) - 4096
"""Of most files; they take a quarter of a second at most."""


def array(kind: int, element: bytes, length: int | None = None) -> bytes:
    count = SIZE // len(element)
    payload = struct.pack("<IQ", kind, count if length is None else length) + element * count
    return forge.gguf_file(metadata=[forge.entry("a", forge.ARRAY, payload)])


def names(pattern: str, count: int, more: tuple[str, ...] = ()) -> bytes:
    header = {}
    for index, name in enumerate([*(pattern.format(number) for number in range(count)), *more]):
        header[name] = {"dtype": "F32", "shape": [32], "data_offsets": [128 * index, 128 * (index + 1)]}
    return forge.raw_safetensors(json.dumps(header, separators=(",", ":")), bytes(128 * len(header)))


VAE_NAMES = (
    *(f"encoder.down_blocks.{level}.resnets.0.conv1.bias" for level in (1, 2, 3)),
    "encoder.conv_out.bias",
    "decoder.conv_out.bias",
)
FILES = {
    "texts": lambda: array(forge.STRING, bytes(8)),
    "texts that lie": lambda: array(forge.STRING, struct.pack("<Q", 1 << 62)),
    "more texts than there are": lambda: array(forge.STRING, bytes(8), 1 << 60),
    "arrays": lambda: array(forge.ARRAY, struct.pack("<IQ", forge.UINT8, 0)),
    "arrays of texts": lambda: array(forge.ARRAY, struct.pack("<IQ", forge.STRING, 60) + bytes(480)),
    "layers of a VAE": lambda: names("encoder.down_blocks.0.resnets.{}.conv1.bias", 8000, VAE_NAMES),
    "blocks of a transformer": lambda: names("blocks.{}.attn.norm_q.all.weight", 8000),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_forged_file_takes_less_than_a_second(kind, tmp_path):
    path = tmp_path / "forged"
    path.write_bytes(FILES[kind]())
    began = time.process_time()
    with suppress(CheckpointError):
        describe_checkpoint(path)
    assert time.process_time() - began < forge.second()


def test_a_vocabulary_beside_the_tensors_is_stepped_over(tmp_path):
    texts = struct.pack("<IQ", forge.STRING, 3) + forge.text("x") + forge.text("") + forge.text("\x1b" * 9)
    nested = struct.pack("<IQ", forge.ARRAY, 2) + texts + texts
    entries = [forge.entry("texts", forge.ARRAY, texts), forge.entry("nested", forge.ARRAY, nested)]
    path = tmp_path / "a.gguf"
    path.write_bytes(
        forge.gguf_file([forge.ForgedTensor("a", (1,), forge.F32, b"1234")], [*entries, forge.string_entry("k", "v")])
    )
    description = describe_checkpoint(path)
    assert description.metadata == {"texts": "array of 3 values", "nested": "array of 2 values", "k": "v"}
    assert description.tensors == 1
