"""`norm_silu` and its gradient as six Triton kernels that read each activation twice and write it once.

Training on a GPU spends more time in normalisation than in convolutions otherwise. Channels lie innermost, so a
program sums whole rows of them; the partial sums are combined per frame by one more program, in a fixed order.
"""

# Triton kernels have pointers and compile-time constants for arguments, which Python's types do not describe.
# mypy: disable-error-code="no-untyped-def"

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from training.network import NANO

ROWS_PER_SPLIT = 2048
"""Pixels that one program of a reduction sums up."""
BLOCK_ELEMENTS = 4096
"""Elements that one program holds at a time."""


@triton.jit
def _sum_kernel(x_ptr, part_ptr, pixels, splits, C: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    """Partial sums of x and x^2 over a split of one frame; part is [frames, splits, 2, C]."""
    frame, split = tl.program_id(0).to(tl.int64), tl.program_id(1)
    channel = tl.arange(0, C)
    first = tl.zeros((BLOCK, C), tl.float32)
    second = tl.zeros((BLOCK, C), tl.float32)
    for start in range(0, ROWS, BLOCK):
        row = split * ROWS + start + tl.arange(0, BLOCK)[:, None]
        at = (frame * pixels + row) * C + channel[None, :]
        x = tl.load(x_ptr + at, mask=row < pixels, other=0.0).to(tl.float32)
        first += x
        second += x * x
    out = part_ptr + (frame * splits + split) * 2 * C + channel
    tl.store(out, tl.sum(first, 0))
    tl.store(out + C, tl.sum(second, 0))


@triton.jit
def _group_sum(x, C: tl.constexpr, GROUPS: tl.constexpr):
    """Sum of x [C] over each group, handed back to every channel of it."""
    total = tl.sum(tl.reshape(x, (GROUPS, C // GROUPS)), 1)
    return tl.reshape(tl.broadcast_to(total[:, None], (GROUPS, C // GROUPS)), (C,))


@triton.jit
def _total(part_ptr, frame, splits, C: tl.constexpr):
    """Both sums of one frame, [C] each."""
    channel = tl.arange(0, C)
    first = tl.zeros((C,), tl.float32)
    second = tl.zeros((C,), tl.float32)
    for split in range(splits):
        at = part_ptr + (frame * splits + split) * 2 * C + channel
        first += tl.load(at)
        second += tl.load(at + C)
    return first, second


@triton.jit
def _scale_kernel(part_ptr, gain_ptr, bias_ptr, stats_ptr, pixels, splits, eps, C: tl.constexpr, GROUPS: tl.constexpr):
    """Sums -> mean, 1/std, and the affine map x * scale + shift; stats is [frames, 4, C]."""
    frame = tl.program_id(0).to(tl.int64)
    channel = tl.arange(0, C)
    first, second = _total(part_ptr, frame, splits, C)
    count = pixels * (C // GROUPS)
    mean = _group_sum(first, C, GROUPS) / count
    variance = tl.maximum(_group_sum(second, C, GROUPS) / count - mean * mean, 0.0)
    rstd = 1.0 / tl.sqrt(variance + eps)
    scale = tl.load(gain_ptr + channel) * rstd
    out = stats_ptr + frame * 4 * C + channel
    tl.store(out, mean)
    tl.store(out + C, rstd)
    tl.store(out + 2 * C, scale)
    tl.store(out + 3 * C, tl.load(bias_ptr + channel) - mean * scale)


@triton.jit
def _apply_kernel(x_ptr, stats_ptr, y_ptr, pixels, times, C: tl.constexpr, BLOCK: tl.constexpr, LEAD: tl.constexpr):
    """y = silu(x * scale + shift), shifted LEAD frames back, where the first frame is written again; LEAD is 2 or 0."""
    frame = tl.program_id(0).to(tl.int64)
    channel = tl.arange(0, C)[None, :]
    row = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)[:, None]
    inside = row < pixels
    stats = stats_ptr + frame * 4 * C + channel
    x = tl.load(x_ptr + (frame * pixels + row) * C + channel, mask=inside, other=0.0).to(tl.float32)
    z = x * tl.load(stats + 2 * C) + tl.load(stats + 3 * C)
    y = (z * tl.sigmoid(z)).to(y_ptr.dtype.element_ty)
    clip, time = frame // times, frame % times
    out = y_ptr + ((clip * (times + LEAD) + time) * pixels + row) * C + channel
    tl.store(out + LEAD * pixels * C, y, mask=inside)
    if LEAD == 2:  # noqa: SIM102  Triton knows the first at compile time, and the second not.
        if time == 0:
            tl.store(out, y, mask=inside)
            tl.store(out + pixels * C, y, mask=inside)


@triton.jit
def _slope(x, stats, g_ptr, frame, row, inside, pixels, times, channel, C: tl.constexpr, LEAD: tl.constexpr):
    """Gradient with respect to x * scale + shift."""
    clip, time = frame // times, frame % times
    at = g_ptr + ((clip * (times + LEAD) + time) * pixels + row) * C + channel
    g = tl.load(at + LEAD * pixels * C, mask=inside, other=0.0).to(tl.float32)
    if LEAD == 2:  # noqa: SIM102  Triton knows the first at compile time, and the second not.
        if time == 0:
            g += tl.load(at, mask=inside, other=0.0).to(tl.float32)
            g += tl.load(at + pixels * C, mask=inside, other=0.0).to(tl.float32)
    z = x * tl.load(stats + 2 * C) + tl.load(stats + 3 * C)
    s = tl.sigmoid(z)
    return g * s * (1 + z * (1 - s))


@triton.jit
def _slope_sum_kernel(
    x_ptr,
    stats_ptr,
    g_ptr,
    part_ptr,
    pixels,
    splits,
    times,
    C: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    LEAD: tl.constexpr,
):
    """Partial sums of the slope and of slope * x; part is [frames, splits, 2, C]."""
    frame, split = tl.program_id(0).to(tl.int64), tl.program_id(1)
    channel = tl.arange(0, C)
    stats = stats_ptr + frame * 4 * C + channel[None, :]
    first = tl.zeros((BLOCK, C), tl.float32)
    second = tl.zeros((BLOCK, C), tl.float32)
    for start in range(0, ROWS, BLOCK):
        row = split * ROWS + start + tl.arange(0, BLOCK)[:, None]
        inside = row < pixels
        x = tl.load(x_ptr + (frame * pixels + row) * C + channel[None, :], mask=inside, other=0.0).to(tl.float32)
        slope = _slope(x, stats, g_ptr, frame, row, inside, pixels, times, channel[None, :], C, LEAD)
        first += slope
        second += slope * x
    out = part_ptr + (frame * splits + split) * 2 * C + channel
    tl.store(out, tl.sum(first, 0))
    tl.store(out + C, tl.sum(second, 0))


@triton.jit
def _gradient_kernel(part_ptr, gain_ptr, stats_ptr, out_ptr, pixels, splits, C: tl.constexpr, GROUPS: tl.constexpr):
    """Sums -> the gradients of gain and bias, and dx = slope * scale + x * c1 + c0; out is [frames, 4, C]."""
    frame = tl.program_id(0).to(tl.int64)
    channel = tl.arange(0, C)
    first, second = _total(part_ptr, frame, splits, C)
    stats = stats_ptr + frame * 4 * C + channel
    mean, rstd, gain = tl.load(stats), tl.load(stats + C), tl.load(gain_ptr + channel)
    count = pixels * (C // GROUPS)
    d_gain = rstd * (second - mean * first)
    constant = _group_sum(gain * first, C, GROUPS) / count
    linear = _group_sum(gain * d_gain, C, GROUPS) / count * rstd * rstd
    out = out_ptr + frame * 4 * C + channel
    tl.store(out, d_gain)
    tl.store(out + C, first)
    tl.store(out + 2 * C, -linear)
    tl.store(out + 3 * C, mean * linear - rstd * constant)


@triton.jit
def _input_gradient_kernel(
    x_ptr,
    stats_ptr,
    g_ptr,
    c_ptr,
    dx_ptr,
    pixels,
    times,
    C: tl.constexpr,
    BLOCK: tl.constexpr,
    LEAD: tl.constexpr,
):
    """dx = slope * scale + x * c1 + c0."""
    frame = tl.program_id(0).to(tl.int64)
    channel = tl.arange(0, C)[None, :]
    row = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)[:, None]
    inside = row < pixels
    stats, c = stats_ptr + frame * 4 * C + channel, c_ptr + frame * 4 * C + channel
    at = (frame * pixels + row) * C + channel
    x = tl.load(x_ptr + at, mask=inside, other=0.0).to(tl.float32)
    slope = _slope(x, stats, g_ptr, frame, row, inside, pixels, times, channel, C, LEAD)
    dx = slope * tl.load(stats + 2 * C) + x * tl.load(c + 2 * C) + tl.load(c + 3 * C)
    tl.store(dx_ptr + at, dx.to(dx_ptr.dtype.element_ty), mask=inside)


class _NormSilu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor, bias: Tensor, eps: float) -> Tensor:
        x = x.contiguous()
        n, t, h, w, c = x.shape
        frames, pixels, block = n * t, h * w, BLOCK_ELEMENTS // c
        splits = triton.cdiv(pixels, ROWS_PER_SPLIT)
        part = torch.empty((frames, splits, 2, c), device=x.device)
        stats = torch.empty((frames, 4, c), device=x.device)
        lead = 2 if t > 1 else 0
        y = torch.empty((n, t + lead, h, w, c), device=x.device, dtype=x.dtype)
        _sum_kernel[(frames, splits)](x, part, pixels, splits, c, ROWS_PER_SPLIT, block)
        groups = NANO.norm_groups
        _scale_kernel[(frames,)](part, gain, bias, stats, pixels, splits, eps, c, groups, num_warps=1)
        _apply_kernel[(frames, triton.cdiv(pixels, block))](x, stats, y, pixels, t, c, block, lead)
        ctx.save_for_backward(x, gain, stats)
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, gain, stats = ctx.saved_tensors
        g = g.contiguous()
        n, t, h, w, c = x.shape
        frames, pixels, block, lead = n * t, h * w, BLOCK_ELEMENTS // c, 2 if t > 1 else 0
        splits = triton.cdiv(pixels, ROWS_PER_SPLIT)
        part = torch.empty((frames, splits, 2, c), device=x.device)
        gradients = torch.empty((frames, 4, c), device=x.device)
        dx = torch.empty_like(x)
        _slope_sum_kernel[(frames, splits)](x, stats, g, part, pixels, splits, t, c, ROWS_PER_SPLIT, block, lead)
        _gradient_kernel[(frames,)](part, gain, stats, gradients, pixels, splits, c, NANO.norm_groups, num_warps=1)
        grid = (frames, triton.cdiv(pixels, block))
        _input_gradient_kernel[grid](x, stats, g, gradients, dx, pixels, t, c, block, lead)
        d_gain, d_bias = gradients[:, :2].sum(0)
        return dx, d_gain, d_bias, None


def norm_silu_triton(x: Tensor, gain: Tensor, bias: Tensor, eps: float) -> Tensor:
    """`training.network.norm_silu` on a GPU: x (N, T, H, W, C) 16-bit or FP32, gain and bias FP32."""
    y: Tensor = _NormSilu.apply(x, gain, bias, eps)
    return y
