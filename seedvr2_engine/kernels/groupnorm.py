"""GroupNorm in three short steps: combine the tiles' statistics, finish them, then normalise + SiLU + quantise.

The statistics come from the epilogue of the convolution that wrote the tensor, so the tensor itself is read once.
Means and squared deviations are merged with Chan's formula (Chan, Golub, LeVeque 1979) in a fixed order: the same
input gives the same bits. Each channel's smallest and largest value bound the largest normalised value before it is
computed, so a frame's exponent is known before its first element is quantised.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .conv.operands import FrameTarget, NormOperands, NormSpec
from .launch import launch
from .layout import CHUNKS, tiles_per_chunk

_COMBINE = (64, 32)
"""Tiles and channels that the first step takes at a time."""
_FINISH = (CHUNKS, 32)
"""Chunks and channels that the second step takes at a time."""
_ELEMENTS = 4096
_PAIR_ELEMENTS = 2048
"""Of each of the two frames."""


@triton.jit
def merge_tiles(partials, counts, begin, end, c, C: tl.constexpr, TILES: tl.constexpr, ROWS: tl.constexpr):
    """Merge tiles `begin` to `end` for channels `c`: count, and per channel mean, M2, smallest and largest value.

    With 2 ROWS the last two are bounds: no value of a tile is further from its mean than the root of M2.
    """
    zero = tl.zeros_like(c).to(tl.float32)
    total, mean, m2, low, high = 0.0, zero, zero, zero + float("inf"), zero - float("inf")
    for first in range(begin, end, TILES):
        tile = first + tl.arange(0, TILES)
        there = tile < end
        n = tl.load(counts + tile, mask=there, other=0).to(tl.float32)
        mask = there[:, None]
        # [TILES, channels]
        at = partials + tile.to(tl.int64)[:, None] * ROWS * C + c[None, :]
        means = tl.load(at, mask=mask, other=0.0)
        m2s = tl.load(at + C, mask=mask, other=0.0)
        if ROWS == 4:
            lows = tl.load(at + 2 * C, mask=mask, other=float("inf"))
            highs = tl.load(at + 3 * C, mask=mask, other=float("-inf"))
        else:
            reach = tl.sqrt(m2s)
            lows = tl.where(mask, means - reach, float("inf"))
            highs = tl.where(mask, means + reach, float("-inf"))
        low = tl.minimum(low, tl.min(lows, axis=0))
        high = tl.maximum(high, tl.max(highs, axis=0))
        block_total = tl.sum(n, axis=0)
        block_mean = tl.sum(n[:, None] * means, axis=0) / block_total
        deviation = means - block_mean[None, :]
        block_m2 = tl.sum(tl.where(mask, m2s + n[:, None] * deviation * deviation, 0.0), axis=0)
        delta = block_mean - mean
        merged = total + block_total
        mean += delta * (block_total / merged)
        m2 += block_m2 + delta * delta * (total * block_total / merged)
        total = merged
    return total, mean, m2, low, high


@triton.jit(do_not_specialize=["tiles", "tiles_per_chunk"])
def combine_kernel(
    partials, counts, combined, tiles, tiles_per_chunk,
    C: tl.constexpr, BLOCK_C: tl.constexpr, TILES: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Merge one chunk of a frame's tiles for one block of channels."""
    t = tl.program_id(0).to(tl.int64)
    chunk = tl.program_id(1)
    c = tl.program_id(2) * BLOCK_C + tl.arange(0, BLOCK_C)
    begin = chunk * tiles_per_chunk
    end = tl.minimum(begin + tiles_per_chunk, tiles)
    _, mean, m2, low, high = merge_tiles(partials + t * tiles * ROWS * C, counts, begin, end, c, C, TILES, ROWS)
    at = combined + (t * tl.num_programs(1) + chunk) * 4 * C + c
    tl.store(at, mean)
    tl.store(at + C, m2)
    tl.store(at + 2 * C, low)
    tl.store(at + 3 * C, high)


@triton.jit
def ceil_log2(value):
    """The smallest integer e with value <= 2^e, for a positive normal float32; exact."""
    bits = value.to(tl.int32, bitcast=True)
    return (bits >> 23) - 127 + ((bits & 0x7FFFFF) != 0).to(tl.int32)


