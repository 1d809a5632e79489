"""The engine on a GPU: kernels, graphs, host memory, and what the memory really is. Run by themselves:
`pytest -m cuda tests/engine/test_cuda.py` (the kernels' other tests switch Triton to its interpreter)."""

import copy
import os
import subprocess
import sys

import pytest
import torch

from seedvr2_engine.engine import EngineOptions, VAEEngine, triton_backend
from seedvr2_engine.engine.accuracy.fp16_scaling import measure_scaling
from seedvr2_engine.models.vae.config import VAEConfig
from seedvr2_engine.models.vae.model import VideoVAE
from seedvr2_engine.plan import PlanOptions, VAEShape
from seedvr2_engine.plan.gpus import device_spec
from seedvr2_engine.quant import QuantRecipe

from .accuracy.test_fp16_scaling import with_loud_streams
from .conftest import relative

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
    pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="Triton is in its interpreter"),
]
LIMITS = {"fp16": 5e-3, "bf16": 4e-2, "fp8": 0.3, "int8": 0.2}


def engine(vae: VideoVAE, precision: str = "fp8", **options: object) -> VAEEngine:
    spec = device_spec(torch.device("cuda"))
    return VAEEngine(vae, QuantRecipe(precision), spec, triton_backend(), options=EngineOptions(**options))


def latent(frames: int, rows: int, columns: int) -> torch.Tensor:
    return torch.randn(1, 16, frames, rows, columns, generator=torch.Generator().manual_seed(frames)).cuda()


@pytest.fixture(scope="module")
def wide_vae() -> VideoVAE:
    torch.manual_seed(0)
    return VideoVAE(VAEConfig()).requires_grad_(False).cuda().half()


@pytest.mark.parametrize("precision", LIMITS)
@pytest.mark.parametrize("size", [(1, 9, 13), (6, 16, 20)])
def test_the_kernels_are_the_model(tiny_vae: VideoVAE, precision: str, size: tuple[int, int, int]) -> None:
    fast, z = engine(tiny_vae, precision), latent(*size)
    expected = tiny_vae.decode(z.cpu())
    assert relative(fast.decode(z).cpu(), expected) < LIMITS[precision]
    video = expected.clamp(-1, 1)
    assert relative(fast.encode(video.cuda()).cpu(), tiny_vae.encode(video)) < LIMITS[precision]


@pytest.mark.parametrize("precision", ["fp16", "fp8", "int8"])
def test_weights_that_overflow_fp16_are_served(tiny_vae: VideoVAE, precision: str) -> None:
    loud, z = with_loud_streams(tiny_vae), latent(6, 16, 20)
    spec = device_spec(torch.device("cuda"))
    fast = engine(loud, precision, scaling=measure_scaling(copy.deepcopy(loud).cuda(), spec))
    expected = loud.decode(z.cpu())
    assert not engine(loud, precision).decode(z).isfinite().all()
    assert relative(fast.decode(z).cpu(), expected) < LIMITS[precision]
    video = expected.clamp(-1, 1)
    assert relative(fast.encode(video.cuda()).cpu(), loud.encode(video)) < LIMITS[precision]


def test_graphs_change_no_bit(wide_vae: VideoVAE) -> None:
    fast, eager = engine(wide_vae), engine(wide_vae, uses_graphs=False)
    z = latent(6, 30, 52)
    expected = eager.decode(z)
    for _ in range(3):
        assert torch.equal(fast.decode(z), expected)
    assert fast.session.graphs is not None
    assert fast.session.graphs.captured == 2, fast.session.graphs.reason


def test_host_memory_changes_no_bit(wide_vae: VideoVAE) -> None:
    # Pairs round otherwise, and would be given up before anything goes to the host.
    plain, z = engine(wide_vae, plan=PlanOptions(allows_pairs=False)), latent(6, 30, 52)
    options = PlanOptions(allows_pairs=False, allows_tiles=False)
    expected = plain.decode(z)
    peak = plain.plan(VAEShape("decode", 240, 416, 21)).memory.peak
    plain.release()
    for share in (0.9, 0.75, 0.65):
        other = engine(wide_vae, budget_bytes=int(share * peak), plan=options)
        assert other.plan(VAEShape("decode", 240, 416, 21)).uses_host
        assert torch.equal(other.decode(z), expected)


@pytest.mark.parametrize("size", [(1, 135, 240), (6, 90, 160), (6, 45, 80)])
def test_the_planned_peak_is_the_measured_one(wide_vae: VideoVAE, size: tuple[int, int, int]) -> None:
    fast, z = engine(wide_vae), latent(*size)
    plan = fast.plan(VAEShape("decode", 8 * size[1], 8 * size[2], 4 * size[0] - 3))
    fast.weights.prepare([*plan.first.operations, *plan.steady.operations])
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated() - fast.weights.nbytes
    torch.cuda.reset_peak_memory_stats()
    for _ in range(2):
        result = fast.decode(z)
        del result
    measured = torch.cuda.max_memory_allocated() - before
    assert 1.0 <= plan.memory.peak / measured <= 1.1


def test_many_sizes_leave_memory_where_it_was(wide_vae: VideoVAE) -> None:
    fast = engine(wide_vae)
    sizes = [(1 + i % 3, 12 + 3 * (i % 7), 20 + 2 * (i % 5)) for i in range(200)]
    for size in sizes[:100]:
        fast.decode(latent(*size))
    torch.cuda.synchronize()
    held = torch.cuda.memory_allocated()
    for size in sizes[100:]:
        fast.decode(latent(*size))
    torch.cuda.synchronize()
    assert torch.cuda.memory_allocated() <= 1.02 * held
    assert len(fast.session._bound) <= 8


_ASYNC = """
import torch
from tests.engine.test_cuda import engine, latent
from seedvr2_engine.models.vae.config import VAEConfig
from seedvr2_engine.models.vae.model import VideoVAE
torch.manual_seed(0)
fast = engine(VideoVAE(VAEConfig()).requires_grad_(False).cuda().half())
results = [fast.decode(latent(4, 20, 30)) for _ in range(3)]
assert torch.cuda.get_allocator_backend() == "cudaMallocAsync"
assert all(torch.equal(results[0], other) for other in results[1:])
print("captured", fast.session.graphs.captured, fast.session.graphs.reason)
"""


def test_graphs_work_under_cuda_malloc_async() -> None:
    environment = os.environ | dict.fromkeys(
        ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF"), "backend:cudaMallocAsync"
    )
    run = [sys.executable, "-c", _ASYNC]
    result = subprocess.run(run, env=environment, capture_output=True, text=True, check=False)
    assert result.stdout.strip() == "captured 2", result.stdout + result.stderr
