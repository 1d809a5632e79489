"""Golden cases whose pixels come from other people's clips, and synthetic pictures to use beside them."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor


def golden_pictures(name: str) -> dict[str, Tensor]:
    """The arrays of a file in the folder that SEEDVR2_GOLDEN names; skips the test where it is not set."""
    return load_file(_golden_file(name))


def golden_settings(name: str) -> dict[str, dict[str, Any]]:
    """What the file says of how each of its cases was made."""
    with safe_open(_golden_file(name), "pt") as file:
        return {case: json.loads(settings) for case, settings in file.metadata().items()}


def _golden_file(name: str) -> Path:
    folder = os.environ.get("SEEDVR2_GOLDEN")
    if not folder:
        pytest.skip("SEEDVR2_GOLDEN does not name the folder with the golden pictures, which are not ours to pass on")
    return Path(folder) / f"{name}.safetensors"


def scene(frames: int, height: int, width: int, seed: int = 0) -> Tensor:
    """Gradients, moving waves and grain in three channels: (T, 3, H, W) in [0, 1], no two values alike."""
    t = torch.arange(frames)[:, None, None, None] * 0.3
    y = torch.linspace(0, 1, height)[:, None]
    x = torch.linspace(0, 1, width)
    phase = torch.tensor([0.0, 2.0, 4.0])[:, None, None] + seed
    waves = torch.sin(9 * x + t + phase) * torch.cos(7 * y + phase) * 0.3 + 0.2 * x + 0.15 * y + 0.35
    grain = torch.randn(waves.shape, generator=torch.Generator().manual_seed(seed)) * 0.03
    return (waves + grain).clamp(0.01, 0.99)
