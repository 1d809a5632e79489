"""The public entry: each flag switches what it names, and the report counts what is there."""

import copy
import json
import logging

import pytest
import torch

from seedvr2_engine import optimize_3d_vae_for_blackwell
from seedvr2_engine.engine import optimize, reference_backend
from seedvr2_engine.engine.accuracy import check
from seedvr2_engine.engine.accuracy.check import DEFAULT_MIN_PSNR_DB, AccuracyResult
from seedvr2_engine.engine.accuracy.fp16_scaling import measure_scaling
from seedvr2_engine.engine.accuracy.sample_clips import sample_scene
from seedvr2_engine.engine.optimize import serve_on
from seedvr2_engine.engine.served_vae import cudnn_benchmark, engine_of, plain_weights
from seedvr2_engine.engine.settings import Settings
from seedvr2_engine.errors import InvalidArgumentError
from seedvr2_engine.loading import load_vae
from seedvr2_engine.models.vae.tiling import TileSpec
from seedvr2_engine.plan.gpus import find_gpu

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def vae():
    return load_vae("nano")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


@pytest.fixture(autouse=True)
def measured(monkeypatch):
    """Formats that the scaling was measured for; on small pictures, which is quicker."""
    calls = []

    def measure(vae, spec):
        calls.append(spec.name)
        return measure_scaling(vae, spec, sample_scene(24)[:, :, :1])

    monkeypatch.setattr(optimize, "measure_scaling", measure)
    return calls


def serve(vae, gpu="h200", **flags):
    flags = {"min_psnr_db": None, **flags}
    return serve_on(vae, Settings(**flags), find_gpu(gpu), CPU, reference_backend)


def measure(served, name):
    return next(m for m in served.report.measures if m.name == name)


def test_without_a_gpu_the_plain_model_serves_and_says_so_once(vae, caplog):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    latent = torch.randn(1, 16, 2, 2, 3)
    with caplog.at_level(logging.WARNING):
        served = optimize_3d_vae_for_blackwell(vae)
        first = served.decode(latent)
        served.decode(latent)
    assert torch.equal(first, vae.decode(latent))
    assert [record.message for record in caplog.records] == ["VAE: the plain model serves: PyTorch sees no CUDA GPU."]
    assert not served.is_engine
    assert served.report.precision == "reference"
    with pytest.raises(InvalidArgumentError, match="fp8 was asked for, but PyTorch sees no CUDA GPU"):
        optimize_3d_vae_for_blackwell(vae, precision="fp8")


def test_the_report_is_logged_when_wanted(vae, caplog):
    with caplog.at_level(logging.INFO):
        optimize_3d_vae_for_blackwell(vae, device="cpu", verbose=False)
        assert "ENGINE]" not in caplog.text
        optimize_3d_vae_for_blackwell(vae, device="cpu")
    assert "[VAE_ENGINE] REFERENCE on CPU" in caplog.text


def test_the_format_follows_the_gpu(vae):
    formats = {gpu: serve(vae, gpu).report.precision for gpu in ("rtx3060", "rtx4090", "h200", "rtx5070ti")}
    assert formats == {"rtx3060": "int8", "rtx4090": "fp8", "h200": "fp8", "rtx5070ti": "mxfp8"}


def test_enable_fp8_off_is_sixteen_bits(vae):
    served = serve(vae, enable_fp8=False)
    assert served.is_engine
    assert served.report.layers.eight_bit == 0
    assert set(served.report.layers.by_format) == {"fp16"}
    assert measure(served, "8-bit formats").detail == "switched off"
    with pytest.raises(InvalidArgumentError, match="enable_fp8 is off"):
        optimize_3d_vae_for_blackwell(vae, precision="fp8", enable_fp8=False)


def test_channels_last_off_is_the_plain_model(vae, caplog):
    served = serve(vae, enable_channels_last_3d=False)
    assert not served.is_engine
    assert served.report.reason == "channels-last 3D is switched off"
    assert not caplog.records
    latent = torch.randn(1, 16, 1, 2, 2)
    assert torch.equal(served.decode(latent), vae.decode(latent))


