"""Mutate GGUF and safetensors files; each must be refused with a sentence or load the values other readers see.

    python -m tests.checkpoint.fuzz.fuzz_checkpoints 10000 [--seed 0]

The address space is limited to what the process has after a warm-up, the file and 64 MiB, and each file gets five
seconds. Prints a summary; exits with 1 and keeps the file when one misbehaves.
"""

import argparse
import json
import random
import resource
import signal
import struct
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from types import FrameType

import gguf
import numpy as np
import numpy.typing as npt
import torch

from seedvr2_engine.checkpoint.base import Checkpoint
from seedvr2_engine.checkpoint.opening import open_checkpoint
from seedvr2_engine.errors import SeedVR2Error
from tests.checkpoint.fuzz import forged_files as forge
from tests.checkpoint.fuzz import quantised_files
from tests.checkpoint.fuzz.defined_values import DefinedFile

GOLDEN = Path(__file__).parents[2] / "golden"
EXTRA_BYTES = 64 << 20
SECONDS_PER_FILE = 5.0
ODD_NUMBERS = (0, 1, 5, 6, 255, 1 << 16, 1 << 20, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 40, 1 << 62, 1 << 63)

NOTES = ("mxfp8", "nvfp4", "int8_tensorwise", "float8_e4m3fn", True, False, 4, 16, 256, -1, 1e300, None, [], {}, "x")

Mutation = Callable[[random.Random, bytes], bytes]


def seed_files() -> list[bytes]:
    """Well-formed files that the mutations start from."""
    values = np.linspace(-3, 3, 64, dtype=np.float32)
    tensors = [
        forge.ForgedTensor("a.weight", (8, 8), forge.F32, values.tobytes()),
        forge.ForgedTensor("b.weight", (32, 2), forge.Q8_0, bytes(range(68))),
        forge.ForgedTensor("c.weight", (3,), forge.BF16, values.tobytes()[:6]),
        forge.ForgedTensor("d.weight", (4, 4, 2, 1, 2), forge.F16, values.astype(np.float16).tobytes()),
    ]
    metadata = [
        forge.string_entry("general.architecture", "test"),
        forge.entry("general.alignment", forge.UINT32, struct.pack("<I", 32)),
        forge.shape_entry("a.weight", (2, 4, 8)),
        forge.entry("nested", forge.ARRAY, forge.nested_arrays(2)),
        forge.entry("texts", forge.ARRAY, struct.pack("<IQ", forge.STRING, 2) + forge.text("x") + forge.text("yz")),
    ]
    plain = [
        ("a.weight", "F32", (8, 8), values.tobytes()),
        ("b.weight", "F16", (64,), values.astype(np.float16).tobytes()),
        ("c.weight", "BF16", (2, 16, 1), values.tobytes()[:64]),
        ("d.weight", "F8_E4M3", (2, 8), bytes(range(16))),
        ("d.weight_scale", "F32", (2, 1), struct.pack("<2f", 0.3, 7.0)),
        ("e.weight", "F8_E5M2", (4,), bytes(range(60, 64))),
        ("e.scale_weight", "F32", (), struct.pack("<f", 0.1)),
        ("f.bias", "I64", (1,), bytes(8)),
    ]
    return [
        forge.gguf_file(tensors, metadata),
        (GOLDEN / "vae_gguf_collapsed.gguf").read_bytes(),
        (GOLDEN / "vae_gguf_layouts.gguf").read_bytes(),
        forge.safetensors_file(plain, {"format": "pt", "author": "test"}),
        forge.safetensors_file([(f"t{i}", "F16", (2, 2), bytes([i] * 8)) for i in range(40)]),
        forge.safetensors_file(quantised_files.all_layers()),
        forge.safetensors_file(*quantised_files.without_notes(quantised_files.all_layers("vae."), "vae.")),
    ]


def header_bytes(content: bytes) -> int:
    """About where the header ends, so that most mutations hit it."""
    if content[:4] == b"GGUF":
        return min(len(content), 2200)
    return min(len(content), 8 + int.from_bytes(content[:8], "little"))


