"""Colour correction in a few launches a frame; `color.reference` has the references, step by step.

Nothing here multiplies and adds in one rounding: a pixel has to fall into the same level when levels are counted and
when they are looked up, in two kernels that a compiler would otherwise round in its own ways.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..launch import launch
from .operands import LabMatching

ROWS, COLUMNS, WARPS = 4, 128, 4


@triton.jit
def clamped(x, LOW: tl.constexpr, HIGH: tl.constexpr):
    """Within the bounds; NaN stays NaN, which comparisons do not ensure: compilers make minimum and maximum of them."""
    return tl.clamp(x, LOW, HIGH, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def tap(x, content, x_at, content_at, SUBTRACTS: tl.constexpr):
    """A pixel to be blurred, in float32."""
    value = tl.load(x + x_at).to(tl.float32)
    if SUBTRACTS:
        value -= tl.load(content + content_at).to(tl.float32)
    return value


@triton.jit
def across(
    x, content, h, left, here, right, x_row, x_column, content_row, content_column, SUBTRACTS: tl.constexpr
):  # fmt: skip
    """[1, 2, 1] / 4 along the rows h, [ROWS, COLUMNS]."""
    x_at, content_at = h.to(tl.int64)[:, None] * x_row, h.to(tl.int64)[:, None] * content_row
    outer = tap(x, content, x_at + left * x_column, content_at + left * content_column, SUBTRACTS)
    outer += tap(x, content, x_at + right * x_column, content_at + right * content_column, SUBTRACTS)
    inner = tap(x, content, x_at + here * x_column, content_at + here * content_column, SUBTRACTS)
    return outer * 0.25 + inner * 0.5


@triton.jit(do_not_specialize=["H", "W", "radius", "x_channel", "x_row", "content_channel", "content_row"])
def blur_kernel(
    x, content, y, H, W, radius, x_channel, x_row, x_column, content_channel, content_row, content_column,
    SUBTRACTS: tl.constexpr, FINISHES: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """A tile of one channel, blurred with gaps of `radius`; x - content if it SUBTRACTS, + content if it FINISHES."""
    channel = tl.program_id(2).to(tl.int64)
    h = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    w = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    inside = (h < H)[:, None] & (w < W)[None, :]
    row, column = tl.minimum(h, H - 1), tl.minimum(w, W - 1)[None, :]
    left, right = tl.maximum(column - radius, 0), tl.minimum(column + radius, W - 1)
    x += channel * x_channel
    content += channel * content_channel
    above = across(
        x, content, tl.maximum(row - radius, 0), left, column, right, x_row, x_column, content_row, content_column,
        SUBTRACTS,
    )  # fmt: skip
    here = across(
        x, content, row, left, column, right, x_row, x_column, content_row, content_column, SUBTRACTS,
    )  # fmt: skip
    below = across(
        x, content, tl.minimum(row + radius, H - 1), left, column, right, x_row, x_column, content_row, content_column,
        SUBTRACTS,
    )  # fmt: skip
    value = (above + below) * 0.25 + here * 0.5
    if FINISHES:
        at = content + row.to(tl.int64)[:, None] * content_row + column * content_column
        value = clamped(tl.load(at).to(tl.float32) + value, -1.0, 1.0)
    tl.store(y + (channel * H + h[:, None]) * W + w[None, :], value, mask=inside)


@triton.jit
def product(x, y, z, MATRIX: tl.constexpr, ROW: tl.constexpr):
    """A row of a 3x3 matrix times a vector."""
    return x * MATRIX[ROW][0] + y * MATRIX[ROW][1] + z * MATRIX[ROW][2]


@triton.jit
def linear(x):
    """A channel in [-1, 1], clamped to that -> linear light in [0, 1]."""
    rgb = clamped(x * 0.5 + 0.5, 0.0, 1.0)
    power = tl.exp2(tl.log2((rgb + 0.055) * (1 / 1.055)) * 2.4)
    return tl.where(rgb > 0.04045, power, rgb * (1 / 12.92))


@triton.jit
def root(v, KNEE: tl.constexpr, SLOPE: tl.constexpr):
    """The cube root of Lab, which is a line below the knee."""
    below: tl.constexpr = KNEE * KNEE * KNEE
    return tl.where(v > below, tl.exp2(tl.log2(tl.maximum(v, below)) * (1 / 3)), (v * SLOPE + 16) * (1 / 116))


@triton.jit
def cube(f, KNEE: tl.constexpr, SLOPE: tl.constexpr):
    """The inverse of `root`."""
    return tl.where(f > KNEE, f * f * f, (f * 116 - 16) * (1 / SLOPE))


@triton.jit
def encoded(light):
    """Linear light -> a channel in [-1, 1]."""
    power = tl.exp2(tl.log2(tl.maximum(light, 0.0031308)) * (1 / 2.4)) * 1.055 - 0.055
    return clamped(tl.where(light > 0.0031308, power, light * 12.92), 0.0, 1.0) * 2 - 1


@triton.jit
def to_lab(x, at, channel_stride, inside, TO_XYZ: tl.constexpr, KNEE: tl.constexpr, SLOPE: tl.constexpr):
    """Three channels of a picture in [-1, 1] -> L, a, b."""
    red = linear(tl.load(x + at, mask=inside, other=0.0).to(tl.float32))
    green = linear(tl.load(x + channel_stride + at, mask=inside, other=0.0).to(tl.float32))
    blue = linear(tl.load(x + 2 * channel_stride + at, mask=inside, other=0.0).to(tl.float32))
    fx = root(product(red, green, blue, TO_XYZ, 0), KNEE, SLOPE)
    fy = root(product(red, green, blue, TO_XYZ, 1), KNEE, SLOPE)
    fz = root(product(red, green, blue, TO_XYZ, 2), KNEE, SLOPE)
    return fy * 116 - 16, (fx - fy) * 500, (fy - fz) * 200


@triton.jit
def level(value, CHANNEL: tl.constexpr, RANGES: tl.constexpr, LEVELS: tl.constexpr):
    """The level of a value of L, a or b, clamped before it is whole; NaN has level 0."""
    scaled = (value - RANGES[CHANNEL][0]) * RANGES[CHANNEL][1]
    return tl.where(scaled > 0, tl.minimum(scaled, LEVELS - 1.0), 0.0).to(tl.int32)


@triton.jit(do_not_specialize=["H", "W", "channel_stride", "row_stride"])
def count_lab_kernel(
    x, counts, H, W, channel_stride, row_stride, column_stride,
    TO_XYZ: tl.constexpr, KNEE: tl.constexpr, SLOPE: tl.constexpr, RANGES: tl.constexpr, LEVELS: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Count the levels of a tile's pixels; whole numbers, so that their order does not matter."""
    h = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    w = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    inside = (h < H)[:, None] & (w < W)[None, :]
    at = h.to(tl.int64)[:, None] * row_stride + w[None, :] * column_stride
    lightness, a, b = to_lab(x, at, tl.cast(channel_stride, tl.int64), inside, TO_XYZ, KNEE, SLOPE)
    tl.atomic_add(counts + level(lightness, 0, RANGES, LEVELS), 1, mask=inside, sem="relaxed")
    tl.atomic_add(counts + LEVELS + level(a, 1, RANGES, LEVELS), 1, mask=inside, sem="relaxed")
    tl.atomic_add(counts + 2 * LEVELS + level(b, 2, RANGES, LEVELS), 1, mask=inside, sem="relaxed")


