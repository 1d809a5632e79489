"""Conversion to GGUF: what is written, what is lost, and what happens when it fails."""

import hashlib
import math
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from seedvr2_engine.checkpoint.convert import SOURCE_HASH_KEY, WRITABLE_TYPES, convert_to_gguf
from seedvr2_engine.checkpoint.detect import load_vae_tensors
from seedvr2_engine.checkpoint.locating.hub import local_models
from seedvr2_engine.checkpoint.opening import open_checkpoint
from seedvr2_engine.errors import CheckpointError, InvalidArgumentError, OutputError
from seedvr2_engine.loading import NANO_VAE
from seedvr2_engine.loading_dit import NANO_DIT
from seedvr2_engine.output.unfinished import PartialFile

State = dict[str, torch.Tensor]
OLD = NANO_VAE.read_bytes()
"""An older conversion, which may be overwritten."""

# Relative RMS over all weights of the tiny model, whose weights are uniform random numbers: the step of n bits
# over a block is about range / 2**n, its error step / sqrt(12). Measured 1.30e-3, 2.96e-3, 2.31e-2, 2.45e-2,
# 4.78e-2, 5.11e-2.
LOSS = {
    "F32": 0.0,
    "F16": 0.0,
    "BF16": 1.4e-3,
    "Q8_0": 3.1e-3,
    "Q5_1": 2.4e-2,
    "Q5_0": 2.6e-2,
    "Q4_1": 5.0e-2,
    "Q4_0": 5.4e-2,
}
ODD = ("encoder.conv_in.weight", "decoder.conv_out.weight")


@pytest.fixture(scope="module")
def source(golden_dir: Path) -> Path:
    return golden_dir / "vae_tiny.safetensors"


@pytest.fixture(scope="module")
def state(source: Path) -> State:
    return load_file(source)


def loaded(path: Path, dtype: torch.dtype = torch.float32) -> State:
    with open_checkpoint(path) as checkpoint:
        return load_vae_tensors(checkpoint, dtype)[1]


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("gguf_type", WRITABLE_TYPES)
def test_every_type_loads_again(source: Path, state: State, tmp_path: Path, gguf_type: str) -> None:
    report = convert_to_gguf(source, tmp_path / "a.gguf", gguf_type)
    values = loaded(report.target)
    lost = sum((values[name] - state[name].float()).square().sum().item() for name in state)
    energy = sum(state[name].float().square().sum().item() for name in state)
    assert math.sqrt(lost / energy) <= LOSS[gguf_type]
    assert report.relative_rms == pytest.approx(math.sqrt(lost / energy), rel=1e-3)
    assert report.parameters == 2_517_795
    assert (report.source_bytes, report.target_bytes) == (source.stat().st_size, report.target.stat().st_size)
    assert sum(report.tensors_by_type.values()) == 250
    assert files_in(tmp_path) == ["a.gguf"]


def test_f16_is_bit_exact(source: Path, state: State, tmp_path: Path) -> None:
    convert_to_gguf(source, tmp_path / "a.gguf", "F16")
    values = loaded(tmp_path / "a.gguf", torch.float16)
    assert all(torch.equal(values[name].view(torch.int16), state[name].view(torch.int16)) for name in state)


@pytest.mark.parametrize("gguf_type", WRITABLE_TYPES)
def test_what_public_loaders_rely_on(source: Path, state: State, tmp_path: Path, gguf_type: str) -> None:
    convert_to_gguf(source, tmp_path / "a.gguf", gguf_type)
    reader = gguf.GGUFReader(tmp_path / "a.gguf")
    assert reader.tensors[0].name == "encoder.conv_in.weight"
    for tensor in reader.tensors:
        original = tuple(state[tensor.name].shape)
        stored = tuple(int(size) for size in reversed(tensor.shape))
        field = reader.get_field(f"comfy.gguf.orig_shape.{tensor.name}")
        assert len(stored) <= 2
        if len(original) == 5:
            assert field is not None
            assert field.types == [gguf.GGUFValueType.ARRAY, gguf.GGUFValueType.INT32]
            assert tuple(field.contents()) == original
        else:
            assert field is None
            assert stored == original
        high = "F32" if gguf_type in ("F32", "BF16") else "F16"
        expected = "F32" if len(original) == 1 else high if tensor.name in ODD else gguf_type
        assert tensor.tensor_type.name == expected, tensor.name


