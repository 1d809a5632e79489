"""Fixtures shared by all tests."""

import os
import signal
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings
from safetensors.torch import load_file

from seedvr2_engine.models.vae.config import VAEConfig
from seedvr2_engine.models.vae.model import VideoVAE

GOLDEN = Path(__file__).parent / "golden"
TINY = VAEConfig(block_out_channels=(32, 64, 32, 32))
NANO = VAEConfig(block_out_channels=(32, 32, 64, 64))

# Read by Triton when it is imported, so set before any test can do that. With a GPU the kernels run there; ask for the
# interpreter with TRITON_INTERPRET=1.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

settings.register_profile("no clock", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("no clock")
# A shell starts what runs in its background with Ctrl-C ignored, nohup ignores that a terminal closes, and processes
# hand that on: tests of it would wait.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def golden_dir() -> Path:
    return GOLDEN


@pytest.fixture(scope="session")
def tiny_cases() -> dict[str, torch.Tensor]:
    return load_file(GOLDEN / "vae_tiny_cases.safetensors")


def build_tiny_vae() -> VideoVAE:
    vae = VideoVAE(TINY)
    vae.load_state_dict({k: v.float() for k, v in load_file(GOLDEN / "vae_tiny.safetensors").items()})
    return vae


@pytest.fixture(scope="session")
def tiny_vae() -> VideoVAE:
    return build_tiny_vae()
