"""What will run here is decided once: the plan that is shown is the plan that runs."""

import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from seedvr2_engine.checkpoint import detect_dit
from seedvr2_engine.engine.report import EngineReport
from seedvr2_engine.engine.served_vae import ServedVAE
from seedvr2_engine.engine.vae.backend import reference_backend
from seedvr2_engine.engine.vae.engine import VAEEngine
from seedvr2_engine.errors import InvalidArgumentError, ModelFileError
from seedvr2_engine.loading_dit import NANO_DIT
from seedvr2_engine.pipeline import setup as module
from seedvr2_engine.pipeline.memory import limit_engine, sizes_of
from seedvr2_engine.pipeline.options import UpscaleOptions
from seedvr2_engine.pipeline.setup import ModelFiles, choose_formats, plan_dit, plan_setup
from seedvr2_engine.plan.gpus import find_gpu
from seedvr2_engine.quant import QuantRecipe

from ..conftest import GOLDEN

CPU, GPU = torch.device("cpu"), torch.device("cuda")
TINY_DIT = GOLDEN / "dit_tiny_3b.safetensors"
OPTIONS = UpscaleOptions(scale=2)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> ModelFiles:
    path = tmp_path_factory.mktemp("models") / "dit.safetensors"
    text = torch.randn(7, 64, generator=torch.manual_seed(1))
    save_file({**load_file(TINY_DIT), "positive_conditioning": text}, path)
    return ModelFiles(path, GOLDEN / "vae_tiny.safetensors", path)


@pytest.mark.parametrize("offload", ["none", "blocks"])
@pytest.mark.parametrize("frames", [None, 1, 100])
def test_a_run_goes_by_the_plan(files, offload, frames):
    setup = plan_setup(files, CPU, offload=offload)
    upscaler = setup.load(OPTIONS)
    assert upscaler.plan((40, 56), frames) == setup.plan(OPTIONS, (40, 56), frames)
    assert upscaler.division((40, 56)) == setup.plan(OPTIONS, (40, 56)).division
    assert upscaler.dit.device == setup.formats.device
    assert upscaler.dit.dtype == setup.dit.dtype == setup.formats.dit_dtype
    assert upscaler.vae.dtype == setup.formats.vae_dtype
    # What headers foresee is what lies there.
    loaded = sizes_of(upscaler.dit, upscaler.vae)
    assert replace(setup.sizes, weights_bytes=0) == replace(loaded, weights_bytes=0)
    assert setup.sizes.weights_bytes == pytest.approx(loaded.weights_bytes, rel=0.01)


def with_engine(vae, **_):
    engine = VAEEngine(vae, QuantRecipe("fp16"), find_gpu("rtx5070ti"), reference_backend(), device="cpu")
    return ServedVAE(engine, lambda: EngineReport)


def test_the_engine_gets_what_the_plan_says_to_the_byte(files, monkeypatch):
    monkeypatch.setattr(module, "optimize_3d_vae_for_blackwell", with_engine)
    setup = plan_setup(files, CPU, precision="fp16")
    upscaler = setup.load(OPTIONS)
    limits = []
    monkeypatch.setattr(VAEEngine, "limit", lambda self, budget_bytes: limits.append(budget_bytes))
    limit_engine(upscaler.vae, upscaler.plan((40, 56), 5))
    assert limits == [setup.plan(OPTIONS, (40, 56)).engine_bytes]


def test_where_the_engine_cannot_serve_the_plain_model_is_planned_with(files, monkeypatch):
    monkeypatch.setattr(module, "optimize_3d_vae_for_blackwell", lambda vae, **_: vae)
    setup = plan_setup(files, CPU, precision="fp16")
    upscaler = setup.load(OPTIONS)
    assert setup.plan(OPTIONS, (40, 56)).memory.vae_bytes == 0 < upscaler.plan((40, 56)).memory.vae_bytes
    limit_engine(upscaler.vae, setup.plan(OPTIONS, (40, 56)))  # Nothing to limit.


