"""Attention inside windows in 8 bits: its operands and its result against their references and against 16 bits."""

from dataclasses import replace
from itertools import accumulate

import pytest
import torch

from seedvr2_engine.kernels.attention import windows_8bit
from seedvr2_engine.kernels.attention.windows_8bit import attend_windows_8bit, join_parts_8bit
from seedvr2_engine.kernels.configs import WindowConfig
from seedvr2_engine.kernels.tokens import reference
from seedvr2_engine.kernels.tokens.operands import (
    EightBitQKV,
    JoinStep,
    StreamVectors,
    pad_bounds,
    plan_padded_work,
    plan_work,
)

LENGTHS = [3, 64, 141, 1]
BOUNDS = [0, *accumulate(LENGTHS)]
SPANS = pad_bounds(BOUNDS, 64)
PADDED = SPANS[-1][0] + 64
HEADS, WIDTH = 2, 32
FORMATS = [torch.int8, torch.float8_e4m3fn]


def joined(gain: float) -> tuple[torch.Tensor, JoinStep]:
    torch.manual_seed(3)
    sources = torch.full((PADDED,), -1)
    at = torch.randperm(BOUNDS[-1] + 5)[: BOUNDS[-1]]
    for (begin, end), first in zip(SPANS, BOUNDS, strict=False):
        sources[begin:end] = at[first : first + end - begin]
    qkv = (torch.randn(BOUNDS[-1] + 5, 3 * HEADS * WIDTH) * torch.rand(BOUNDS[-1] + 5, 1)).bfloat16()
    qkv[3] *= 100
    angles = torch.randn(len(qkv), WIDTH // 2)
    norms = [StreamVectors(*(gain + torch.rand(2, WIDTH))) for _ in range(2)]
    return qkv, JoinStep(len(qkv) - 9, HEADS, sources, *norms, angles.cos(), angles.sin())


def poisoned(number: torch.dtype) -> EightBitQKV:
    out = EightBitQKV.empty(PADDED, HEADS, WIDTH, number, torch.device("cpu"))
    for part in out:
        part.view(torch.uint8).fill_(0x7F)
    return out


@pytest.mark.parametrize("number", FORMATS)
def test_operands_equal_the_reference(number: torch.dtype) -> None:
    qkv, step = joined(1.0)
    actual, expected = poisoned(number), poisoned(number)
    join_parts_8bit(qkv, step, actual)
    reference.join_parts_8bit(qkv, step, expected)
    for a, b in zip(actual[3:], expected[3:], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=0)
    for a, b in zip(actual[:3], expected[:3], strict=True):
        apart = (a.float() - b.float()).abs()
        # What lies between two numbers may become either.
        assert (apart > b.float().abs() / 8 + 1 / 512).double().mean() <= (0.01 if a.dtype == torch.int8 else 0)
        assert apart.max() <= (1 if a.dtype == torch.int8 else 32)
        assert (apart > 0).double().mean() <= 0.01


@pytest.mark.parametrize("uses_tma", [True, False], ids=["descriptors", "pointers"])
@pytest.mark.parametrize("number", FORMATS)
@pytest.mark.parametrize("gain", [1.0, 4.0], ids=["flat", "peaked"])
def test_attention_equals_the_reference(number: torch.dtype, gain: float, uses_tma: bool) -> None:
    qkv, step = joined(gain)
    x = poisoned(number)
    reference.join_parts_8bit(qkv, step, x)
    config = WindowConfig(32 if uses_tma else 64, 64, warps=4, stages=2, uses_tma=uses_tma)
    work, places = plan_padded_work(SPANS, config.block_m), torch.randperm(PADDED).int()
    actual, expected = (torch.full((PADDED, HEADS * WIDTH), float("nan")).bfloat16() for _ in range(2))
    attend_windows_8bit(x, work, places, actual, config)
    reference.attend_windows_8bit(x, work, places, expected)
    written = torch.cat([places[begin:end].long() for begin, end in SPANS])
    assert int(actual[:, 0].isnan().sum()) == PADDED - BOUNDS[-1]
    # Probabilities are rounded to E4M3, each within a sixteenth.
    error = (actual[written].float() - expected[written].float()).norm() / expected[written].float().norm()
    assert error < 0.02


def exact(qkv: torch.Tensor, step: JoinStep) -> torch.Tensor:
    """The same attention in float32, sequence after sequence."""
    real = step.rows[step.rows >= 0]
    q, k, v = (torch.empty(len(real), HEADS, WIDTH) for _ in range(3))
    reference.join_parts(qkv, replace(step, rows=real), (q, k, v))
    out = torch.empty(len(real), HEADS * WIDTH)
    reference.attend_windows((q, k, v), plan_work(BOUNDS, BOUNDS, 64), torch.arange(len(real)), out)
    return out


@pytest.mark.parametrize(("number", "limit"), [(torch.int8, 0.045), (torch.float8_e4m3fn, 0.08)])
def test_it_is_near_exact_attention(number: torch.dtype, limit: float) -> None:
    qkv, step = joined(1.0)
    x = poisoned(number)
    join_parts_8bit(qkv, step, x)
    out = torch.full((PADDED, HEADS * WIDTH), float("nan"))
    config = WindowConfig(64, 64, warps=4, stages=2, uses_tma=False)
    attend_windows_8bit(x, plan_padded_work(SPANS, 64), torch.arange(PADDED).int(), out, config)
    actual = torch.cat([out[begin:end] for begin, end in SPANS])
    expected = exact(qkv, step)
    assert (actual - expected).norm() / expected.norm() < limit


def test_a_fault_in_the_kernel_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows_8bit, "in_value_order", lambda p, rows, columns: p)
    with pytest.raises(AssertionError):
        test_attention_equals_the_reference(torch.int8, 1.0, uses_tma=False)