@triton.jit(do_not_specialize=["chunks"])
def finish_kernel(
    combined, counts, weight, bias, inverse_smoothing, affine, chunks, eps,
    C: tl.constexpr, GROUPS: tl.constexpr, BLOCK_C: tl.constexpr, TILES: tl.constexpr,
    NORMALISES: tl.constexpr, ACTIVATES: tl.constexpr, HAS_SMOOTHING: tl.constexpr,
):  # fmt: skip
    """One frame, one block of channels (whole groups): center, gain, offset and bound of each."""
    PER_GROUP: tl.constexpr = C // GROUPS
    t = tl.program_id(0).to(tl.int64)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    total, mean, m2, low, high = merge_tiles(combined + t * chunks * 4 * C, counts, 0, chunks, c, C, TILES, 4)
    center = tl.zeros((BLOCK_C,), tl.float32)
    gain = tl.full((BLOCK_C,), 1.0, tl.float32)
    offset = tl.zeros((BLOCK_C,), tl.float32)
    if NORMALISES:
        # [groups, channels of a group]
        means = mean.reshape(BLOCK_C // PER_GROUP, PER_GROUP)
        group_mean = tl.sum(means, axis=1) / PER_GROUP
        deviation = means - group_mean[:, None]
        squares = m2.reshape(BLOCK_C // PER_GROUP, PER_GROUP) + total * deviation * deviation
        variance = tl.sum(squares, axis=1) / (total * PER_GROUP)
        inverse = 1.0 / tl.sqrt(variance + eps)
        spread = tl.zeros((BLOCK_C // PER_GROUP, PER_GROUP), tl.float32)
        center = (spread + group_mean[:, None]).reshape(BLOCK_C)
        gain = tl.load(weight + c) * (spread + inverse[:, None]).reshape(BLOCK_C)
        offset = tl.load(bias + c)
    at_low = (low - center) * gain + offset
    at_high = (high - center) * gain + offset
    top = tl.maximum(at_low, at_high)
    bottom = tl.minimum(at_low, at_high)
    if ACTIVATES:
        # SiLU rises from its minimum, -0.27846, on; a negative value cannot go below that.
        bound = tl.maximum(top * tl.sigmoid(top), tl.where(bottom < 0, 0.2784646, 0.0))
    else:
        bound = tl.maximum(tl.abs(top), tl.abs(bottom))
    if HAS_SMOOTHING:
        bound *= tl.load(inverse_smoothing + c)
    at = affine + t * 4 * C + c
    tl.store(at, center)
    tl.store(at + C, gain)
    tl.store(at + 2 * C, offset)
    tl.store(at + 3 * C, bound)


@triton.jit
def silu(x, APPROXIMATE: tl.constexpr):
    """x * sigmoid(x); approximate to 2^-11, which is much less than 8 bits round by, in a third of the instructions."""
    if APPROXIMATE:
        half = 0.5 * x
        tanh = tl.inline_asm_elementwise(
            "tanh.approx.f32 $0, $1;", "=f,f", [half], dtype=tl.float32, is_pure=True, pack=1
        )  # fmt: skip
        y = half * tanh + half
    else:
        y = x * tl.sigmoid(x)
    return y


@triton.jit
def prepare(
    x, affine, inverse_smoothing, offsets, inside, c,
    C: tl.constexpr, ACTIVATES: tl.constexpr, APPROXIMATE: tl.constexpr, HAS_SMOOTHING: tl.constexpr,
):  # fmt: skip
    """[PIXELS, C]: some pixels of a frame, normalised, activated and smoothed."""
    value = tl.load(x + offsets, mask=inside, other=0.0).to(tl.float32)
    # The mean is taken off first: x * gain - mean * gain would cancel where the mean is large.
    value = (value - tl.load(affine + c)[None, :]) * tl.load(affine + C + c)[None, :]
    value += tl.load(affine + 2 * C + c)[None, :]
    if ACTIVATES:
        value = silu(value, APPROXIMATE)
    if HAS_SMOOTHING:
        value = value * tl.load(inverse_smoothing + c)[None, :]
    return value


@triton.jit
def frame_exponent(affine, c, limit, exponent_floor, C: tl.constexpr):
    """The exponent of a frame whose values are within the bounds of its affine map."""
    largest = tl.max(tl.load(affine + 3 * C + c), axis=0)
    return tl.maximum(ceil_log2(tl.maximum(largest / limit, 1e-30)), exponent_floor)


@triton.jit
def quantize(value, exponent, limit, INTEGER: tl.constexpr):
    """value * 2^-exponent; rounded and kept within the limit if INTEGER."""
    value = value * tl.exp2(-exponent.to(tl.float32))
    if INTEGER:
        value = tl.minimum(tl.maximum(tl.floor(value + 0.5), -limit), limit)
    return value


@triton.jit(do_not_specialize=["pixels"])
def normalize_kernel(
    x, affine, inverse_smoothing, y, exponents, slots, pixels, limit, reach, exponent_floor,
    C: tl.constexpr, PIXELS: tl.constexpr, ACTIVATES: tl.constexpr, APPROXIMATE: tl.constexpr,
    HAS_SMOOTHING: tl.constexpr, HAS_EXPONENTS: tl.constexpr, INTEGER: tl.constexpr,
):  # fmt: skip
    """`PIXELS` pixels of a frame: read, scale, SiLU, quantise, write into the frame's slot."""
    t = tl.program_id(1)
    slot = tl.load(slots + t).to(tl.int64)
    c = tl.arange(0, C)
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    inside = (pixel < pixels)[:, None]
    # [PIXELS, C]
    offsets = pixel[:, None] * C + c[None, :]
    frame = x + t.to(tl.int64) * pixels * C
    value = prepare(
        frame, affine + t * 4 * C, inverse_smoothing, offsets, inside, c, C, ACTIVATES, APPROXIMATE, HAS_SMOOTHING
    )  # fmt: skip
    if HAS_EXPONENTS:
        exponent = frame_exponent(affine + t * 4 * C, c, limit * reach, exponent_floor, C)
        if tl.program_id(0) == 0:
            tl.store(exponents + slot, exponent)
        # The exponent follows from a bound, so no value exceeds the limit after this, or the limit's reach.
        value = quantize(value, exponent, limit, INTEGER)
    tl.store(y + slot * pixels * C + offsets, value.to(y.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["pixels"])
def normalize_pair_kernel(
    x, affine, inverse_smoothing, ring, ring_exponents, winograd, winograd_exponents, slots, pixels,
    limit, reach, exponent_floor,
    C: tl.constexpr, PIXELS: tl.constexpr, ACTIVATES: tl.constexpr, APPROXIMATE: tl.constexpr,
    HAS_SMOOTHING: tl.constexpr, HAS_EXPONENTS: tl.constexpr, INTEGER: tl.constexpr,
):  # fmt: skip
    """`PIXELS` pixels of two frames: normalised, remembered, and made into Winograd inputs with the two before them."""
    before = tl.load(slots).to(tl.int64)
    last = tl.load(slots + 1).to(tl.int64)
    first = tl.load(slots + 2).to(tl.int64)
    second = tl.load(slots + 3).to(tl.int64)
    c = tl.arange(0, C)
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    inside = (pixel < pixels)[:, None]
    # [PIXELS, C]
    offsets = pixel[:, None] * C + c[None, :]
    frame = pixels.to(tl.int64) * C
    d0 = tl.load(ring + before * frame + offsets, mask=inside, other=0.0).to(tl.float32)
    d1 = tl.load(ring + last * frame + offsets, mask=inside, other=0.0).to(tl.float32)
    d2 = prepare(x, affine, inverse_smoothing, offsets, inside, c, C, ACTIVATES, APPROXIMATE, HAS_SMOOTHING)
    d3 = prepare(
        x + frame, affine + 4 * C, inverse_smoothing, offsets, inside, c, C, ACTIVATES, APPROXIMATE, HAS_SMOOTHING
    )  # fmt: skip
    dtype: tl.constexpr = ring.dtype.element_ty
    if HAS_EXPONENTS:
        e0 = tl.load(ring_exponents + before)
        e1 = tl.load(ring_exponents + last)
        e2 = frame_exponent(affine, c, limit * reach, exponent_floor, C)
        e3 = frame_exponent(affine + 4 * C, c, limit * reach, exponent_floor, C)
        # The difference of two activated values is hardly larger than the larger one, and 8-bit integers have no bit
        # to spare; floats have.
        shared = tl.maximum(tl.maximum(e0, e1), tl.maximum(e2, e3)) + (0 if INTEGER and ACTIVATES else 1)
        if tl.program_id(0) == 0:
            tl.store(ring_exponents + first, e2)
            tl.store(ring_exponents + second, e3)
            for i in tl.static_range(4):
                tl.store(winograd_exponents + i, shared)
        d0 = d0 * tl.exp2(e0.to(tl.float32))
        d1 = d1 * tl.exp2(e1.to(tl.float32))
        r2 = quantize(d2, e2, limit, INTEGER)
        r3 = quantize(d3, e3, limit, INTEGER)
        s0 = quantize(d0 - d2, shared, limit, INTEGER)
        s1 = quantize(0.5 * (d1 + d2), shared, limit, INTEGER)
        s2 = quantize(0.5 * (d2 - d1), shared, limit, INTEGER)
        s3 = quantize(d3 - d1, shared, limit, INTEGER)
    else:
        r2, r3 = d2, d3
        s0, s1, s2, s3 = d0 - d2, 0.5 * (d1 + d2), 0.5 * (d2 - d1), d3 - d1
    tl.store(ring + first * frame + offsets, r2.to(dtype), mask=inside)
    tl.store(ring + second * frame + offsets, r3.to(dtype), mask=inside)
    tl.store(winograd + offsets, s0.to(dtype), mask=inside)
    tl.store(winograd + frame + offsets, s1.to(dtype), mask=inside)
    tl.store(winograd + 2 * frame + offsets, s2.to(dtype), mask=inside)
    tl.store(winograd + 3 * frame + offsets, s3.to(dtype), mask=inside)


def combine(partials: Tensor, counts: Tensor, combined: Tensor) -> None:
    """Merge the tiles of each frame into at most `CHUNKS` parts. Reference: `reference.combine`.

    partials (T, tiles, 2 or 4, C) and counts (tiles,) -> combined (T, chunks, 4, C), chunks = ceil(tiles / per chunk).
    """
    frames, tiles, rows, channels = partials.shape
    block_tiles, block = _COMBINE[0], min(channels, _COMBINE[1])
    launch(
        combine_kernel, (frames, combined.shape[1], channels // block),
        partials, counts, combined, tiles, tiles_per_chunk(tiles),
        C=channels, BLOCK_C=block, TILES=block_tiles, ROWS=rows, num_warps=4,
    )  # fmt: skip


def finish_statistics(combined: Tensor, counts: Tensor, operands: NormOperands, spec: NormSpec, affine: Tensor) -> None:
    """Turn combined statistics into each channel's affine map and the largest magnitude that follows from it.

    combined (T, chunks, 4, C), counts (chunks,) -> affine (T, 4, C) float32: center, gain, offset and bound, for
    y = (x - center) * gain + offset, |silu(y) * inverse smoothing| <= bound.
    Reference: `reference.finish_statistics`.
    """
    frames, chunks, _, channels = combined.shape
    block_chunks, block = _FINISH
    block = min(channels, max(block, channels // spec.groups))
    launch(
        finish_kernel, (frames, channels // block),
        combined, counts, operands.weight, operands.bias, operands.inverse_smoothing, affine, chunks, spec.eps,
        C=channels, GROUPS=spec.groups, BLOCK_C=block, TILES=block_chunks,
        NORMALISES=spec.normalises, ACTIVATES=spec.activates,
        HAS_SMOOTHING=operands.inverse_smoothing is not None, num_warps=4,
    )  # fmt: skip


def normalize(x: Tensor, affine: Tensor, operands: NormOperands, spec: NormSpec, target: FrameTarget) -> None:
    """Normalise, activate and quantise x (T, H, W, C), 16-bit, into the target, and note its frames' exponents.

    Reference: `reference.normalize`.
    """
    frames, height, width, channels = x.shape
    pixels = _ELEMENTS // channels
    has_exponents = target.exponents is not None
    launch(
        normalize_kernel, (triton.cdiv(height * width, pixels), frames),
        x, affine, operands.inverse_smoothing, target.frames, target.exponents, target.slots, height * width,
        spec.limit, spec.reach, spec.exponent_floor, C=channels, PIXELS=pixels, ACTIVATES=spec.activates,
        # The interpreter has no inline assembly.
        APPROXIMATE=has_exponents and not triton.knobs.runtime.interpret,
        HAS_SMOOTHING=operands.inverse_smoothing is not None, HAS_EXPONENTS=has_exponents,
        INTEGER=target.frames.dtype == torch.int8, num_warps=4,
    )  # fmt: skip


def normalize_pair(
    x: Tensor, affine: Tensor, operands: NormOperands, spec: NormSpec, target: FrameTarget, winograd: FrameTarget
) -> None:
    """Prepare two frames x (2, H, W, C), 16-bit, for a paired convolution.

    target: the ring; its slots are those of the two frames before x (read) and of x (written). winograd: (4, H, W, C),
    the inputs of `operands.WINOGRAD_INPUTS`, of one exponent. Reference: `reference.normalize_pair`.
    """
    _, height, width, channels = x.shape
    pixels = _PAIR_ELEMENTS // channels
    has_exponents = target.exponents is not None
    launch(
        normalize_pair_kernel, (triton.cdiv(height * width, pixels),),
        x, affine, operands.inverse_smoothing, target.frames, target.exponents, winograd.frames, winograd.exponents,
        target.slots, height * width, spec.limit, spec.reach, spec.exponent_floor,
        C=channels, PIXELS=pixels, ACTIVATES=spec.activates,
        APPROXIMATE=has_exponents and not triton.knobs.runtime.interpret,
        HAS_SMOOTHING=operands.inverse_smoothing is not None, HAS_EXPONENTS=has_exponents,
        INTEGER=target.frames.dtype == torch.int8, num_warps=4,
    )  # fmt: skip
