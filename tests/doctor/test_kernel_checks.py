"""The doctor's checks: right kernels pass in Triton's interpreter, and one broken on purpose is named."""

import json
import os
from dataclasses import replace

import pytest
import torch

pytest.importorskip("triton")

from seedvr2_engine.doctor import kernel_checks
from seedvr2_engine.doctor.kernel_checks import Outcome, check_operation, check_plans
from seedvr2_engine.doctor.machine import DoctorReport, check_kernels, inspect_machine, plans_to_check, what_is_used
from seedvr2_engine.engine.vae.backend import reference_backend, triton_backend
from seedvr2_engine.errors import InvalidArgumentError
from seedvr2_engine.models.vae.config import VAEConfig
from seedvr2_engine.plan.coverage import CHECKED_PX
from seedvr2_engine.plan.gpus import find_gpu

from ..conftest import TINY
from ..kernels.interpreter import correct_interpreter

pytestmark = pytest.mark.skipif(
    os.environ.get("TRITON_INTERPRET") != "1", reason="runs in Triton's interpreter: TRITON_INTERPRET=1"
)
CPU = torch.device("cpu")


def plans(gpu="rtx4090", formats=("fp8",), size_px=(40, 24)):
    return plans_to_check(find_gpu(gpu), formats, TINY, [size_px])


def operations(plan, kernel):
    return [operation for operation in (*plan.first.operations, *plan.steady.operations) if operation.kernel == kernel]


@pytest.mark.parametrize("format", ["fp8", "int8", "fp16"])
def test_right_kernels_pass(format):
    correct_interpreter()
    decode, _ = plans(formats=(format,), size_px=(24, 16))
    wanted = [operations(decode, kernel)[-1] for kernel in ("norm", "attention", "fold")]
    wanted += [operations(decode, "conv3d")[1]]
    wanted += [next(s for s in decode.steady.operations if s.problem and s.problem.phases == 4 and s.format == format)]
    for operation in wanted:
        check = check_operation(operation, triton_backend(), CPU)
        assert check.wrong == "", check
        assert check.error is not None
        assert check.error < 1e-2


@pytest.mark.parametrize("mistaken", [False, True])
def test_attention_that_overlaps_is_checked_with_its_own_order_of_values(mistaken):
    correct_interpreter()
    decode, _ = plans(size_px=(24, 16))
    operation = operations(decode, "attention")[-1]
    config = replace(operation.config, overlaps=True)
    kernels = triton_backend()
    if mistaken:
        quantize = kernels.quantize_attention
        kernels = kernels._replace(
            quantize_attention=lambda qkv, operands, _: quantize(qkv, operands, operation.config)
        )
    assert bool(check_operation(replace(operation, config=config), kernels, CPU).wrong) == mistaken


def breaking(kernel, damage):
    """The references with one kernel whose result is damaged."""
    right = getattr(reference_backend(), kernel)

    def broken(*arguments):
        right(*arguments)
        damage(*arguments)

    return reference_backend()._replace(**{kernel: broken})


def shift(out):
    out.y.copy_(out.y.roll(1, dims=2))


def leave_out(out):
    out.y[:, -1, -1, 0] = float("nan")


def jitter(out):
    out.y.add_(torch.randn_like(out.y) * 1e-3)


def off_statistics(out):
    if out.partials is not None:
        out.partials[:, 0, 0, 0] += 1.0


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (shift, "relative error"),
        (leave_out, "never written"),
        (jitter, "two runs differ"),
        (off_statistics, "statistics"),
    ],
)
def test_a_broken_convolution_is_named(damage, words):
    decode, _ = plans()
    victim = "decoder.up_blocks.1.resnets.0.conv1"

    def damage_one(window, weights, additions, out, problem, config):
        if problem == next(
            operation.problem
            for operation in decode.steady.operations
            if operation.layer == victim and operation.problem
        ):
            damage(out)

    found = check_kernels([decode], CPU, backend=breaking("conv3d", damage_one))
    wrong = [check for check in found if check.wrong]
    assert [check.layer for check in wrong] == [victim]
    assert words in wrong[0].wrong
    assert len(found) > 20


@pytest.mark.parametrize("mixed", [False, True])
def test_both_ways_through_the_kernel_are_checked(mixed):
    decode, _ = plans(formats=("fp8",))
    operation = next(s for s in decode.steady.operations if s.problem is not None and s.format == "fp8")

    def damage(window, weights, additions, out, problem, config):
        if (window.exponents.unique().numel() > 1) == mixed:
            out.y.mul_(1.05)

    assert "relative error" in check_operation(operation, breaking("conv3d", damage), CPU).wrong


@pytest.mark.parametrize(
    ("kernel", "damage", "step_kernel"),
    [
        ("combine", lambda partials, counts, combined: combined[:, :, 0].add_(0.5), "norm"),
        ("finish_statistics", lambda c, n, o, s, affine: affine[:, 1].mul_(1.1), "norm"),
        ("normalize", lambda x, a, o, s, target: target.frames.view(torch.uint8)[:, 0].zero_(), "norm"),
        ("quantize_attention", lambda qkv, operands, config: operands.k_scale.mul_(1.05), "attention"),
        ("quantize_attention", lambda qkv, operands, config: operands.common[:, 1].zero_(), "attention"),
        ("attend_8bit", lambda operands, y, config: y[:, 3].zero_(), "attention"),
        ("fold", lambda taps, bias, picture: picture.neg_(), "fold"),
        ("unfold", lambda picture, y: y[..., 0].zero_(), "unfold"),
    ],
)
def test_other_broken_kernels_are_named(kernel, damage, step_kernel):
    found = check_kernels(plans(), CPU, backend=breaking(kernel, damage))
    wrong = {check.kernel for check in found if check.wrong}
    assert wrong == {step_kernel}


