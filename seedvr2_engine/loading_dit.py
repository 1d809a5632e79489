"""From a checkpoint file to a diffusion transformer that is ready to use."""

from pathlib import Path

import torch
from torch import Tensor

from .checkpoint.detect_dit import detect_dit, load_dit_tensors
from .checkpoint.reader import open_checkpoint
from .errors import CheckpointError, InvalidArgumentError
from .models.dit import NaDiT
from .models.dit_config import DiTConfig
from .models.rope import rotary_frequencies

_COMPUTE_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def load_dit(path: str | Path, *, device: str | torch.device = "cpu", dtype: torch.dtype | None = None) -> NaDiT:
    """Load a SeedVR2 transformer from a safetensors or GGUF file; all sizes follow from the tensors in it.

    `dtype` is the number format of weights and activations, float32 if None; quantised weights are dequantised in
    float32 and rounded once. Each tensor moves to the device as soon as it is read. Raises ModelFileError if there is
    no such file, CheckpointError if it is not a complete, finite SeedVR2 transformer.
    """
    dtype = torch.float32 if dtype is None else dtype
    if dtype not in _COMPUTE_DTYPES:
        raise InvalidArgumentError(f"dtype: expected float32, float16 or bfloat16, got {dtype}.")
    with open_checkpoint(path) as checkpoint:
        config = detect_dit(checkpoint)
        tensors = {name: tensor.to(device) for name, tensor in load_dit_tensors(checkpoint, config, dtype)}
    _check_frequencies(Path(path), config, tensors)
    # On the meta device nothing is allocated or initialised before the file's own tensors take their places.
    with torch.device("meta"):
        dit = NaDiT(config)
    dit.load_state_dict(tensors, assign=True)
    return dit.requires_grad_(False).eval()


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
