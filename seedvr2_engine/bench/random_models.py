"""Models with random weights, in memory and as files: what a benchmark measures hardly depends on them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from ..checkpoint.detect_dit import POSITIVE_TEXT
from ..models.dit.config import DiTConfig
from ..models.dit.model import NaDiT
from ..models.dit.rope import rotary_frequencies
from ..models.vae.config import Shape, VAEConfig
from .cases import random_vae

PUBLIC_TEXT_TOKENS = 58
_CPU = torch.device("cpu")


def random_dit(config: DiTConfig, device: torch.device, dtype: torch.dtype) -> NaDiT:
    """A transformer with random weights of about the trained ones' size."""
    with torch.device("meta"):
        dit = NaDiT(config)
    shapes = config.tensor_shapes()
    state = {name: _dit_weight(config, name, shape, device, dtype) for name, shape in shapes.items()}
    dit.load_state_dict(state, assign=True)
    return dit.requires_grad_(False).eval()


def _dit_weight(config: DiTConfig, name: str, shape: Shape, device: torch.device, dtype: torch.dtype) -> Tensor:
    if name.endswith("freqs"):
        return rotary_frequencies(config).to(device, dtype)
    drawn: Tensor
    if len(shape) == 2:
        drawn = torch.randn(shape, device=device, dtype=dtype) * shape[1] ** -0.5
    else:
        drawn = torch.rand(shape, device=device, dtype=dtype) * 0.2 + (0.9 if "scale" in name else 0.0)
    return drawn


def write_random_dit(path: Path, config: DiTConfig) -> None:
    """Such a transformer with a random text embedding as a safetensors file in FP16, the same every time."""
    torch.manual_seed(0)
    text = (PUBLIC_TEXT_TOKENS, config.text_width)
    shapes = {**config.tensor_shapes(), POSITIVE_TEXT: text}

    def weight(name: str) -> Tensor:
        if name == POSITIVE_TEXT:
            return torch.randn(text)
        return _dit_weight(config, name, shapes[name], _CPU, torch.float32)

    _write(path, shapes, weight)


def write_random_vae(path: Path, config: VAEConfig) -> None:
    """The VAE of `random_vae` as a safetensors file in FP16."""
    _write(path, config.tensor_shapes(), random_vae(config, _CPU).state_dict().__getitem__)


def _write(path: Path, shapes: Mapping[str, Shape], weight: Callable[[str], Tensor]) -> None:
    """Tensor by tensor, so that a large model needs no memory."""
    header, end = {}, 0
    for name, shape in shapes.items():
        begin, end = end, end + 2 * prod(shape)
        header[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in shapes:
            file.write(weight(name).half().contiguous().numpy().tobytes())