def a_tenth_more(x, a, o, s, target):
    target.frames.copy_((target.frames.float() * 1.125).to(target.frames.dtype))


@pytest.mark.parametrize(
    ("kernel", "damage", "step_kernel"),
    [
        ("normalize", a_tenth_more, "norm"),
        ("attend_8bit", lambda operands, y, config: y.mul_(1.03), "attention"),
        ("fold", lambda taps, bias, picture: picture.mul_(1.005), "fold"),
    ],
)
def test_kernels_that_are_a_little_off_are_named(kernel, damage, step_kernel):
    decode, _ = plans(size_px=(24, 16))
    found = operations(decode, step_kernel)
    operation = next((operation for operation in found if operation.format == "fp8"), found[-1])
    assert check_operation(operation, reference_backend(), CPU).wrong == ""
    assert "relative error" in check_operation(operation, breaking(kernel, damage), CPU).wrong


def test_both_results_of_a_pair_s_norm_are_checked():
    found = plans("h200", size_px=(24, 16))
    operation = next(o for plan in found for o in plan.steady.operations if o.makes_winograd_inputs)
    assert check_operation(operation, reference_backend(), CPU).wrong == ""
    for place in (4, 5):
        broken = breaking(
            "normalize_pair", lambda *given, place=place: given[place].frames.view(torch.uint8)[2:].zero_()
        )
        assert "relative error" in check_operation(operation, broken, CPU).wrong, place


@pytest.mark.parametrize("first", [0.5, 0.0])
def test_the_worse_of_two_results_is_told(monkeypatch, first):
    expected = torch.ones(4)
    found = [Outcome(expected + off, expected, 1e-2) for off in (first, 0.5 - first)]
    monkeypatch.setattr(kernel_checks, "_run", lambda *_: iter(found))
    check = check_operation(plans()[0].first.operations[0], reference_backend(), CPU)
    assert check.error == pytest.approx(0.5)
    assert "relative error 5.00e-01" in check.wrong


def test_an_error_that_is_no_number_is_wrong():
    outcome = Outcome(torch.ones(2), torch.tensor([1.0, float("nan")]), 1e-2)
    assert "relative error nan" in kernel_checks.verdict(outcome, float("nan"))


def test_broken_16_bit_attention_is_named():
    broken = breaking("attend", lambda qkv, y, config: y[:, 3].zero_())
    found = check_kernels(plans(formats=("fp16",)), CPU, backend=broken)
    assert {check.kernel for check in found if check.wrong} == {"attention"}


def test_the_twins_pass_everywhere_in_every_format():
    for gpu, formats in (("rtx5070ti", ("mxfp8", "int8")), ("h200", ("fp8", "bf16"))):
        found = check_kernels(plans(gpu, formats, (24, 16)), CPU, backend=reference_backend())
        assert not [check for check in found if check.wrong]
        assert {check.kernel for check in found} == {"conv3d", "norm", "attention", "fold", "unfold"}
        assert {check.format for check in found} >= set(formats)


def test_what_does_not_run_is_a_finding():
    def explode(*_):
        raise RuntimeError("out of resource: shared memory\nand more")

    found = list(check_plans([plans()[0]], reference_backend()._replace(attend_8bit=explode), CPU))
    wrong = [check for check in found if check.wrong]
    assert [check.kernel for check in wrong] == ["attention"]
    assert "RuntimeError: out of resource: shared memory" in wrong[0].wrong
    assert wrong[0].error is None


@pytest.mark.parametrize("gpu", ["rtx3090", "rtx4090", "h200", "b200", "rtx5090"])
def test_all_configurations_of_common_sizes_are_among_those_checked(gpu):
    def configurations(sizes):
        found = set()
        for plan in plans_to_check(find_gpu(gpu), ("fp16",), VAEConfig(), sizes):
            for operation in (*plan.first.operations, *plan.steady.operations):
                if operation.problem is not None:
                    found.add((operation.config, replace(operation.problem, height_px=0, width_px=0)))
        return found

    common = [(720, 1280), (1080, 1920), (1440, 2560), (2160, 3840)]
    missing = configurations(common) - configurations(CHECKED_PX)
    assert not missing


def test_a_format_that_the_gpu_lacks_is_refused():
    with pytest.raises(InvalidArgumentError, match=r"mxfp8"):
        plans("a100", ("mxfp8",))


def test_the_report_holds_everything():
    machine = inspect_machine(CPU)
    assert machine.gpu is None
    assert "the plain model on the CPU" in what_is_used(machine)
    checks = check_kernels(plans(size_px=(24, 16))[:1], CPU, backend=breaking("fold", lambda t, b, p: p.zero_()))
    report = DoctorReport(machine, what_is_used(machine), checks, 1.0)
    facts = json.loads(report.to_json())
    assert facts["failures"] == 1
    assert facts["machine"]["torch"] == torch.__version__
    assert len(facts["checks"]) == len(checks)
    assert [check.kernel for check in report.failures] == ["fold"]
