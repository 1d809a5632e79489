"""The text embedding from a checkpoint, and from the one pickle that is ever read."""

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from seedvr2_engine.checkpoint.locating.registry import ModelFile, find
from seedvr2_engine.checkpoint.text_embedding import PUBLIC_TEXT, load_text_embedding
from seedvr2_engine.errors import CheckpointError, ModelFileError

TEXT = torch.linspace(-3, 3, 40).view(5, 8).bfloat16()


def pinned(path: Path) -> ModelFile:
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    return ModelFile("pos_emb.pt", "text", "a/b", "pos_emb.pt", None, len(content), digest, "a test")


def pickled(tmp_path: Path, value: object) -> Path:
    path = tmp_path / "pos_emb.pt"
    torch.save(value, path)
    return path


def test_the_registry_pins_the_public_file() -> None:
    public = find(PUBLIC_TEXT)
    assert public.sha256 == "fa07a14844314772266b66c3b95deb0027696d8fe7065721263db5176f45d799"


def test_the_pinned_pickle_is_read(tmp_path: Path) -> None:
    path = pickled(tmp_path, TEXT)
    text = load_text_embedding(path, pinned(path))
    assert text.dtype == torch.float32
    assert torch.equal(text, TEXT.float())


def test_a_pickle_of_other_content_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = pickled(tmp_path, TEXT)
    public = pinned(path)
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1
    path.write_bytes(damaged)
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("unpickled"))
    with pytest.raises(CheckpointError, match="found a PyTorch pickle, which can run code"):
        load_text_embedding(path, public)
    with pytest.raises(CheckpointError, match="found a PyTorch pickle, which can run code"):
        load_text_embedding(path)


class Payload:
    """What a hostile pickle holds: a call."""

    def __reduce__(self) -> tuple[object, ...]:
        return pytest.fail, ("ran code",)


def test_even_a_pinned_pickle_runs_no_code(tmp_path: Path) -> None:
    path = pickled(tmp_path, Payload())
    with pytest.raises(CheckpointError, match="cannot be unpickled safely"):
        load_text_embedding(path, pinned(path))


@pytest.mark.parametrize("value", [[TEXT], TEXT[0], TEXT.int()])
def test_a_pinned_pickle_of_something_else_is_refused(tmp_path: Path, value: object) -> None:
    path = pickled(tmp_path, value)
    with pytest.raises(CheckpointError, match="expected one floating-point tensor of two axes"):
        load_text_embedding(path, pinned(path))


def test_the_text_of_a_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "dit.safetensors"
    save_file({"positive_conditioning": TEXT}, path)
    assert torch.equal(load_text_embedding(path), TEXT.float())


def test_a_checkpoint_without_text_says_where_to_get_it(golden_dir: Path) -> None:
    with pytest.raises(CheckpointError, match=r"found none; use the public pos_emb.pt \(`seedvr2 download pos_emb.pt`"):
        load_text_embedding(golden_dir / "dit_tiny_3b.safetensors")


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="expected a text embedding, found no file; check the path"):
        load_text_embedding(tmp_path / "pos_emb.pt")
    with pytest.raises(ModelFileError, match="cannot be read"):
        load_text_embedding(tmp_path / ("x" * 300))
