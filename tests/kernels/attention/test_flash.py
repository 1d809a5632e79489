"""Attention against its reference, which is the textbook's formula."""

import pytest
import torch

from seedvr2_engine.errors import InvalidArgumentError
from seedvr2_engine.kernels import reference
from seedvr2_engine.kernels.attention import flash
from seedvr2_engine.kernels.configs import AttentionConfig

from ..tolerances import assert_close


@pytest.mark.parametrize("uses_tma", [True, False], ids=["descriptors", "pointers"])
@pytest.mark.parametrize("gain", [1.0, 6.0], ids=["flat", "peaked"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_equals_the_reference(dtype: torch.dtype, gain: float, uses_tma: bool) -> None:
    generator = torch.Generator().manual_seed(6)
    length, dim = 41, 64
    qkv = (torch.randn(2, length, 3 * dim, generator=generator) * gain).to(dtype)
    config = AttentionConfig(32, 16, 32, warps=4, stages=2, uses_tma=uses_tma)
    actual, expected = (torch.full((2, length, dim), float("nan"), dtype=dtype) for _ in range(2))
    flash.attend(qkv, actual, config)
    reference.attend(qkv, expected, config)
    # The probabilities are rounded to 16 bits before they meet the values.
    assert_close(actual, expected, dtype, factor=2)


def test_output_that_does_not_fit_is_refused() -> None:
    config = AttentionConfig(32, 16, 32, warps=4, stages=2, uses_tma=False)
    with pytest.raises(InvalidArgumentError, match="attention: expected a 16-bit output"):
        flash.attend(torch.zeros(1, 8, 192).half(), torch.zeros(1, 8, 64), config)
