"""Attention in 8 bits: its operands, then the product, against their twins, and the twin against exact attention."""

import pytest
import torch

from seedvr2_engine.errors import InvalidArgumentError
from seedvr2_engine.kernels import attention_8bit, reference
from seedvr2_engine.kernels.dispatch import AttentionConfig
from seedvr2_engine.kernels.layout import attention_bytes, attention_operands

from .tolerances import assert_close

DIM = 64
CONFIG = AttentionConfig(32, 32, 32, warps=4, stages=2, uses_tma=True)


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


@pytest.mark.parametrize("uses_tma", [True, False], ids=["descriptors", "pointers"])
@pytest.mark.parametrize("format", ["int8", "fp8"])
@pytest.mark.parametrize("length", [37, 200])
def test_equals_the_twin(length, format, uses_tma):
    qkv = make_qkv(length, gain=4)
    config = AttentionConfig(32, 32, 32, warps=4, stages=2, uses_tma=uses_tma)
    actual, expected = (make_operands(length, format) for _ in range(2))
    attention_8bit.quantize_attention(qkv, actual)
    reference.quantize_attention(qkv, expected)
    for name in ("q", "k", "v"):
        assert_close(getattr(actual, name), getattr(expected, name), getattr(expected, name).dtype)
    for name in ("q_scale", "k_scale", "common"):
        assert_close(getattr(actual, name), getattr(expected, name), torch.float32)
    outs = [torch.full((1, length, DIM), float("nan"), dtype=qkv.dtype) for _ in range(2)]
    attention_8bit.attend_8bit(expected, outs[0], config)
    reference.attend_8bit(expected, outs[1], config)
    # A probability near the middle of a step may fall to either side.
    assert_close(*outs, qkv.dtype, factor=8)
    common = outs[1].mean(1, keepdim=True)
    assert relative(outs[0] - common, outs[1] - common) < 2e-3


def test_bf16_and_frames_of_their_own():
    qkv = torch.cat([make_qkv(40, dtype=torch.bfloat16), 3 * make_qkv(40, dtype=torch.bfloat16)])
    alone = []
    for frame in qkv:
        operands, y = make_operands(40, "int8"), torch.full((1, 40, DIM), float("nan"), dtype=qkv.dtype)
        attention_8bit.quantize_attention(frame[None], operands)
        attention_8bit.attend_8bit(operands, y, CONFIG)
        alone.append((operands, y))
    together = type(operands)(*(torch.cat(parts) for parts in zip(*(o for o, _ in alone), strict=True)))
    y = torch.full((2, 40, DIM), float("nan"), dtype=qkv.dtype)
    attention_8bit.quantize_attention(qkv, together)
    attention_8bit.attend_8bit(together, y, CONFIG)
    assert torch.equal(y, torch.cat([y for _, y in alone]))


@pytest.mark.parametrize(("gain", "limit"), [(1.0, 0.055), (4.0, 0.05), (10.0, 0.055)])
def test_twin_is_as_near_to_exact_attention_as_an_fp8_convolution(gain, limit):
    """Whatever keys and values have in common; INT8 scores alone are 0.010 to 0.025, FP8 scores 0.05 to 0.14 off."""
    qkv = make_qkv(600, gain)
    operands, (exact, actual) = make_operands(600, "int8"), torch.empty(2, 1, 600, DIM)
    reference.quantize_attention(qkv, operands)
    reference.attend(qkv, exact, CONFIG)
    reference.attend_8bit(operands, actual, CONFIG)
    common = exact.mean(1, keepdim=True)
    assert relative(actual - common, exact - common) < limit


def test_scores_all_equal_and_one_token():
    """Nothing to divide by: constant keys, and a single token."""
    for length in (1, 33):
        qkv = torch.ones(1, length, 3 * DIM, dtype=torch.float16)
        operands, y = make_operands(length, "int8"), torch.full((1, length, DIM), float("nan"), dtype=torch.float16)
        attention_8bit.quantize_attention(qkv, operands)
        attention_8bit.attend_8bit(operands, y, CONFIG)
        assert torch.equal(y, torch.ones_like(y))


def test_output_that_does_not_fit_is_refused():
    with pytest.raises(InvalidArgumentError, match="attention in 8 bits: expected a 16-bit output"):
        attention_8bit.attend_8bit(make_operands(8, "int8"), torch.zeros(1, 8, DIM), CONFIG)
