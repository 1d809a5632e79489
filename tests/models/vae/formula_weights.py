"""Weights that follow a formula instead of being stored: uniform numbers from SplitMix64, seeded by tensor name."""

import math

import numpy as np
import torch

from seedvr2_engine.models.vae.config import Shape, VAEConfig

_GOLDEN_RATIO = np.uint64(0x9E3779B97F4A7C15)


def formula_tensor(seed: str, name: str, shape: Shape) -> torch.Tensor:
    """The float16 tensor `name` of the set `seed`."""
    low, high = _range(name, shape)
    with np.errstate(over="ignore"):
        state = np.arange(1, math.prod(shape) + 1, dtype=np.uint64)
        state *= _GOLDEN_RATIO
        state += np.uint64(_fnv1a(f"{seed}:{name}"))
        state ^= state >> np.uint64(30)
        state *= np.uint64(0xBF58476D1CE4E5B9)
        state ^= state >> np.uint64(27)
        state *= np.uint64(0x94D049BB133111EB)
        state ^= state >> np.uint64(31)
    uniform = (state >> np.uint64(40)).astype(np.float64) / 2**24
    return torch.from_numpy((low + (high - low) * uniform).astype(np.float16)).reshape(shape)


def formula_state(seed: str, config: VAEConfig) -> dict[str, torch.Tensor]:
    """All tensors of a VAE."""
    return {name: formula_tensor(seed, name, shape) for name, shape in config.tensor_shapes().items()}


def _range(name: str, shape: Shape) -> tuple[float, float]:
    if "norm" in name:
        return (0.6, 1.4) if name.endswith(".weight") else (-0.3, 0.3)
    if name.endswith(".bias"):
        bound = 0.01 if name.endswith("conv_in.bias") else 0.2
        return -bound, bound
    gain = 1.0
    if name.endswith("conv_in.weight"):
        gain = 0.03
    elif ".to_q." in name or ".to_k." in name:
        gain = 1.6
    bound = gain * math.sqrt(3 / math.prod(shape[1:]))
    return -bound, bound


def _fnv1a(text: str) -> int:
    value = 0xCBF29CE484222325
    for byte in text.encode():
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return value