def test_flash_attention_off_is_pytorchs(vae):
    # In 16 bits: in 8, a step of rounding would differ somewhere.
    with_kernel, without = (serve(vae, precision="fp16", enable_flash_attention=on) for on in (True, False))
    assert with_kernel.report.layers.flash_attentions == with_kernel.report.layers.attentions == 2
    assert with_kernel.report.layers.eight_bit_attentions == 0
    assert without.report.layers.flash_attentions == 0
    assert not measure(without, "flash attention").applied
    latent = torch.randn(1, 16, 1, 2, 2)
    torch.testing.assert_close(with_kernel.decode(latent), without.decode(latent), atol=2e-2, rtol=0)


def test_cuda_graphs_off_records_none(vae):
    served = serve(vae, enable_cuda_graphs=False)
    assert served.server.session.graphs is None
    assert not served.server.options.uses_graphs
    assert serve(vae).server.options.uses_graphs
    assert measure(served, "CUDA graphs").detail == "switched off"


def test_precisions_by_name(vae):
    assert serve(vae, precision="int8").report.precision == "int8"
    assert serve(vae, precision="bf16").report.layers.by_format == {"bf16": 62}
    reference = serve(vae, precision="reference")
    assert not reference.is_engine
    assert reference.report.notes == ()
    with pytest.raises(InvalidArgumentError, match="mxfp8 was asked for"):
        serve(vae, precision="mxfp8")
    with pytest.raises(InvalidArgumentError, match="expected one of"):
        optimize_3d_vae_for_blackwell(vae, precision="fp4")


def test_without_triton_the_plain_model_serves(vae, caplog):
    def missing():
        raise ModuleNotFoundError("No module named 'triton'")

    served = serve_on(vae, Settings(), find_gpu("h200"), CPU, missing)
    assert not served.is_engine
    assert "Triton cannot be imported (No module named 'triton')" in served.report.notes[0]
    assert len(caplog.records) == 1
    with pytest.raises(InvalidArgumentError, match="Triton cannot be imported"):
        serve_on(vae, Settings(precision="fp8"), find_gpu("h200"), CPU, missing)


def test_memory_and_tiles_reach_the_plans(vae):
    served = serve(vae, vram_gb=2.0, tile_size=64)
    assert served.server.options.budget_bytes == 2_000_000_000
    assert served.report.work[0].area.startswith("tiles of 64x64 px")
    assert not served.report.work[0].is_exact
    with pytest.raises(InvalidArgumentError, match="vram_gb"):
        serve(vae, vram_gb=1000)


def test_tiles_reach_the_plain_model(vae):
    served = serve(vae, precision="reference", tile_size=32)
    latent = torch.randn(1, 16, 1, 6, 6)
    assert torch.equal(served.decode(latent), vae.decode(latent, tile=TileSpec(32, 8)))
    assert torch.equal(served.decode(latent, tile=TileSpec(24, 8)), vae.decode(latent, tile=TileSpec(24, 8)))


def test_the_engine_is_close_and_streams(vae):
    served = serve(vae, precision="fp16")
    video = torch.rand(1, 3, 5, 16, 24) * 2 - 1
    mean, logvar = served.encode_distribution(video)
    exact, exact_logvar = vae.encode_distribution(video)
    torch.testing.assert_close(mean, exact, atol=2e-2, rtol=0)
    torch.testing.assert_close(logvar, exact_logvar, atol=5e-2, rtol=1e-2)
    streamed = torch.stack(list(served.stream_encode(video.unbind(2))), 2)
    torch.testing.assert_close(streamed, mean)
    pictures = torch.stack(list(served.stream_decode(mean.unbind(2))), 2)
    torch.testing.assert_close(pictures, served.decode(mean))
    torch.testing.assert_close(pictures.float(), vae.decode(mean), atol=2e-2, rtol=0)


def test_the_report_counts(vae):
    report = serve(vae).report
    # Decoder: 28 in resnets, 3 upsamplers, both ends, 2 of the attention. Encoder: 20 + 3 + 2 + 2.
    assert report.layers.total == 35 + 27
    assert report.layers.by_format == {"fp16": 8, "fp8": 54}
    assert set(report.layers.kept_in_16_bits) >= {"decoder.conv_in", "decoder.conv_out", "encoder.conv_in"}
    assert "54 of 62 convolutions" in report.text()
    assert "all 62 convolutions" in report.text()
    assert "[HOPPER_ENGINE] FP8 on H200 (sm_90)" in report.text()
    assert "2 of 2 attention blocks, 2 in 8 bits" in report.text()
    facts = json.loads(report.to_json())
    assert facts["layers"]["by_format"] == {"fp16": 8, "fp8": 54}
    assert facts["work"][0]["memory"]["rings"] > 0


