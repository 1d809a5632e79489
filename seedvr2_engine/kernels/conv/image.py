"""The ends of the VAE, where a convolution has three channels on one side.

A tile of such a convolution would fetch each pixel 27 times to do almost nothing with it. So before the first
convolution a pixel's 3x3 neighbourhood of RGB is laid side by side (27 values, padded to 32), and after the last one
the nine spatial taps come out side by side, to be added up here: what remains for the matrix units is a 3x1x1
convolution.
"""

import triton
import triton.language as tl
from torch import Tensor

from ..launch import launch
from ..layout import WIDTH

_PIXELS = 128


@triton.jit
def unfold_kernel(
    picture, y, H, W, channel_stride, frame_stride,
    COLORS: tl.constexpr, WIDTH: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    """Lay the neighbourhoods of `PIXELS` pixels of one frame side by side."""
    t = tl.program_id(1).to(tl.int64)
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    column = tl.arange(0, WIDTH)
    tap = column // COLORS
    # [PIXELS, WIDTH]
    h = (pixel // W)[:, None] + (tap // 3 - 1)[None, :]
    w = (pixel % W)[:, None] + (tap % 3 - 1)[None, :]
    inside = (h >= 0) & (h < H) & (w >= 0) & (w < W) & (tap < 9)[None, :] & (pixel < H * W)[:, None]
    source = picture + t * frame_stride + (column % COLORS).to(tl.int64)[None, :] * channel_stride + h * W + w
    value = tl.load(source, mask=inside, other=0.0)
    offsets = pixel[:, None] * WIDTH + column[None, :]
    tl.store(y + t * H * W * WIDTH + offsets, value.to(y.dtype.element_ty), mask=(pixel < H * W)[:, None])


@triton.jit
def fold_kernel(
    taps, bias, picture, H, W, channel_stride, frame_stride,
    COLORS: tl.constexpr, WIDTH: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    """Add up the nine taps of `PIXELS` pixels of one frame."""
    t = tl.program_id(1).to(tl.int64)
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    there = pixel < H * W
    for color in tl.static_range(COLORS):
        total = tl.zeros((PIXELS,), tl.float32) + tl.load(bias + color)
        for tap in tl.static_range(9):
            h = pixel // W + (tap // 3 - 1)
            w = pixel % W + (tap % 3 - 1)
            inside = (h >= 0) & (h < H) & (w >= 0) & (w < W) & there
            source = taps + t * H * W * WIDTH + (h * W + w) * WIDTH + (tap * COLORS + color)
            total += tl.load(source, mask=inside, other=0.0)
        target = picture + t * frame_stride + tl.full((), color, tl.int64) * channel_stride + pixel
        tl.store(target, total.to(picture.dtype.element_ty), mask=there)


def unfold(picture: Tensor, y: Tensor) -> None:
    """Frames (C, T, H, W), C <= 3, rows contiguous -> y (T, H, W, 32): channel (3 kh + kw) * C + c; the rest zero.

    Reference: `reference.unfold`.
    """
    colors, frames, height, width = picture.shape
    launch(
        unfold_kernel, (triton.cdiv(height * width, _PIXELS), frames),
        picture, y, height, width, picture.stride(0), picture.stride(1),
        COLORS=colors, WIDTH=WIDTH, PIXELS=_PIXELS, num_warps=4,
    )  # fmt: skip


def fold(taps: Tensor, bias: Tensor, picture: Tensor) -> None:
    """taps (T, H, W, 32) FP32, channel (3 kh + kw) * C + c, and bias (C,) FP32 -> picture (C, T, H, W).

    Reference: `reference.fold`.
    """
    colors, frames, height, width = picture.shape
    launch(
        fold_kernel, (triton.cdiv(height * width, _PIXELS), frames),
        taps, bias, picture, height, width, picture.stride(0), picture.stride(1),
        COLORS=colors, WIDTH=WIDTH, PIXELS=_PIXELS, num_warps=4,
    )  # fmt: skip
