"""From a checkpoint file to a model that is ready to use."""

from pathlib import Path

import torch

from .checkpoint.base import Checkpoint
from .checkpoint.detect import load_vae_tensors
from .checkpoint.opening import open_checkpoint
from .device import as_device
from .errors import InvalidArgumentError
from .models.vae.model import VideoVAE

NANO_VAE = Path(__file__).parent / "nano" / "nano_vae_q8_0.gguf"
"""The small VAE that comes with the package: the same architecture at widths 32, 32, 64, 64."""

_COMPUTE_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def load_vae(path: str | Path, *, device: str | torch.device = "cpu", dtype: torch.dtype | None = None) -> VideoVAE:
    """Load a SeedVR2 VAE from a safetensors or GGUF file; the widths follow from the tensors in it.

    `path` may also be `"nano"`, the small model that comes with the package. `dtype` is the number format of
    weights and activations, float32 if None; quantised weights are dequantised in float32 and rounded once.
    `device` may be `"auto"`: the first CUDA GPU, or else the CPU.
    Raises ModelFileError if there is no such file, CheckpointError if it is not a complete, finite SeedVR2 VAE.
    """
    with open_checkpoint(NANO_VAE if str(path) == "nano" else path) as checkpoint:
        return build_vae(checkpoint, device=device, dtype=dtype)


def build_vae(
    checkpoint: Checkpoint, *, device: str | torch.device = "cpu", dtype: torch.dtype | None = None
) -> VideoVAE:
    """The VAE of an open checkpoint; as `load_vae`."""
    dtype = torch.float32 if dtype is None else dtype
    if dtype not in _COMPUTE_DTYPES:
        raise InvalidArgumentError(f"dtype: expected torch.float32, float16, bfloat16 or float64, got {dtype!r}.")
    device = as_device(device)
    config, tensors = load_vae_tensors(checkpoint, dtype)
    # On the meta device nothing is allocated or initialised before the file's own tensors take their places.
    with torch.device("meta"):
        vae = VideoVAE(config)
    vae.load_state_dict(tensors, assign=True)
    return vae.requires_grad_(False).eval().to(device)
