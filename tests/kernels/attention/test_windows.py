"""Attention inside sequences of different lengths against its reference, and against PyTorch's."""

from itertools import accumulate

import pytest
import torch
import torch.nn.functional as F

from seedvr2_engine.kernels.attention.windows import attend_windows
from seedvr2_engine.kernels.configs import WindowConfig
from seedvr2_engine.kernels.tokens import reference
from seedvr2_engine.kernels.tokens.operands import plan_work

from ..tolerances import assert_close

LENGTHS = [3, 32, 41, 1, 70]
BOUNDS = [0, *accumulate(LENGTHS)]


@pytest.mark.parametrize("uses_tma", [True, False], ids=["descriptors", "pointers"])
@pytest.mark.parametrize("gain", [1.0, 6.0], ids=["flat", "peaked"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_equals_the_reference(dtype: torch.dtype, gain: float, uses_tma: bool) -> None:
    torch.manual_seed(6)
    heads, dim, rows = 3, 32, BOUNDS[-1]
    qkv = tuple((torch.randn(rows, heads, dim) * gain).to(dtype) for _ in range(3))
    config = WindowConfig(32, 16, warps=4, stages=2, uses_tma=uses_tma)
    work = plan_work(BOUNDS, BOUNDS, config.block_m)
    places = torch.randperm(rows + 5)[:rows].int()
    actual, expected = (torch.full((rows + 5, heads * dim), float("nan"), dtype=dtype) for _ in range(2))
    attend_windows(qkv, work, places, actual, config)
    reference.attend_windows(qkv, work, places, expected)
    written = places.long()
    # The probabilities are rounded to 16 bits before they meet the values.
    assert_close(actual[written], expected[written], dtype, factor=2)
    assert int(actual[:, 0].isnan().sum()) == 5


def test_queries_by_themselves() -> None:
    torch.manual_seed(6)
    heads, dim = 2, 32
    q_bounds = [0, *accumulate(max(1, length - 2) for length in LENGTHS)]
    q = torch.randn(q_bounds[-1], heads, dim).half()
    k, v = (torch.randn(BOUNDS[-1], heads, dim).half() for _ in range(2))
    config = WindowConfig(16, 16, warps=4, stages=2, uses_tma=False)
    out = torch.full((q_bounds[-1], heads * dim), float("nan"), dtype=torch.float16)
    places = torch.arange(len(q), dtype=torch.int32)
    attend_windows((q, k, v), plan_work(q_bounds, BOUNDS, 16), places, out, config)
    for i in range(len(LENGTHS)):
        own, seen = slice(*q_bounds[i : i + 2]), slice(*BOUNDS[i : i + 2])
        window = (x.float().transpose(0, 1) for x in (q[own], k[seen], v[seen]))
        expected = F.scaled_dot_product_attention(*window).transpose(0, 1).flatten(1)
        assert_close(out[own], expected, torch.float16, factor=2)