@triton.jit(do_not_specialize=["pixels"])
def match_lab_kernel(
    x, curves, pixels,
    TO_XYZ: tl.constexpr, FROM_XYZ: tl.constexpr, KNEE: tl.constexpr, SLOPE: tl.constexpr, RANGES: tl.constexpr,
    LEVELS: tl.constexpr, SHARE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Give `BLOCK` pixels what the curves make of them, in their place."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < pixels
    channel_stride = tl.cast(pixels, tl.int64)
    lightness, a, b = to_lab(x, at, channel_stride, inside, TO_XYZ, KNEE, SLOPE)
    matched = tl.load(curves + level(lightness, 0, RANGES, LEVELS), mask=inside, other=0.0)
    lightness -= (lightness - matched) * SHARE
    fy = (lightness + 16) * (1 / 116)
    fx = fy + tl.load(curves + LEVELS + level(a, 1, RANGES, LEVELS), mask=inside, other=0.0) * (1 / 500)
    fz = fy - tl.load(curves + 2 * LEVELS + level(b, 2, RANGES, LEVELS), mask=inside, other=0.0) * (1 / 200)
    light_x, light_y, light_z = cube(fx, KNEE, SLOPE), cube(fy, KNEE, SLOPE), cube(fz, KNEE, SLOPE)
    for channel in tl.static_range(3):
        light = product(light_x, light_y, light_z, FROM_XYZ, channel)
        tl.store(x + channel * channel_stride + at, encoded(light), mask=inside)


def transfer_detail(content: Tensor, style: Tensor, radii_px: tuple[int, ...]) -> Tensor:
    """The content's detail on the coarse colours of the style: content + blurred(style - content), clamped to [-1, 1].

    content, style (3, H, W), floating, of any strides; radii_px: two or more, one after another -> (3, H, W) FP32,
    contiguous. Reference: `color.reference.wavelet`, to the last bit: one launch a radius, where it rounds.
    """
    _, height, width = content.shape
    grid = (triton.cdiv(width, COLUMNS), triton.cdiv(height, ROWS), 3)
    x, last = style, len(radii_px) - 1
    spare: list[Tensor] = []
    for i, radius in enumerate(radii_px):
        y = spare.pop() if spare else torch.empty(content.shape, dtype=torch.float32, device=content.device)
        launch(
            blur_kernel, grid, x, content, y, height, width, radius, *x.stride(), *content.stride(),
            SUBTRACTS=i == 0, FINISHES=i == last, ROWS=ROWS, COLUMNS=COLUMNS, num_warps=WARPS, enable_fp_fusion=False,
        )  # fmt: skip
        if i > 0:
            spare.append(x)
        x = y
    return x


def count_lab(picture: Tensor, counts: Tensor, matching: LabMatching) -> None:
    """Add how often each level of L, a and b occurs in a picture. Reference: `color.reference.count_lab`.

    picture (3, H, W), floating, of any strides, clamped to [-1, 1]; counts (3, levels) int32, contiguous.
    """
    _, height, width = picture.shape
    launch(
        count_lab_kernel, (triton.cdiv(width, COLUMNS), triton.cdiv(height, ROWS)),
        picture, counts, height, width, *picture.stride(),
        TO_XYZ=matching.to_xyz, KNEE=matching.knee, SLOPE=matching.slope, RANGES=matching.ranges,
        LEVELS=matching.levels, ROWS=ROWS, COLUMNS=COLUMNS, num_warps=WARPS, enable_fp_fusion=False,
    )  # fmt: skip


def match_lab(picture: Tensor, curves: Tensor, matching: LabMatching) -> None:
    """Give a picture the values of its levels, in place. Reference: `color.reference.match_lab`.

    picture (3, H, W) FP32, contiguous, in [-1, 1] before and after; curves (3, levels) FP32, contiguous.
    """
    block = ROWS * COLUMNS
    pixels = picture.shape[1] * picture.shape[2]
    launch(
        match_lab_kernel, (triton.cdiv(pixels, block),), picture, curves, pixels,
        TO_XYZ=matching.to_xyz, FROM_XYZ=matching.from_xyz, KNEE=matching.knee, SLOPE=matching.slope,
        RANGES=matching.ranges, LEVELS=matching.levels, SHARE=matching.lightness_share, BLOCK=block,
        num_warps=WARPS, enable_fp_fusion=False,
    )  # fmt: skip
