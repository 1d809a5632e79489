"""The end of a convolution's tile: bias, residual, store, and statistics for the next GroupNorm.

The statistics need no atomics and cannot cancel: each tile leaves mean and M2, which are combined in a fixed order.
"""

import triton
import triton.language as tl


@triton.jit
def add_pairs(a, b, c, d):
    """The sums of two pairs."""
    return a + c, b + d


@triton.jit
def store_partials(
    partials, value, inside, n,
    CO: tl.constexpr, WHOLE: tl.constexpr, ROWS: tl.constexpr, TRANSPOSED: tl.constexpr,
):  # fmt: skip
    """Write mean and M2, and with 4 ROWS minimum and maximum, over the pixels of `value` that are `inside` [M].

    One pass: the squares of one tile's values in FP32 lose to cancellation no more than these values lose by being
    stored in 16 bits. Between tiles, nothing is subtracted that could cancel.
    """
    PIXELS: tl.constexpr = 1 if TRANSPOSED else 0
    mask = tl.expand_dims(inside, 1 - PIXELS)
    if WHOLE:
        count = value.shape[PIXELS] * 1.0
        counted = value
    else:
        count = tl.sum(inside.to(tl.float32), axis=0)
        counted = tl.where(mask, value, 0.0)
    total, squares = tl.reduce((counted, counted * counted), PIXELS, add_pairs)
    mean = total / count
    tl.store(partials + n, mean)
    tl.store(partials + CO + n, tl.maximum(squares - mean * total, 0.0))
    if ROWS == 4:
        tl.store(partials + 2 * CO + n, tl.min(tl.where(mask, value, float("inf")), axis=PIXELS))
        tl.store(partials + 3 * CO + n, tl.max(tl.where(mask, value, float("-inf")), axis=PIXELS))


