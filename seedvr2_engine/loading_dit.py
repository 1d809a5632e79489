"""From a checkpoint file to a diffusion transformer that is ready to use."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from .checkpoint.detect_dit import detect_dit, load_dit_tensors
from .checkpoint.opening import open_checkpoint
from .checkpoint.text_embedding import load_text_embedding as read_text_embedding
from .device import as_device
from .engine.dit.fused import serve_dit
from .engine.dit.streamed import StreamedDiT
from .engine.dit.weights import is_packed, load_streamed
from .errors import CheckpointError, InvalidArgumentError, ModelFileError
from .models.dit.config import DiTConfig
from .models.dit.model import NaDiT
from .models.dit.rope import rotary_frequencies

NANO_DIT = Path(__file__).parent / "nano" / "nano_dit_q8_0.gguf"
"""The small transformer that comes with the package and carries its own text embedding."""

_READERS = 4
"""Threads that read for a GPU: 6.8 GB in 1.4 s beside an H200, where one without page-locked memory took 5.2."""
_COMPUTE_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def dit_file(path: str | Path) -> Path:
    """The file that `path` means, which may also be `"nano"`; raises ModelFileError if this package lacks that."""
    if str(path) != "nano":
        return Path(path)
    if not NANO_DIT.is_file():
        raise ModelFileError(
            f"nano: expected the small transformer in this package as {NANO_DIT.name}, found none; this build comes "
            "without it, so name a transformer file."
        )
    return NANO_DIT


def load_text_embedding(path: str | Path) -> Tensor:
    """Load a text embedding (tokens, text width), float32, from a transformer's file or the public `pos_emb.pt`.

    `path` may also be `"nano"`, whose file carries its own. Raises ModelFileError or CheckpointError.
    """
    return read_text_embedding(dit_file(path))


def load_dit(
    path: str | Path,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    offload: bool = False,
    packed: bool | None = None,
    on_tensor: Callable[[], object] = lambda: None,
) -> NaDiT:
    """Load a SeedVR2 transformer from a safetensors or GGUF file; all sizes follow from the tensors in it.

    `path` may also be `"nano"`, the small model that comes with the package. `dtype` is the number format of weights
    and activations, float32 if None; quantised weights are dequantised in float32 and rounded once.
    offload: keep the blocks' matrices in the host's memory, page-locked for a GPU, and copy them block by block while
    the block before computes.
    packed: keep what the file has quantised or in FP8 as it is, and unpack it block by block in every run; by default
    on GPUs. Neither changes a number.
    on_tensor: called before every tensor is read; raise from it to stop.
    16 bits on a GPU are computed with the engine's kernels, which give the plain model's numbers up to rounding; why
    they are not used where they are not is in the log.
    Each tensor moves to its place as soon as it is read. Raises ModelFileError if there is no such file,
    CheckpointError if it is not a complete, finite SeedVR2 transformer.
    """
    dtype = torch.float32 if dtype is None else dtype
    if dtype not in _COMPUTE_DTYPES:
        raise InvalidArgumentError(f"dtype: expected torch.float32, float16 or bfloat16, got {dtype!r}.")
    path, device = dit_file(path), as_device(device)
    keeps_packed = device.type == "cuda" if packed is None else packed
    with open_checkpoint(path) as checkpoint:
        checkpoint.on_read = on_tensor
        config = detect_dit(checkpoint)
        dit: NaDiT
        if offload or (keeps_packed and is_packed(checkpoint)):
            dit, tensors = load_streamed(checkpoint, config, device, dtype, offload=offload, packed=keeps_packed)
        else:
            # On the meta device nothing is allocated or initialised before the file's own tensors take their places.
            with torch.device("meta"):
                dit = NaDiT(config)
            threads = _READERS if device.type == "cuda" else 1
            tensors = dict(load_dit_tensors(checkpoint, config, dtype, device, threads))
    _check_frequencies(path, config, tensors)
    dit.load_state_dict(tensors, strict=not isinstance(dit, StreamedDiT), assign=True)
    dit.requires_grad_(False).eval()
    return serve_dit(dit)


def _check_frequencies(path: Path, config: DiTConfig, tensors: dict[str, Tensor]) -> None:
    """Refuse rotary frequencies that are not the model's, which are computed and not read.

    The roughest files in use have them in FP8 E4M3: within a sixteenth, or 2^-10 below the smallest number.
    """
    expected = rotary_frequencies(config)
    for name, stored in tensors.items():
        if name.endswith(".rope.freqs"):
            error = (stored.float().cpu() - expected).abs()
            if (error > expected / 16 + 2**-10).any():
                raise CheckpointError(
                    f"{name} in {path}: expected the rotary frequencies of the {config.family} family from "
                    f"{expected[0]:.4g} to {expected[-1]:.4g}, found others; this is another model."
                )