def test_the_accuracy_check_speaks_in_the_report(vae, monkeypatch, caplog):
    small = sample_scene(24)[:, :, :1]
    monkeypatch.setattr(check, "sample_clips", lambda: small)
    served = serve(vae, min_psnr_db=47.0)
    report = served.report
    assert report.accuracy.psnr_db >= 47.0
    kept = [layer.name for layer in report.accuracy.kept]
    assert kept
    assert all(report.layers.kept_in_16_bits[name].startswith("the accuracy check keeps it") for name in kept)
    assert report.layers.by_format["fp16"] == 8 + len(kept)
    assert "in 16 bits, because 8 would leave" in caplog.text
    assert f"Accuracy: decodes within {report.accuracy.psnr_db:.1f} dB" in report.text()


def test_the_accuracy_check_is_given_the_limit_and_the_costs(vae, monkeypatch):
    asked = []

    def check(_vae, recipe, build, *, min_psnr_db, costs, paired, maxima):
        assert maxima is None
        assert "decoder.up_blocks.1.resnets.0.conv1" in paired
        asked.append((min_psnr_db, costs["decoder.up_blocks.2.upsamplers.0"] > costs["decoder.conv_in"] > 0))
        return AccuracyResult(min_psnr_db, 60.0, 60.0), build(recipe, None)

    monkeypatch.setattr(optimize, "check_accuracy", check)
    report = serve(vae, precision="fp8", min_psnr_db=DEFAULT_MIN_PSNR_DB).report
    assert asked == [(DEFAULT_MIN_PSNR_DB, True)]
    assert report.notes == ()


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_formats_of_16_bits_are_not_checked(vae, monkeypatch, precision):
    monkeypatch.setattr(optimize, "check_accuracy", None)
    served = serve(vae, precision=precision, min_psnr_db=DEFAULT_MIN_PSNR_DB)
    assert served.report.accuracy is None


@pytest.mark.parametrize("precision", ["fp16", "fp8"])
def test_weights_that_overflow_fp16_are_served_and_the_report_tells(vae, precision, caplog):
    loud = copy.deepcopy(vae)
    for name, tensor in loud.decoder.state_dict().items():
        if "up_blocks.1.resnets.0.conv1." in name or "up_blocks.2.resnets.0.conv1." in name:
            tensor *= 2.0**18
    latent = torch.randn(1, 16, 1, 2, 3)
    served = serve(loud, precision=precision)
    scaling = served.server.options.scaling
    assert set(scaling.tensors) == {"decoder.up_blocks.1.resnets.0.conv1.y", "decoder.up_blocks.2.resnets.0.conv1.y"}
    assert served.report.notes == (scaling.describe(),)
    assert "2 tensors between the layers are stored as 2^-" in served.report.text()
    assert not caplog.records
    decoded = served.decode(latent)
    assert decoded.isfinite().all()
    if precision == "fp16":
        torch.testing.assert_close(decoded.float(), loud.decode(latent), atol=2e-2, rtol=0)


def test_nothing_is_measured_for_bf16_and_healthy_weights_keep_their_size(vae, measured):
    assert serve(vae, precision="bf16").server.options.scaling.tensors == {}
    assert measured == []
    served = serve(vae, precision="fp16")
    assert served.server.options.scaling.tensors == served.server.options.scaling.inputs == {}
    assert served.report.notes == ()
    assert len(measured) == 1


def test_a_served_vae_answers_for_what_serves(vae):
    served = serve(vae, precision="fp16")
    served.limit(2_000_000_000)
    assert served.report.budget_bytes == served.engine.options.budget_bytes == 2_000_000_000
    assert engine_of(served) is engine_of(served.server) is served.engine
    assert plain_weights(served) == []
    served.decode(torch.randn(1, 16, 1, 2, 3))
    held = served.nbytes
    served.release()
    assert 0 < served.nbytes == served.engine.weights.nbytes < held
    plain = serve(vae, precision="reference")
    plain.limit(1)
    plain.release()
    assert plain.engine is engine_of(plain) is engine_of(vae) is None
    assert plain.nbytes == sum(tensor.nbytes for tensor in plain_weights(vae)) > 0


def test_global_switches_are_put_back(vae):
    before = torch.backends.cudnn.benchmark
    with cudnn_benchmark():
        assert torch.backends.cudnn.benchmark
    assert torch.backends.cudnn.benchmark == before
