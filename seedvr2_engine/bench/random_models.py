"""Models with random weights: what a benchmark of them alone measures hardly depends on those."""

from __future__ import annotations

import torch
from torch import Tensor

from ..models.dit.config import DiTConfig
from ..models.dit.model import NaDiT
from ..models.dit.rope import rotary_frequencies
from ..models.vae.config import Shape

PUBLIC_TEXT_TOKENS = 58


def random_dit(config: DiTConfig, device: torch.device, dtype: torch.dtype) -> NaDiT:
    """A transformer with random weights of about the trained ones' size."""
    with torch.device("meta"):
        dit = NaDiT(config)
    shapes = config.tensor_shapes()
    state = {name: random_dit_weight(config, name, shape, device, dtype) for name, shape in shapes.items()}
    dit.load_state_dict(state, assign=True)
    return dit.requires_grad_(False).eval()


def random_dit_weight(config: DiTConfig, name: str, shape: Shape, device: torch.device, dtype: torch.dtype) -> Tensor:
    """One of its tensors, by the name it has in a checkpoint."""
    if name.endswith("freqs"):
        return rotary_frequencies(config).to(device, dtype)
    drawn: Tensor
    if len(shape) == 2:
        drawn = torch.randn(shape, device=device, dtype=dtype) * shape[1] ** -0.5
    else:
        drawn = torch.rand(shape, device=device, dtype=dtype) * 0.2 + (0.9 if "scale" in name else 0.0)
    return drawn
