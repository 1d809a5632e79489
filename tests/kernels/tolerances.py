"""How far a kernel may be from its reference, by precision, and the comparison itself."""

import torch
from torch import Tensor

TOLERANCES = {
    torch.float32: 3e-6,
    torch.float16: 1e-3,
    torch.bfloat16: 8e-3,
    torch.float8_e4m3fn: 7e-2,
    torch.int8: 8e-3,
}
"""Largest error relative to the largest value of the reference: a rounding step of the stored format, and for FP32 the
order of summation. INT8 steps and FP8 steps may fall to the other side of a tie."""


def assert_close(actual: Tensor, expected: Tensor, precision: torch.dtype, factor: float = 1.0) -> None:
    """Fail with the relative error and the place of the largest one; NaN anywhere fails."""
    difference = (actual.float() - expected.float()).abs()
    assert not difference.isnan().any(), f"{int(actual.float().isnan().sum())} values were never written or are NaN"
    limit = factor * TOLERANCES[precision] * max(expected.float().abs().max().item(), 1e-30)
    worst = int(difference.argmax())
    place = torch.unravel_index(torch.tensor(worst), difference.shape)
    assert difference.max() <= limit, (
        f"largest error {difference.flatten()[worst]:.3g} > {limit:.3g} at {[int(i) for i in place]}: "
        f"{actual.flatten()[worst].item():.6g} instead of {expected.flatten()[worst].item():.6g}"
    )