def flip_bits(rng: random.Random, content: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.randint(1, 6)):
        changed[rng.randrange(header_bytes(content) if rng.random() < 0.8 else len(content))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def truncate(rng: random.Random, content: bytes) -> bytes:
    return content[: rng.randrange(len(content) if rng.random() < 0.5 else header_bytes(content))]


def append(rng: random.Random, content: bytes) -> bytes:
    return content + rng.randbytes(rng.choice((1, 8, 100)))


def lie_about_a_number(rng: random.Random, content: bytes) -> bytes:
    """Put an odd 32- or 64-bit number anywhere in the header: counts, lengths, sizes, offsets, types."""
    code = rng.choice("IQ")
    at = rng.choice((0, 4, 8, 16, 24, rng.randrange(header_bytes(content))))
    number = rng.choice((*ODD_NUMBERS, len(content), len(content) - 8, rng.randrange(64)))
    changed = bytearray(content)
    packed = struct.pack(f"<{code}", number % (1 << 8 * struct.calcsize(code)))
    changed[at : at + len(packed)] = packed
    return bytes(changed)


def repeat_or_remove_a_piece(rng: random.Random, content: bytes) -> bytes:
    begin = rng.randrange(header_bytes(content))
    end = min(len(content), begin + rng.choice((1, 4, 8, 12, 40)))
    return content[:end] + content[begin:] if rng.random() < 0.5 else content[:begin] + content[end:]


def lie_in_json(rng: random.Random, content: bytes) -> bytes:
    """Change one number, dtype or name of a safetensors header and keep its length right."""
    if content[:4] == b"GGUF":
        return forged_gguf(rng, content)
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    name = rng.choice([key for key in header if key != "__metadata__"])
    other = rng.choice([key for key in header if key != "__metadata__"])
    tensor = header[name]
    match rng.randrange(7):
        case 0:
            tensor["data_offsets"][rng.randrange(2)] += rng.choice((-8, -1, 1, 4, 1 << 40, -(1 << 40)))
        case 1:
            tensor["shape"].append(rng.choice((0, 1, 2, 1 << 40, (1 << 64) - 1, -1)))
        case 2:
            tensor["dtype"] = rng.choice(("F32", "F16", "BF16", "I8", "F8_E4M3", "F64", "F4", "BOOL", "U32", "XX"))
        case 3:
            tensor["data_offsets"] = header[other]["data_offsets"]
        case 4:
            twice = json.dumps(header)[:-1] + ", " + json.dumps({name: header[other]})[1:]
            return forge.raw_safetensors(twice, content[8 + size :])
        case 5:
            nested = "[" * 2000 + "]" * 2000
            return forge.raw_safetensors(f'{{"{name}": {nested}}}', content[8 + size :])
        case 6:
            header[rng.choice((f"{name}_scale", f"{name}_scale_2", "scaled_fp8", "a.weight"))] = header.pop(name)
    return forge.raw_safetensors(json.dumps(header), content[8 + size :])


def lie_in_a_note(rng: random.Random, content: bytes) -> bytes:
    """Change what a quantised layer's note, its scale's type or its shape says; other files get another lie."""
    if b"comfy_quant" not in content:
        return lie_in_json(rng, content)
    size = int.from_bytes(content[:8], "little")
    header, data = json.loads(content[8 : 8 + size]), content[8 + size :]
    name = rng.choice([key for key in header if key.endswith(".comfy_quant")])
    layer = [key for key in header if key.startswith(name[:2]) and key != name]
    match rng.randrange(4):
        case 0:
            begin, end = header[name]["data_offsets"]
            note = json.loads(data[begin:end])
            note[rng.choice(("format", "convrot", "convrot_groupsize", "params", "other"))] = rng.choice(NOTES)
            changed = json.dumps(note).encode()
            if len(changed) > end - begin:
                changed = changed[: end - begin]
            data = data[:begin] + changed.ljust(end - begin) + data[end:]
        case 1:
            header.pop(rng.choice([name, *layer]))  # leaves a hole, which the container refuses
        case 2:
            header[rng.choice(layer)]["dtype"] = rng.choice(("U8", "I8", "F8_E4M3", "F8_E8M0", "F8_E5M2"))
        case 3:
            shape = header[rng.choice(layer)]["shape"]
            shape.reverse() if rng.random() < 0.5 else shape.insert(rng.randrange(len(shape) + 1), 1)
    return forge.raw_safetensors(json.dumps(header), data)


def forged_gguf(rng: random.Random, content: bytes) -> bytes:
    """A new GGUF file with one clear lie: overlap, huge axes, twins, deep arrays, wrong shapes, odd counts."""
    data = content[-256:]
    tensors = [forge.ForgedTensor("a", (8, 8), forge.F32, data), forge.ForgedTensor("b", (64,), forge.F32, data)]
    huge = tuple(rng.choice((0, 1, 8, *ODD_NUMBERS)) for _ in range(rng.randint(0, 7)))
    number = rng.choice(ODD_NUMBERS)
    match rng.randrange(7):
        case 0:
            tensors[1] = forge.ForgedTensor(
                "b", (64,), forge.F32, data, offset=rng.choice((0, 32, 224, 256, 288, number))
            )
        case 1:
            tensors[1] = forge.ForgedTensor("b", huge, rng.randrange(45), data)
        case 2:
            tensors[1] = forge.ForgedTensor("a", (64,), forge.F32, data)
        case 3:
            return forge.gguf_file(
                tensors, [forge.entry("k", forge.ARRAY, forge.nested_arrays(rng.choice((3, 4, 5000))))]
            )
        case 4:
            sizes = rng.choice(((8, 8), (4, 4, 4), (64, 2), (0,), (1,) * 9, (2, 2, 2, 2, 4)))
            return forge.gguf_file(tensors, [forge.shape_entry("b", sizes, rng.choice((forge.INT32, forge.UINT64)))])
        case 5:
            counts = (rng.choice((2, number)), rng.choice((0, 1, number)))
            return forge.gguf_file(tensors, counts=counts)
        case 6:
            kind = rng.choice((forge.INT32, forge.UINT8))
            return forge.gguf_file(tensors, [forge.entry("k", forge.ARRAY, forge.array_payload(kind, (1, 2), number))])
    return forge.gguf_file(tensors)


MUTATIONS: tuple[Mutation, ...] = (
    flip_bits,
    truncate,
    append,
    lie_about_a_number,
    repeat_or_remove_a_piece,
    lie_in_json,
    lie_in_a_note,
    forged_gguf,
)


def mutated(rng: random.Random, seeds: Sequence[bytes]) -> bytes:
    content = rng.choice(seeds)
    if rng.random() < 0.1:  # the header of one file before the data of another
        other = rng.choice(seeds)
        return content[: header_bytes(content)] + other[header_bytes(other) :]
    return rng.choice(MUTATIONS)(rng, content)


def other_reader(path: Path, names: Collection[str]) -> dict[str, npt.NDArray[np.float64]]:
    """The values of these tensors of an accepted file as the gguf package, or numpy for safetensors, sees them."""
    content = path.read_bytes()
    if content[:4] == b"GGUF":
        values: dict[str, npt.NDArray[np.float64]] = {}
        for tensor in gguf.GGUFReader(path).tensors:
            if tensor.name not in names:
                continue
            data = tensor.data
            if data.dtype == np.uint8:
                data = gguf.quants.dequantize(data, tensor.tensor_type)
            values[tensor.name] = data.astype(np.float64).reshape(-1)
        return values
    file = DefinedFile(content)
    return {name: file.values(name).astype(np.float64) for name in names}


def compare(checkpoint: Checkpoint, path: Path) -> None:
    """Load every tensor whose type can be read, and compare it with the other reader's values."""
    loaded = {}
    for name, info in checkpoint.tensors.items():
        try:
            values = checkpoint.load(name)
        except SeedVR2Error:
            continue  # a sentence is an answer too
        assert values.shape == (info.original_shape or info.shape), f"shape of {name}"
        loaded[name] = values.double().numpy().reshape(-1)
    if any(info.shape == () and info.type == "BF16" for info in checkpoint.tensors.values()):
        return  # the gguf package stops at a BF16 tensor without axes
    with np.errstate(all="ignore"):
        expected = other_reader(path, loaded) if loaded else {}
        for name, seen in loaded.items():
            if not agree(seen, expected[name], checkpoint.tensors[name].layout or ""):
                raise AssertionError(f"values of {name}")


def agree(seen: npt.NDArray[np.float64], truth: npt.NDArray[np.float64], layout: str) -> bool:
    """Whether values are the same, or as near as the sums of a rotation and the products of two scales can be."""
    if "rotated" not in layout and layout != "NVFP4":
        return np.array_equal(seen, truth, equal_nan=True)
    limit = 1e36  # Sums and products that leave float32 need not leave it in the same way.
    if not np.isfinite(truth).all() or np.abs(truth).max(initial=0) > limit:
        return True
    return np.allclose(seen, truth, rtol=3e-7, atol=1e-6 * np.abs(truth).max(initial=0))


def examine(path: Path) -> str:
    """Return "loaded" or "refused"; anything else raises."""
    try:
        with open_checkpoint(path) as checkpoint:
            compare(checkpoint, path)
    except SeedVR2Error as error:
        if "\n" in str(error):
            raise RuntimeError("the message has several lines") from error
        return "refused"
    return "loaded"


def time_is_up(number: int, frame: FrameType | None) -> None:
    raise TimeoutError(f"more than {SECONDS_PER_FILE} seconds")


def address_space_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("count", type=int)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    rng = random.Random(options.seed)
    seeds = seed_files()
    signal.signal(signal.SIGALRM, time_is_up)
    outcomes: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        for content in seeds:
            path.write_bytes(content)
            assert examine(path) == "loaded"
        limit = address_space_bytes() + max(map(len, seeds)) + EXTRA_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        before = peak_bytes()
        for index in range(options.count):
            path.write_bytes(mutated(rng, seeds))
            signal.setitimer(signal.ITIMER_REAL, SECONDS_PER_FILE)
            try:
                outcomes[examine(path)] += 1
            except BaseException:
                kept = Path(tempfile.gettempdir()) / f"fuzz_failure_{options.seed}_{index}"
                kept.write_bytes(path.read_bytes())
                print(f"file {index} misbehaves and is kept as {kept}", file=sys.stderr)
                raise
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
    grown = (peak_bytes() - before) / 2**20
    print(f"{options.count} files: {dict(outcomes)}; peak memory grew by {grown:.1f} MiB")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