@triton.jit
def halves(value):
    """[M, N] -> its left and right [M, N / 2]."""
    M: tl.constexpr = value.shape[0]
    N: tl.constexpr = value.shape[1]
    return tl.split(tl.permute(tl.reshape(value, (M, 2, N // 2)), (0, 2, 1)))


@triton.jit
def finish(
    value, tile, kernel_set, first_channel, y, partials, bias, residual, GRID_H, GRID_W,
    SPLITS: tl.constexpr, CONV: tl.constexpr, CUT: tl.constexpr,
):  # fmt: skip
    """Finish a tile in `SPLITS` parts of its channels, so that no more than a part is held twice."""
    if SPLITS > 1:
        N: tl.constexpr = value.shape[1]
        left, right = halves(value)
        finish(
            left, tile, kernel_set, first_channel, y, partials, bias, residual, GRID_H, GRID_W,
            SPLITS // 2, CONV, CUT,
        )  # fmt: skip
        finish(
            right, tile, kernel_set, first_channel + N // 2, y, partials, bias, residual, GRID_H, GRID_W,
            SPLITS // 2, CONV, CUT,
        )  # fmt: skip
    else:
        finish_part(
            value, tile, kernel_set, first_channel, y, partials, bias, residual, GRID_H, GRID_W, CONV, CUT
        )  # fmt: skip


@triton.jit
def finish_part(
    value, tile, kernel_set, first_channel, y, partials, bias, residual, GRID_H, GRID_W,
    CONV: tl.constexpr, CUT: tl.constexpr,
):  # fmt: skip
    """Bias, residual, store and statistics of `value` [M, N], or [N, M] if transposed, from `first_channel` on.

    With descriptors the residual comes through one, straight into the registers that add it.
    """
    CO: tl.constexpr = CONV.CO
    PHASES: tl.constexpr = CONV.PHASES
    STATISTIC_ROWS: tl.constexpr = CONV.STATISTIC_ROWS
    BLOCK_H: tl.constexpr = CUT.BLOCK_H
    BLOCK_W: tl.constexpr = CUT.BLOCK_W
    TRANSPOSED: tl.constexpr = CUT.TRANSPOSED
    WHOLE: tl.constexpr = CUT.WHOLE
    # The axis along which a vector of channels, or of pixels, is repeated.
    BY_CHANNEL: tl.constexpr = 1 if TRANSPOSED else 0
    BY_PIXEL: tl.constexpr = 1 - BY_CHANNEL
    N: tl.constexpr = value.shape[BY_PIXEL]
    t, phase, tile_h, tile_w = tile
    n = first_channel + tl.arange(0, N)
    m = tl.arange(0, BLOCK_H * BLOCK_W)
    h = tile_h + m // BLOCK_W
    w = tile_w + m % BLOCK_W
    inside = (h < GRID_H) & (w < GRID_W)
    if PHASES == 4:
        # Outside the image the learned 1x1x1 upsampling has no bias, which the border row and column feel.
        phase_h = phase // 2
        phase_w = phase % 2
        borders = bias + kernel_set * 4 * CO + n
        border_row = tl.where(phase_h == 0, 0, GRID_H - 1)
        at_column = tl.expand_dims((w == tl.where(phase_w == 0, 0, GRID_W - 1)).to(tl.float32), BY_PIXEL)
        if BLOCK_H == 1:
            at_row = (tile_h == border_row).to(tl.float32)
            value += tl.expand_dims(tl.load(borders) + at_row * tl.load(borders + CO), BY_CHANNEL)
            column_bias = tl.load(borders + 2 * CO) + at_row * tl.load(borders + 3 * CO)
            value += at_column * tl.expand_dims(column_bias, BY_CHANNEL)
        else:
            at_row = tl.expand_dims((h == border_row).to(tl.float32), BY_PIXEL)
            value += tl.expand_dims(tl.load(borders), BY_CHANNEL)
            value += at_row * tl.expand_dims(tl.load(borders + CO), BY_CHANNEL)
            value += at_column * tl.expand_dims(tl.load(borders + 2 * CO), BY_CHANNEL)
            value += at_row * at_column * tl.expand_dims(tl.load(borders + 3 * CO), BY_CHANNEL)
        pixel = (2 * h + phase_h) * 2 * GRID_W + 2 * w + phase_w
    else:
        value += tl.expand_dims(tl.load(bias + kernel_set * CO + n), BY_CHANNEL)
        pixel = h * GRID_W + w
    frame = t.to(tl.int64) * PHASES * GRID_H * GRID_W * CO
    offsets = tl.expand_dims(pixel, BY_PIXEL) * CO + tl.expand_dims(n, BY_CHANNEL)
    mask = tl.expand_dims(inside, BY_PIXEL)
    if CONV.HAS_RESIDUAL:
        if CUT.TMA and PHASES == 1:
            block = residual.load([t.to(tl.int32), tile_h, tile_w, first_channel]).reshape(BLOCK_H * BLOCK_W, N)
            if TRANSPOSED:
                block = block.T
            value += block.to(tl.float32)
        elif WHOLE:
            value += tl.load(residual + frame + offsets).to(tl.float32)
        else:
            value += tl.load(residual + frame + offsets, mask=mask, other=0.0).to(tl.float32)
    stored = value.to(y.dtype.element_ty)
    if WHOLE:
        tl.store(y + frame + offsets, stored)
    else:
        tl.store(y + frame + offsets, stored, mask=mask)
    if STATISTIC_ROWS > 0:
        tiles_w = tl.cdiv(GRID_W, BLOCK_W)
        tiles_h = tl.cdiv(GRID_H, BLOCK_H)
        index = (phase * tiles_h + tile_h // BLOCK_H) * tiles_w + tile_w // BLOCK_W
        first = (t.to(tl.int64) * PHASES * tiles_h * tiles_w + index) * STATISTIC_ROWS * CO
        # The sums are of the values before rounding: that saves a conversion, and they are truer.
        store_partials(partials + first, value, inside, n, CO, WHOLE, STATISTIC_ROWS, TRANSPOSED)
