"""The text embedding that upscaling uses: from a transformer's checkpoint, or from ByteDance's own file."""

import hashlib
import io
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor

from ..errors import CheckpointError, ModelFileError
from .detect_dit import POSITIVE_TEXT, load_text
from .locating.registry import ModelFile, find
from .opening import open_checkpoint

PUBLIC_TEXT = "pos_emb.pt"
"""The name of the public text embedding, (58, 5120) BF16."""


def load_text_embedding(path: Path | str, public: ModelFile | None = None) -> Tensor:
    """Load a text embedding (tokens, text width), float32, from a checkpoint that carries it or the public file.

    The public file is a pickle, the only one that is ever read: its SHA-256 must be the registry's, the bytes that
    were checked are the bytes that are parsed, and nothing but tensors is unpickled. `public` is the registry's entry
    unless given. Raises ModelFileError or CheckpointError.
    """
    path, public = Path(path), public or find(PUBLIC_TEXT)
    content = _content_if_public(path, public)
    if content is not None:
        return _unpickle(path, content)
    with open_checkpoint(path) as checkpoint:
        text = load_text(checkpoint)
    if text is None:
        raise CheckpointError(
            f"{path}: expected a text embedding ({POSITIVE_TEXT}) in this checkpoint, found none; use the public "
            f"{public.name} (`seedvr2 download {public.name}`)."
        )
    return text


def _content_if_public(path: Path, public: ModelFile) -> bytes | None:
    try:
        if path.stat().st_size != public.size_bytes:
            return None
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise ModelFileError(f"{path}: expected a text embedding, found no file; check the path.") from error
    except OSError as error:
        raise ModelFileError(f"{path}: the text embedding cannot be read ({error.strerror}).") from error
    return content if hashlib.sha256(content).hexdigest() == public.sha256 else None


def _unpickle(path: Path, content: bytes) -> Tensor:
    try:
        text = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError, EOFError) as error:
        raise CheckpointError(f"{path}: expected a tensor, found a file that cannot be unpickled safely.") from error
    if not isinstance(text, Tensor) or text.ndim != 2 or not text.is_floating_point():
        raise CheckpointError(f"{path}: expected one floating-point tensor of two axes, found something else.")
    return text.float()