@pytest.mark.parametrize(
    ("device", "precision", "engine", "vae", "dit"),
    [
        (CPU, "auto", False, torch.float32, torch.float32),
        (CPU, "bfloat16", False, torch.bfloat16, torch.bfloat16),
        (CPU, "fp16", True, torch.float32, torch.float16),
        (CPU, "reference", False, torch.float32, torch.float32),
        (GPU, "auto", True, torch.float16, torch.bfloat16),
        (GPU, "fp8", True, torch.float16, torch.bfloat16),
        (GPU, "float32", False, torch.float32, torch.float32),
        (GPU, "reference", False, torch.float16, torch.bfloat16),
    ],
)
def test_formats(device, precision, engine, vae, dit, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    formats = choose_formats(device, precision)
    assert (formats.uses_engine, formats.vae_dtype, formats.dit_dtype) == (engine, vae, dit)
    with pytest.raises(InvalidArgumentError, match="precision: expected one of auto, "):
        choose_formats(device, "int4")


def test_blocks_wait_on_the_host_where_a_gpu_is_too_small(monkeypatch):
    whole = plan_dit(TINY_DIT, GPU, torch.bfloat16, "none").weights_bytes
    for memory_bytes, waits in ((2 * whole, True), (3 * whole, False)):
        properties = SimpleNamespace(total_memory=memory_bytes)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _, properties=properties: properties)
        planned = plan_dit(TINY_DIT, GPU, torch.bfloat16)
        assert planned.offload == waits
        assert (
            planned.weights_bytes
            == plan_dit(TINY_DIT, GPU, torch.bfloat16, "blocks" if waits else "none").weights_bytes
        )
    assert plan_dit(TINY_DIT, GPU, torch.bfloat16, "blocks").weights_bytes < whole
    assert not plan_dit(TINY_DIT, CPU, torch.float32).offload
    with pytest.raises(InvalidArgumentError, match="offload: expected one of auto, none, blocks, got 'some'"):
        plan_dit(Path(TINY_DIT), CPU, torch.float32, "some")


@pytest.mark.parametrize(
    ("device", "precision", "asked", "products", "dtype"),
    [
        (GPU, "auto", "auto", "auto", torch.bfloat16),
        (GPU, "int8", "auto", "auto", torch.bfloat16),
        (GPU, "fp16", "auto", "bf16", torch.float16),
        (GPU, "bf16", "auto", "bf16", torch.bfloat16),
        (GPU, "float32", "auto", "bf16", torch.float32),
        (GPU, "reference", "auto", "bf16", torch.bfloat16),
        (GPU, "auto", "fp16", "fp16", torch.float16),
        (GPU, "fp16", "fp8", "fp8", torch.float16),
        (CPU, "auto", "auto", "bf16", torch.float32),
    ],
)
def test_the_transformers_products(device, precision, asked, products, dtype, monkeypatch):
    """16 bits asked of the VAE are asked of everything that was left open."""
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    formats = choose_formats(device, precision, asked)
    assert (formats.dit_precision, formats.dit_dtype) == (products, dtype)
    with pytest.raises(InvalidArgumentError, match="dit precision: expected one of auto, "):
        choose_formats(device, precision, "int3")


def test_what_a_file_has_packed_counts_as_packed_on_a_gpu():
    on_gpu, on_cpu = (plan_dit(NANO_DIT, device, torch.bfloat16, "none").weights_bytes for device in (GPU, CPU))
    assert on_gpu < 0.75 * on_cpu


def test_nothing_waits_for_a_cpu_elsewhere(monkeypatch):
    monkeypatch.setattr(module, "total_memory_bytes", lambda _: 1)
    assert not plan_dit(TINY_DIT, CPU, torch.float32).offload


def test_a_transformer_that_was_begun_is_the_one_that_is_used(files):
    setup = plan_setup(files, CPU)
    with setup.beginning() as begun:
        upscaler = begun.load(OPTIONS)
    plain = setup.load(OPTIONS).dit.state_dict()
    assert all(torch.equal(tensor, plain[name]) for name, tensor in upscaler.dit.state_dict().items())


def test_the_vaes_error_comes_before_the_transformers(files, tmp_path):
    """As without the thread: what is said does not depend on which was read first."""
    setup = plan_setup(files, CPU)
    missing = tmp_path / "gone.safetensors"
    broken = replace(setup, dit=replace(setup.dit, path=missing))
    with broken.beginning() as begun:
        begun.begun.wait()
        with pytest.raises(ModelFileError, match="gone"):
            begun.load(OPTIONS)
    both = replace(broken, files=replace(files, vae=tmp_path / "vae.safetensors"))
    with both.beginning() as begun:
        begun.begun.wait()
        with pytest.raises(ModelFileError, match="vae\\.safetensors"):
            begun.load(OPTIONS)


def test_leaving_stops_a_transformer_that_is_being_read(files, monkeypatch):
    read, release = threading.Event(), threading.Event()
    names = []

    def load_finite(checkpoint, name, shape, dtype, device):
        names.append(name)
        read.set()
        assert release.wait(60)
        return checkpoint.load(name, shape=shape, dtype=dtype)

    monkeypatch.setattr(detect_dit, "load_finite", load_finite)
    setup = plan_setup(files, CPU)
    with setup.beginning():
        assert read.wait(60)
        threading.Timer(0.1, release.set).start()
    assert len(names) == 1