def test_metadata(source: Path, tmp_path: Path) -> None:
    convert_to_gguf(source, tmp_path / "a.gguf", "Q8_0")
    with open_checkpoint(tmp_path / "a.gguf") as checkpoint:
        metadata = checkpoint.metadata
    assert metadata["general.architecture"] == "seedvr2_vae"
    assert metadata["general.name"] == "SeedVR2 VAE"
    assert metadata["general.quantized_by"] == "SeedVR2 Engine"
    assert metadata["general.file_type"] == str(int(gguf.LlamaFileType.MOSTLY_Q8_0))
    assert metadata["general.quantization_version"] == "2"
    assert metadata[SOURCE_HASH_KEY] == hashlib.sha256(source.read_bytes()).hexdigest()


def test_a_gguf_file_is_a_source_too_and_the_result_is_reproducible(source: Path, tmp_path: Path) -> None:
    for name in ("a.gguf", "b.gguf"):
        convert_to_gguf(source, tmp_path / name, "Q4_1")
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()
    report = convert_to_gguf(tmp_path / "a.gguf", tmp_path / "c.gguf", "F32")
    assert report.relative_rms == 0
    first, second = loaded(tmp_path / "a.gguf"), loaded(tmp_path / "c.gguf")
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_bf16_sources_lose_nothing_in_bf16(state: State, tmp_path: Path) -> None:
    # Values below 2**-24 are zero in F16.
    small = {name: (values.float() * 1e-9).to(torch.bfloat16) for name, values in state.items()}
    save_file(small, tmp_path / "a.safetensors")
    assert convert_to_gguf(tmp_path / "a.safetensors", tmp_path / "a.gguf", "BF16").relative_rms == 0


def test_scaled_fp8_sources(state: State, tmp_path: Path) -> None:
    name = "decoder.conv_in.weight"
    weight = state[name].to(torch.float8_e4m3fn)
    scale = torch.linspace(0.5, 2, 32)
    save_file({**state, name: weight, f"{name}_scale": scale}, tmp_path / "a.safetensors")
    convert_to_gguf(tmp_path / "a.safetensors", tmp_path / "a.gguf", "F32")
    expected = weight.float() * scale.reshape(-1, 1, 1, 1, 1)
    assert torch.equal(loaded(tmp_path / "a.gguf")[name], expected)


