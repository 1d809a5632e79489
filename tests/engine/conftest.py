"""Engines on the CPU: the whole engine with the kernels' FP32 references in place of the kernels."""

from collections.abc import Callable

import pytest
import torch

from seedvr2_engine.device import DeviceSpec, MatrixRates
from seedvr2_engine.engine import EngineOptions, VAEEngine, reference_backend
from seedvr2_engine.engine.accuracy.calibrate import activation_maxima
from seedvr2_engine.engine.vae import engine
from seedvr2_engine.kernels.layout import DTYPES
from seedvr2_engine.models.vae.model import VideoVAE
from seedvr2_engine.plan import compile
from seedvr2_engine.quant import QuantRecipe

GPU = DeviceSpec("a GPU", "sm_120", 70, 101_376, 16 << 30, 9e11, MatrixRates(0, 0, 0, 0))
HOPPER = DeviceSpec("a Hopper GPU", "sm_90", 132, 232_448, 80 << 30, 3e12, MatrixRates(0, 0, 0, 0))
"""Frames are computed in pairs there."""
MakeEngine = Callable[..., VAEEngine]


@pytest.fixture(autouse=True)
def no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """Budgets of the tiny model are smaller than what cuBLAS keeps, of which there is nothing on a CPU."""
    if not torch.cuda.is_available():
        monkeypatch.setattr(compile, "LIBRARY_BYTES", 0)


@pytest.fixture(scope="session")
def tiny_maxima(tiny_vae: VideoVAE) -> dict[str, torch.Tensor]:
    return activation_maxima(tiny_vae)


@pytest.fixture
def make_engine(
    tiny_vae: VideoVAE, tiny_maxima: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> MakeEngine:
    """Engines of the tiny model, which is calibrated once."""
    monkeypatch.setattr(engine, "calibrate_on", lambda _vae, _device: tiny_maxima)

    def make(precision: str = "fp16", gpu: DeviceSpec = GPU, **options: object) -> VAEEngine:
        recipe = precision if isinstance(precision, QuantRecipe) else QuantRecipe(precision)
        return VAEEngine(tiny_vae, recipe, gpu, reference_backend(), device="cpu", options=EngineOptions(**options))

    return make


@pytest.fixture
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every FP16 tensor becomes FP32, so that nothing but the schedule can differ from the plain model."""
    monkeypatch.setitem(DTYPES, "fp16", torch.float32)


def relative(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """Relative RMS error; NaN in, NaN out."""
    return ((actual.float() - expected.float()).norm() / expected.float().norm()).item()
