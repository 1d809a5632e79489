"""Transformers with random weights: what a benchmark measures does not depend on them."""

from __future__ import annotations

import torch

from ..models.dit.config import DiTConfig
from ..models.dit.model import NaDiT
from ..models.dit.rope import rotary_frequencies


def random_dit(config: DiTConfig, device: torch.device, dtype: torch.dtype) -> NaDiT:
    """A transformer with random weights of about the trained ones' size."""
    with torch.device("meta"):
        dit = NaDiT(config)
    state = {}
    for name, shape in config.tensor_shapes().items():
        if name.endswith("freqs"):
            state[name] = rotary_frequencies(config).to(device, dtype)
        elif len(shape) == 2:
            state[name] = torch.randn(shape, device=device, dtype=dtype) * shape[1] ** -0.5
        else:
            state[name] = torch.rand(shape, device=device, dtype=dtype) * 0.2 + (0.9 if "scale" in name else 0.0)
    dit.load_state_dict(state, assign=True)
    return dit.requires_grad_(False).eval()
