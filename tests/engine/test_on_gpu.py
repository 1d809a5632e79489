"""What only a GPU can show: the entry, the accuracy check's time, the doctor."""

import pytest
import torch

from seedvr2_engine import optimize_3d_vae_for_blackwell
from seedvr2_engine.doctor.machine import check_kernels, plans_to_check
from seedvr2_engine.engine.accuracy.cache import cache_path
from seedvr2_engine.engine.accuracy.sensitivity import mean_squared_error, picture
from seedvr2_engine.engine.vae.backend import triton_backend
from seedvr2_engine.loading import load_vae
from seedvr2_engine.models.vae.config import VAEConfig
from seedvr2_engine.plan.choices import choose_precision
from seedvr2_engine.plan.coverage import RAGGED_PX
from seedvr2_engine.plan.gpus import device_spec
from seedvr2_engine.quality.metrics import decibel
from seedvr2_engine.quant import QuantRecipe

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]
CUDA = torch.device("cuda")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


@pytest.mark.parametrize("precision", ["auto", "fp16"])
def test_the_entry_serves_close_pictures(precision):
    vae = load_vae("nano", device=CUDA, dtype=torch.float16)
    served = optimize_3d_vae_for_blackwell(vae, precision=precision)
    assert served.is_engine
    clip = torch.rand(1, 3, 9, 128, 200, device=CUDA) * 2 - 1
    latent = vae.encode(clip)
    exact = picture(load_vae("nano", device=CUDA).decode(latent))
    decoded = served.decode(latent)
    assert decibel(mean_squared_error(picture(decoded), exact).item()) > (38 if precision == "auto" else 60)
    assert torch.equal(decoded, served.decode(latent))
    assert served.report.graphs_captured > 0


def test_turning_everything_off_is_the_plain_model():
    vae = load_vae("nano", device=CUDA, dtype=torch.float16)
    served = optimize_3d_vae_for_blackwell(
        vae,
        enable_fp8=False,
        enable_channels_last_3d=False,
        enable_flash_attention=False,
        enable_cuda_graphs=False,
        enable_tf32=False,
        enable_cudnn_benchmark=False,
    )
    latent = torch.randn(1, 16, 2, 8, 8, device=CUDA)
    assert torch.equal(served.decode(latent), vae.decode(latent))
    assert not any(measure.applied for measure in served.report.measures)


def test_global_switches_are_as_they_were():
    before = torch.backends.cudnn.benchmark, torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    served = optimize_3d_vae_for_blackwell(load_vae("nano", device=CUDA, dtype=torch.float16))
    served.decode(torch.randn(1, 16, 2, 8, 8, device=CUDA))
    after = torch.backends.cudnn.benchmark, torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    assert after == before


def test_the_accuracy_check_repairs_an_outlier():
    vae = load_vae("nano", device=CUDA, dtype=torch.float16)
    healthy = optimize_3d_vae_for_blackwell(vae, min_psnr_db=1.0).report.accuracy
    resnet = vae.decoder.up_blocks[3].resnets[2]
    # As large as FP16 bears: the plain model itself overflows at 65504.
    resnet.norm1.weight[3] *= 4e3
    resnet.norm1.bias[3] *= 4e3
    resnet.conv1.weight[:, 3] = (resnet.conv1.weight[:, 3].float() / 4e3).half()
    limit = healthy.psnr_db - 1
    served = optimize_3d_vae_for_blackwell(vae, min_psnr_db=limit)
    assert served.report.accuracy.before_db < limit
    assert served.report.accuracy.psnr_db >= limit
    assert "decoder.up_blocks.3.resnets.2.conv1" in served.report.layers.kept_in_16_bits


def test_the_choice_is_cached_by_the_weights():
    vae = load_vae("nano", device=CUDA, dtype=torch.float16)
    spec = device_spec(CUDA)
    format = choose_precision("auto", spec).format
    first = optimize_3d_vae_for_blackwell(vae).report.accuracy
    assert cache_path(vae, QuantRecipe(format), spec.sm).exists()
    second = optimize_3d_vae_for_blackwell(vae).report.accuracy
    assert second.from_cache
    assert second.kept == first.kept


@pytest.mark.slow
def test_the_doctor_finds_every_kernel_right():
    spec = device_spec(CUDA)
    format = choose_precision("auto", spec).format
    checks = check_kernels(plans_to_check(spec, (format,), VAEConfig()), CUDA)
    assert len(checks) > 20
    assert [check for check in checks if check.wrong] == []


@pytest.mark.slow
def test_the_doctor_names_a_broken_kernel():
    spec = device_spec(CUDA)
    format = choose_precision("auto", spec).format
    plans = plans_to_check(spec, (format,), VAEConfig(), RAGGED_PX[:1])[:1]
    right = triton_backend()

    def broken(window, weights, additions, out, problem, config):
        right.conv3d(window, weights._replace(bias=weights.bias * 1.2), additions, out, problem, config)

    wrong = {check.kernel for check in check_kernels(plans, CUDA, backend=right._replace(conv3d=broken)) if check.wrong}
    assert wrong == {"conv3d"}