def test_progress_counts_values(source: Path, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    convert_to_gguf(source, tmp_path / "a.gguf", "Q8_0", on_progress=lambda *counts: calls.append(counts))
    assert len(calls) == 250
    assert calls == sorted(calls)
    assert calls[-1] == (2_517_795, 2_517_795)


def test_targets_that_are_refused(source: Path, tmp_path: Path) -> None:
    old = tmp_path / "old.gguf"
    old.write_bytes(OLD)
    with pytest.raises(OutputError, match="found one; choose another name or ask to overwrite it"):
        convert_to_gguf(source, old, "F16")
    with pytest.raises(OutputError, match="expected an existing folder"):
        convert_to_gguf(source, tmp_path / "none" / "a.gguf", "F16")
    with pytest.raises(OutputError, match="found a folder"):
        convert_to_gguf(source, tmp_path, "F16", overwrite=True)
    with pytest.raises(InvalidArgumentError, match=r"one of F32, F16, .*, got 'Q4_K'"):
        convert_to_gguf(source, tmp_path / "a.gguf", "Q4_K")
    assert old.read_bytes() == OLD
    convert_to_gguf(source, old, "F16", overwrite=True)
    with pytest.raises(OutputError, match="expected another file than the source"):
        convert_to_gguf(old, old, "F16", overwrite=True)
    assert files_in(tmp_path) == ["old.gguf"]


@pytest.mark.parametrize(
    ("value", "gguf_type", "message"),
    [
        (float("nan"), "F32", "expected finite weights"),
        (1e6, "F16", "within the range of F16, found 1e\\+06; convert to F32"),
        (3.4e38, "BF16", "within the range of BF16"),
        (1e8, "Q8_0", "within the range of Q8_0"),
        (1e6, "Q4_1", "within the range of Q4_1"),
    ],
)
def test_values_that_do_not_fit(state: State, tmp_path: Path, value: float, gguf_type: str, message: str) -> None:
    name = "decoder.conv_in.weight"
    spoilt = state[name].float().clone()
    spoilt[3, 5, 1, 1, 1] = value
    save_file({**state, name: spoilt}, tmp_path / "a.safetensors")
    (tmp_path / "a.gguf").write_bytes(OLD)
    with pytest.raises(CheckpointError, match=f"{name} in .*{message}"):
        convert_to_gguf(tmp_path / "a.safetensors", tmp_path / "a.gguf", gguf_type, overwrite=True)
    assert (tmp_path / "a.gguf").read_bytes() == OLD
    assert files_in(tmp_path) == ["a.gguf", "a.safetensors"]


class Stop(BaseException):
    """What Ctrl-C raises in the middle of a conversion."""


def test_an_interrupted_conversion_leaves_nothing(source: Path, tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done > total // 2:
            raise Stop

    (tmp_path / "a.gguf").write_bytes(OLD)
    with pytest.raises(Stop):
        convert_to_gguf(source, tmp_path / "a.gguf", "F16", overwrite=True, on_progress=stop)
    assert (tmp_path / "a.gguf").read_bytes() == OLD
    assert files_in(tmp_path) == ["a.gguf"]


@contextmanager
def largest_file(limit_bytes: int) -> Iterator[None]:
    """Let the operating system refuse to write more than this into one file."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("limit_bytes", [1 << 10, 1 << 20])
def test_a_failing_disk_leaves_nothing(source: Path, tmp_path: Path, limit_bytes: int) -> None:
    (tmp_path / "a.gguf").write_bytes(OLD)
    with largest_file(limit_bytes), pytest.raises(OutputError, match="could not be written") as caught:
        convert_to_gguf(source, tmp_path / "a.gguf", "F16", overwrite=True)
    assert "\n" not in str(caught.value)
    assert (tmp_path / "a.gguf").read_bytes() == OLD
    assert files_in(tmp_path) == ["a.gguf"]


def test_a_full_disk_is_noticed_before_writing(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1_000_000}))
    with pytest.raises(OutputError, match="expected 5 MB of free space, found 1 MB"):
        convert_to_gguf(source, tmp_path / "a.gguf", "F16")
    assert files_in(tmp_path) == []


def test_zero_weights_have_no_loss(state: State, tmp_path: Path) -> None:
    save_file({name: torch.zeros_like(values) for name, values in state.items()}, tmp_path / "a.safetensors")
    report = convert_to_gguf(tmp_path / "a.safetensors", tmp_path / "a.gguf", "Q5_1")
    assert report.relative_rms == 0
    assert np.count_nonzero(loaded(report.target)["decoder.conv_in.weight"].numpy()) == 0


@pytest.mark.parametrize("precious", ["transformer", "safetensors", "text"])
def test_overwriting_replaces_vaes_in_gguf_and_nothing_else(source: Path, tmp_path: Path, precious: str) -> None:
    content = {
        "transformer": NANO_DIT.read_bytes()[:4_000_000] + bytes(6_095_328),
        "safetensors": source.read_bytes(),
        "text": b"the only copy",
    }[precious]
    target = tmp_path / "a.gguf"
    target.write_bytes(content)
    with pytest.raises(OutputError, match="expected a VAE in GGUF to overwrite, found"):
        convert_to_gguf(source, target, "Q8_0", overwrite=True)
    assert target.read_bytes() == content
    assert files_in(tmp_path) == ["a.gguf"]


def test_a_public_files_name_is_refused_in_any_case(source: Path, tmp_path: Path) -> None:
    for name in ("seedvr2_ema_3b-Q8_0.gguf", "SEEDVR2_EMA_3B-q8_0.GGUF"):
        with pytest.raises(OutputError, match="got that of a public file"):
            convert_to_gguf(source, tmp_path / name, "Q8_0", overwrite=True)
    assert files_in(tmp_path) == []


def test_the_source_is_known_by_the_file_and_not_by_its_name(tmp_path: Path) -> None:
    source, link, hard = tmp_path / "a.gguf", tmp_path / "link.gguf", tmp_path / "hard.gguf"
    source.write_bytes(OLD)
    link.symlink_to(source)
    hard.hardlink_to(source)
    for target in (link, hard):
        with pytest.raises(OutputError, match="expected another file than the source"):
            convert_to_gguf(source, target, "F16", overwrite=True)
    assert source.read_bytes() == OLD


def test_a_dangling_link_is_not_replaced_unasked(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "a.gguf"
    target.symlink_to(tmp_path / "nowhere.gguf")
    with pytest.raises(OutputError, match="expected no such file, found one"):
        convert_to_gguf(source, target, "F16")
    assert target.is_symlink()


def test_what_a_killed_conversion_left_is_no_model(tmp_path: Path) -> None:
    with PartialFile(tmp_path / "a.gguf", overwrite=False, keeps_ending=False) as partial:
        partial.write(OLD)
        assert partial.path.is_file()
        assert local_models([tmp_path]) == []
    left = tmp_path / ".seedvr2-old"
    left.mkdir()
    (left / "converting.gguf").write_bytes(OLD)
    assert [model.path.name for model in local_models([tmp_path])] == ["a.gguf"]
