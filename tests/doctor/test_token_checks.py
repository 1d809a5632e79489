"""The doctor's checks of the transformer's kernels: right ones pass in Triton's interpreter, broken ones are named."""

import os

import pytest
import torch

pytest.importorskip("triton")

from seedvr2_engine.doctor import token_checks as token_checks_module
from seedvr2_engine.doctor.token_checks import check_tokens, token_checks
from seedvr2_engine.engine.dit.backend import reference_tokens, triton_tokens

from ..kernels.interpreter import correct_interpreter

CPU = torch.device("cpu")


@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") != "1", reason="runs in Triton's interpreter")
@pytest.mark.parametrize("format", ["int8", "nvfp4"])
def test_right_kernels_pass(format, monkeypatch):
    correct_interpreter()
    # The interpreter takes its time.
    monkeypatch.setattr(token_checks_module, "ROWS", 13)
    monkeypatch.setattr(token_checks_module, "COLUMNS", 40)
    found = [one.check(triton_tokens("sm_120")) for one in token_checks("sm_120", [format], CPU, [(32, 64)])]
    assert [check.wrong for check in found] == [""] * 8
    assert {check.kernel for check in found} == {
        "step", "rows, none", "rows, gated silu", "rows, gelu", "product", "product, bias",
    }  # fmt: skip
    assert all(check.error < 1e-2 for check in found)


def broken(name, damage):
    right = getattr(reference_tokens(), name)

    def call(*arguments, **options):
        right(*arguments, **options)
        damage(*arguments, **options)

    return reference_tokens()._replace(**{name: call})


def one_scale_off(x, activation, out):
    out.scale[3] *= 1.3


def nothing_in_the_last_row(x, weight, bias, out):
    out[-1] = float("nan")


def another_step(x, step, *, kept, out):
    out.scale.mul_(1.02)


@pytest.mark.parametrize(
    ("backend", "kernels", "said"),
    [
        (broken("quantize_rows", one_scale_off), {"rows, none", "rows, gelu", "rows, gated silu"}, "relative error"),
        (broken("multiply", nothing_in_the_last_row), {"product", "product, bias"}, "never written"),
        (broken("step_tokens", another_step), {"step"}, "relative error"),
    ],
)
def test_broken_kernels_are_named(backend, kernels, said):
    found = [check.check(backend) for check in token_checks("sm_90", ["int8"], CPU, [(64, 96)])]
    assert {check.kernel for check in found if check.wrong} == kernels
    assert all(said in check.wrong for check in found if check.wrong)


def test_what_does_not_run_is_a_finding():
    def fails(*_):
        raise RuntimeError("an illegal memory access")

    backend = reference_tokens()._replace(multiply=fails)
    found = list(check_tokens("sm_90", [], backend, CPU))
    assert found == []
    checks = [check.check(backend) for check in token_checks("sm_90", ["fp8"], CPU, [(64, 96)])]
    wrong = [check for check in checks if check.wrong]
    assert {check.kernel for check in wrong} == {"product", "product, bias"}
    assert all("illegal memory access" in check.wrong for check in wrong)
