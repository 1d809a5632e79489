"""Open a checkpoint file, whichever container it is."""

from contextlib import ExitStack
from pathlib import Path

from ..errors import CheckpointError
from .base import Checkpoint
from .containers.safetensors import SafetensorsCheckpoint
from .containers.stored import StoredBytes


def open_checkpoint(path: Path | str) -> Checkpoint:
    """Open a safetensors or GGUF file, told apart by the first bytes and never by the file's name.

    Raises ModelFileError if there is no such readable file, CheckpointError if it is of another kind or
    damaged.
    """
    path = Path(path)
    with ExitStack() as opened:
        stored = opened.enter_context(StoredBytes(path))
        head = stored.head(16)
        checkpoint: Checkpoint
        if head.startswith(b"GGUF"):
            # Here and not above: the gguf package is not needed for safetensors.
            from .containers.gguf import GGUFCheckpoint

            checkpoint = GGUFCheckpoint(stored)
        elif head[8:9] == b"{":
            checkpoint = SafetensorsCheckpoint(stored)
        else:
            raise CheckpointError(f"{path}: {_refusal(head)}")
        opened.pop_all()  # It is the checkpoint's from here on.
        return checkpoint


def _refusal(head: bytes) -> str:
    """Say why a file that begins with `head` is neither of the two formats, and what to do."""
    expected = "expected a safetensors or GGUF checkpoint"
    # A zip archive is how torch.save has written since 1.6; before, it was a bare pickle of protocol 2 to 5.
    if head.startswith(b"PK\x03\x04") or (head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")):
        return (
            f"{expected}, found a PyTorch pickle, which can run code when it is loaded; convert it in an "
            "environment you trust with "
            "safetensors.torch.save_file(torch.load(path, weights_only=True), new_path)."
        )
    if not head:
        return f"{expected}, found an empty file; download it again."
    if head.startswith(b"version https://"):
        return f"{expected}, found a Git LFS pointer; fetch the file itself with `git lfs pull`."
    if head.lstrip().lower().startswith((b"<!doctype", b"<html")):
        return f"{expected}, found a web page; download the file itself."
    return f"{expected}, found neither; download it again or convert it to safetensors."
