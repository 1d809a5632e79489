"""The tiny models as files, and a small clip."""

from fractions import Fraction
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from seedvr2_engine.video import ColorRange, ColorTags, Matrix

from ..conftest import GOLDEN
from ..video.made.clips import ClipSpec, ramp, write_clip

TINY_VAE = str(GOLDEN / "vae_tiny.safetensors")


@pytest.fixture(scope="session")
def dit(tmp_path_factory) -> str:
    """The tiny transformer with a text embedding inside, as ComfyUI's repackaging has it."""
    path = tmp_path_factory.mktemp("models") / "dit.safetensors"
    text = torch.randn(7, 64, generator=torch.manual_seed(1))
    save_file({**load_file(GOLDEN / "dit_tiny_3b.safetensors"), "positive_conditioning": text}, path)
    return str(path)


@pytest.fixture(scope="session")
def models(dit) -> list[str]:
    return ["--dit", dit, "--vae", TINY_VAE]


@pytest.fixture(scope="session")
def clip(tmp_path_factory) -> Path:
    """Seven small frames at an odd rate with tags and sound."""
    path = tmp_path_factory.mktemp("clips") / "clip.mp4"
    tags = ColorTags(ColorRange.LIMITED, Matrix.BT709, 1, 1)
    spec = ClipSpec("libx264", "yuv420p", Fraction(30000, 1001), tags=tags, audio="aac", audio_s=0.3)
    return write_clip(path, [ramp(index, 32, 24) for index in range(7)], spec)
