"""The benchmark measures what is right, and gives no time to what is not."""

import json
import math
from dataclasses import replace

import pytest
import torch

from seedvr2_engine.bench.cases import DEFAULT_CASES, Case, parse_case, random_vae
from seedvr2_engine.bench.results import Results, now, source_commit, write_results
from seedvr2_engine.bench.vae import REFERENCE, TOLERANCES, Bench, Row, plan_flops
from seedvr2_engine.doctor.machine import inspect_machine
from seedvr2_engine.engine import reference_backend
from seedvr2_engine.errors import InvalidArgumentError, OutputError
from seedvr2_engine.kernels import reference
from seedvr2_engine.models.vae.config import VAEConfig
from seedvr2_engine.plan import PlanOptions, compile_vae_plan
from seedvr2_engine.plan.gpus import find_gpu
from seedvr2_engine.quant import QuantRecipe

from ..conftest import TINY

CPU = torch.device("cpu")
DECODE, ENCODE = Case("decode", 32, 24, 5), Case("encode", 32, 24, 5)


@pytest.fixture(scope="module")
def bench():
    return Bench(random_vae(TINY, CPU), find_gpu("rtx5070ti"), CPU, reference_backend(), repeats=2)


def rows_of(bench, case, *precisions, rates=None):
    return list(bench.rows(case, precisions, rates or {}))


def test_right_formats_get_a_time(bench):
    rows = rows_of(bench, DECODE, "mxfp8", "fp16", REFERENCE, rates={"mxfp8": 100.0})
    for row in rows:
        assert row.wrong == ""
        assert row.runs == 2
        assert row.ms > 0
        assert row.spread_ms >= 0
        assert row.frames_per_s == pytest.approx(5 / row.ms * 1e3)
        assert row.relative_error < TOLERANCES[row.precision]
    eight, sixteen, plain = rows
    assert eight.matrix_share == pytest.approx(eight.tflops / 100)
    assert sixteen.matrix_share is None
    assert plain.tflops is None
    assert 30 < eight.psnr_db < sixteen.psnr_db < plain.psnr_db
    assert eight.planned_bytes > 0
    assert eight.area == "whole frames"


def test_an_encode_is_compared_as_numbers(bench):
    (row,) = rows_of(bench, ENCODE, "fp16")
    assert row.wrong == ""
    assert row.psnr_db is None
    assert row.relative_error < 1e-2


def test_a_broken_kernel_gets_no_time(bench):
    def doubled_scale(window, weights, additions, out, problem, config):
        wrong = weights._replace(scale=None if weights.scale is None else weights.scale * 2)
        reference.conv3d(window, wrong, additions, out, problem, config)

    broken = replace(bench, backend=reference_backend()._replace(conv3d=doubled_scale))
    eight, sixteen = rows_of(broken, DECODE, "mxfp8", "fp16")
    assert "conv3d" in eight.wrong
    assert "relative error" in eight.wrong
    assert (eight.ms, eight.frames_per_s, eight.tflops) == (None, None, None)
    assert sixteen.ms is not None


def test_a_wrong_result_of_right_kernels_gets_no_time(bench, monkeypatch):
    # The planted fault is in the engine: it decodes something else.
    from seedvr2_engine.engine.vae.engine import VAEEngine

    right = VAEEngine.decode
    monkeypatch.setattr(VAEEngine, "decode", lambda self, latent: right(self, latent.flip(-1)))
    (row,) = rows_of(bench, DECODE, "fp16")
    assert "against FP32" in row.wrong
    assert row.ms is None
    assert row.relative_error > TOLERANCES["fp16"]


def test_what_the_gpu_lacks_gets_no_time(bench):
    row, right = rows_of(
        replace(bench, spec=find_gpu("rtx3090"), repeats=1), Case("decode", 32, 24, 1), "mxfp8", "fp16"
    )
    assert "mxfp8 was asked for, but RTX 3090 (sm_86) offers" in row.wrong
    assert row.ms is None
    assert right.ms is not None


def test_work_is_counted_by_the_plan():
    device, shape = find_gpu("h200"), Case("decode", 1280, 720, 21).shape
    # 18.5 MFLOP a pixel in later frames, 13.0 in pairs, less in the folded first one; the attention comes on top.
    for allows_pairs, least, most in ((False, 17.5e6, 20e6), (True, 12.5e6, 14e6)):
        options = PlanOptions(allows_pairs=allows_pairs)
        plan = compile_vae_plan(VAEConfig(), QuantRecipe("fp8"), device, shape, 1 << 50, options)
        assert least < plan_flops(plan, 21) / (21 * 1280 * 720) < most
        assert plan_flops(plan, 1) < plan_flops(plan, 5) / 4


def test_random_weights_behave_like_weights():
    vae = random_vae(TINY, CPU)
    assert {name: tuple(t.shape) for name, t in vae.state_dict().items()} == TINY.tensor_shapes()
    again = random_vae(TINY, CPU)
    assert all(torch.equal(a, b) for a, b in zip(vae.state_dict().values(), again.state_dict().values(), strict=True))
    decoded = vae.decode(DECODE.input(5, TINY, CPU))
    assert 0.05 < decoded.std() < 1


def test_cases():
    assert parse_case("1280x720x21") == DEFAULT_CASES[0]
    assert parse_case("encode:64x32x1") == Case("encode", 64, 32, 1)
    assert Case("decode", 1920, 1088, 21).halved() == Case("decode", 960, 544, 21)
    assert Case("decode", 1288, 728, 21).halved() == Case("decode", 640, 360, 21)
    assert ENCODE.input(5, TINY, CPU).shape == (1, 3, 5, 24, 32)
    assert ENCODE.input(5, TINY, CPU).abs().max() <= 1
    assert DECODE.input(5, TINY, CPU).shape == (1, 16, 2, 3, 4)
    for wrong in ("1280x720", "1280x720x20", "1281x720x21", "0x8x1", "draw:8x8x1", "8x8x-1"):
        with pytest.raises(InvalidArgumentError, match="size: expected"):
            parse_case(wrong)


def results(*rows):
    return Results(inspect_machine(CPU), now(), source_commit(), "random", {"fp8": None}, rows)


def test_results_are_written_once(tmp_path):
    row = Row(DECODE, "fp8", "", psnr_db=math.inf, ms=1.0, frames_per_s=5000.0)
    outcome = results(row, Row(ENCODE, "fp8", "a reason"))
    (path,) = write_results(outcome, tmp_path / "new", plot=False)
    facts = json.loads(path.read_text())
    assert facts["rows"][0]["psnr_db"] is None
    assert facts["rows"][0]["case"]["width_px"] == 32
    assert facts["rows"][1]["wrong"] == "a reason"
    assert facts["machine"]["torch"] == torch.__version__
    assert path.name.startswith("vae-20")
    with pytest.raises(OutputError, match="exists already; wait a minute or name another folder"):
        write_results(outcome, tmp_path / "new", plot=False)


def test_a_plot_is_a_picture_or_a_sentence(tmp_path):
    outcome = results(
        Row(DECODE, "fp8", "", ms=2.0, frames_per_s=2500.0), Row(DECODE, REFERENCE, "", ms=9.0, frames_per_s=555.0)
    )
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        with pytest.raises(InvalidArgumentError, match="matplotlib is not installed"):
            write_results(outcome, tmp_path, plot=True)
        assert list(tmp_path.iterdir()) == []
    else:
        paths = write_results(outcome, tmp_path, plot=True)
        assert paths[1].read_bytes().startswith(b"\x89PNG")
