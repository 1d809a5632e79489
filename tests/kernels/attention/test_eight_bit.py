"""Attention in 8 bits: operands, then product, against their references, and the reference against exact attention."""

# mypy: allow-untyped-defs, no-check-untyped-defs
# ruff: noqa: N803
from dataclasses import replace

import pytest
import torch
import triton
import triton.language as tl

from seedvr2_engine.errors import InvalidArgumentError
from seedvr2_engine.kernels import reference
from seedvr2_engine.kernels.attention import eight_bit, quantize
from seedvr2_engine.kernels.attention.eight_bit import weigh
from seedvr2_engine.kernels.configs import AttentionConfig
from seedvr2_engine.kernels.layout import attention_bytes, attention_operands, value_order

from ..tolerances import assert_close

DIM = 64
CONFIG = AttentionConfig(32, 32, 32, warps=4, stages=2, uses_tma=True)
OVERLAPPING = replace(CONFIG, overlaps=True)
ways = pytest.mark.parametrize("way", [CONFIG, OVERLAPPING], ids=["in turn", "overlapping"])


def make_qkv(length, gain=1.0, dtype=torch.float16):
    """Logits of standard deviation `gain`; keys and values have much in common."""
    generator = torch.Generator().manual_seed(length)
    q, k, v = torch.randn(1, length, 3 * DIM, generator=generator).chunk(3, dim=-1)
    k_common, v_common = torch.randn(2, 1, 1, DIM, generator=generator) * 4
    return torch.cat([q * gain**0.5, k * gain**0.5 + k_common, v + v_common], dim=-1).to(dtype)


def make_operands(length, format):
    """Poisoned: NaN in FP8 and FP32, the least number in INT8."""
    memory = torch.full((attention_bytes(length, DIM),), 0xFF, dtype=torch.uint8)
    return attention_operands(memory, length, DIM, format)


def relative(actual, expected):
    return ((actual.float() - expected.float()).norm() / expected.float().norm()).item()


def attend(qkv, config, format="int8"):
    """Both steps, into poisoned memory."""
    frames, length, _ = qkv.shape
    operands = make_operands(length, format)
    if frames > 1:
        operands = type(operands)(*(torch.cat([part] * frames) for part in operands))
    y = torch.full((frames, length, DIM), float("nan"), dtype=qkv.dtype)
    quantize.quantize_attention(qkv, operands, config)
    eight_bit.attend_8bit(operands, y, config)
    return y


@ways
@pytest.mark.parametrize("uses_tma", [True, False], ids=["descriptors", "pointers"])
@pytest.mark.parametrize("format", ["int8", "fp8"])
@pytest.mark.parametrize("length", [37, 200])
def test_equals_the_reference(length, format, uses_tma, way):
    qkv = make_qkv(length, gain=4)
    config = replace(way, uses_tma=uses_tma)
    actual, expected = (make_operands(length, format) for _ in range(2))
    quantize.quantize_attention(qkv, actual, config)
    reference.quantize_attention(qkv, expected, config)
    for name in ("q", "k", "v"):
        assert_close(getattr(actual, name), getattr(expected, name), getattr(expected, name).dtype)
    for name in ("q_scale", "k_scale", "common"):
        assert_close(getattr(actual, name), getattr(expected, name), torch.float32)
    outs = [torch.full((1, length, DIM), float("nan"), dtype=qkv.dtype) for _ in range(2)]
    eight_bit.attend_8bit(expected, outs[0], config)
    reference.attend_8bit(expected, outs[1], config)
    # A probability near the middle of a step may fall to either side.
    assert_close(*outs, qkv.dtype, factor=8)
    common = outs[1].mean(1, keepdim=True)
    assert relative(outs[0] - common, outs[1] - common) < 2e-3


@pytest.mark.parametrize("length", [1, 31, 32, 33, 64, 150, 200])
def test_both_ways_have_the_same_bits(length):
    """One block of keys is the overlapping way's last product alone."""
    qkv = make_qkv(length, gain=4)
    assert torch.equal(attend(qkv, OVERLAPPING), attend(qkv, CONFIG))


def test_order_of_the_values():
    order = value_order(32)
    assert order[:16].tolist() == [0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15]
    assert torch.equal(order[16:], order[:16] + 16)


@triton.jit
def unchanged(x, first=None, second=None):
    return x


@triton.jit
def weigh_all_but_the_last(
    acc, packed, values, t, n, part, PADDED, D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    BLOCK_V: tl.constexpr, TMA: tl.constexpr, COMPILED: tl.constexpr,
):  # fmt: skip
    if n + BLOCK_N < PADDED:
        acc = weigh(acc, packed, values, t, n, part, PADDED, D, BLOCK_M, BLOCK_N, BLOCK_V, TMA, COMPILED)
    return acc


@pytest.mark.parametrize(
    ("module", "name", "fault"),
    [
        (eight_bit, "weigh", weigh_all_but_the_last),
        (eight_bit, "in_value_order", unchanged),
        (eight_bit, "rescale", lambda acc, shrink, COMPILED: acc),
        (quantize, "token_at", unchanged),
    ],
)
def test_a_planted_fault_shows(monkeypatch, module, name, fault):
    qkv = make_qkv(200, gain=4)
    right = attend(qkv, OVERLAPPING)
    monkeypatch.setattr(module, name, fault)
    wrong = attend(qkv, OVERLAPPING)
    common = right.float().mean(1, keepdim=True)
    assert relative(wrong - common, right - common) > 0.1


@ways
def test_bf16_and_frames_of_their_own(way):
    qkv = torch.cat([make_qkv(40, dtype=torch.bfloat16), 3 * make_qkv(40, dtype=torch.bfloat16)])
    assert torch.equal(attend(qkv, way), torch.cat([attend(frame[None], way) for frame in qkv]))


@pytest.mark.parametrize(("gain", "limit"), [(1.0, 0.055), (4.0, 0.05), (10.0, 0.055)])
def test_reference_is_as_near_to_exact_attention_as_an_fp8_convolution(gain, limit):
    """Whatever keys and values have in common; INT8 scores alone are 0.010 to 0.025, FP8 scores 0.05 to 0.14 off."""
    qkv = make_qkv(600, gain)
    operands, (exact, actual) = make_operands(600, "int8"), torch.empty(2, 1, 600, DIM)
    reference.quantize_attention(qkv, operands, CONFIG)
    reference.attend(qkv, exact, CONFIG)
    reference.attend_8bit(operands, actual, CONFIG)
    common = exact.mean(1, keepdim=True)
    assert relative(actual - common, exact - common) < limit


@ways
def test_scores_all_equal_and_one_token(way):
    """Nothing to divide by: constant keys, and a single token."""
    for length in (1, 33):
        y = attend(torch.ones(1, length, 3 * DIM, dtype=torch.float16), way)
        assert torch.equal(y, torch.ones_like(y))


def test_output_that_does_not_fit_is_refused():
    with pytest.raises(InvalidArgumentError, match="attention in 8 bits: expected a 16-bit output"):
        eight_bit.attend_8bit(make_operands(8, "int8"), torch.zeros(1, 8, DIM), CONFIG)
