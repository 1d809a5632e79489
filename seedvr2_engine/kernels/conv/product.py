"""The product of a convolution's tile: its depth runs over taps and input channels.

Each step reads the tile of the input shifted by one tap; positions outside the frame read as zero. Shapes in the
comments: M = BLOCK_H * BLOCK_W, N, K.
"""

import triton
import triton.language as tl


@triton.jit
def load_window(
    x, frame, row, column, kh, kw, c, H, W,
    CI: tl.constexpr, STRIDE: tl.constexpr,
    BLOCK_H: tl.constexpr, BLOCK_W: tl.constexpr, BLOCK_K: tl.constexpr, TMA: tl.constexpr,
):  # fmt: skip
    """[M, K]: the input pixels that tap (kh, kw) shows to the tile whose first output pixel is (row, column)."""
    if TMA:
        if STRIDE == 2:
            # The frame is described as row pair, row parity, column pair, then column parity with the channels.
            block = x.load([frame, row + kh // 2, kh % 2, column + kw // 2, (kw % 2) * CI + c])
        else:
            block = x.load([frame, row + kh, column + kw, c])
        block = block.reshape(BLOCK_H * BLOCK_W, BLOCK_K)
    else:
        m = tl.arange(0, BLOCK_H * BLOCK_W)
        h = (row + m // BLOCK_W) * STRIDE + kh
        w = (column + m % BLOCK_W) * STRIDE + kw
        inside = (h >= 0) & (h < H) & (w >= 0) & (w < W)
        offsets = ((h * W + w) * CI)[:, None] + (c + tl.arange(0, BLOCK_K))[None, :]
        zeros = tl.zeros((BLOCK_H * BLOCK_W, BLOCK_K), dtype=x.dtype.element_ty)
        block = tl.load(x + frame.to(tl.int64) * H * W * CI + offsets, mask=inside[:, None], other=zeros)
    return block


@triton.jit
def load_matrix(w, row, column, STRIDE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, TMA: tl.constexpr):
    """[ROWS, COLUMNS] of a row-major matrix whose rows are STRIDE elements apart."""
    if TMA:
        block = w.load([row, column])
    else:
        offsets = (row + tl.arange(0, ROWS))[:, None] * STRIDE + tl.arange(0, COLUMNS)[None, :]
        block = tl.load(w + column + offsets)
    return block


@triton.jit
def pick(values, index):
    """values[index] of three scalars."""
    return tl.where(index == 0, values[0], tl.where(index == 1, values[1], values[2]))


@triton.jit
def accumulate_step(
    acc, step, x, w, frame, exponent, row, column, weight_row, H, W, CONV: tl.constexpr, CUT: tl.constexpr
):  # fmt: skip
    """Add one step of the product's depth, seen in `frame`, to `acc` [M, N], or [N, M] if transposed."""
    BLOCK_K: tl.constexpr = CUT.BLOCK_K
    CHUNKS: tl.constexpr = CONV.CI // BLOCK_K
    DEPTH: tl.constexpr = CONV.KT * CONV.KH * CONV.KW * CONV.CI
    tap = step // CHUNKS
    kh = tap % (CONV.KH * CONV.KW) // CONV.KW
    kw = tap % CONV.KW
    c = (step % CHUNKS) * BLOCK_K
    a = load_window(
        x, frame, row, column, kh, kw, c, H, W, CONV.CI, CONV.STRIDE, CUT.BLOCK_H, CUT.BLOCK_W, BLOCK_K, CUT.TMA
    )  # fmt: skip
    b = load_matrix(w, weight_row, step * BLOCK_K, DEPTH, CUT.BLOCK_N, BLOCK_K, CUT.TMA)
    if CONV.SCALED:
        # E8M0: the byte 127 is a scale of one.
        a_scale = tl.full((CUT.BLOCK_H * CUT.BLOCK_W, BLOCK_K // 32), 127, tl.int32) + exponent
        b_scale = tl.full((CUT.BLOCK_N, BLOCK_K // 32), 127, tl.uint8)
        acc = tl.dot_scaled(a, a_scale.to(tl.uint8), "e4m3", b.T, b_scale, "e4m3", acc)
    elif CUT.TRANSPOSED:
        acc = tl.dot(b, a.T, acc, out_dtype=acc.dtype)
    else:
        acc = tl.dot(a, b.T, acc, out_dtype=acc.dtype)
    return acc


@triton.jit
def accumulate(
    acc, begin, end, x, w, frames, exponents, row, column, weight_row, H, W, CONV: tl.constexpr, CUT: tl.constexpr
):  # fmt: skip
    """Add steps `begin` to `end` of the product's depth to `acc`."""
    STEPS: tl.constexpr = CONV.KH * CONV.KW * CONV.CI // CUT.BLOCK_K
    for step in range(begin, end):
        kt = step // STEPS
        acc = accumulate_step(
            acc, step, x, w, pick(frames, kt), pick(exponents, kt), row, column, weight_row, H, W, CONV, CUT
        )  # fmt: skip
    return acc


@triton.jit
def accumulate_mixed(
    acc, x, w, frames, exponents, row, column, weight_row, H, W, CONV: tl.constexpr, CUT: tl.constexpr
):  # fmt: skip
    """The whole product where the window's frames have different exponents; returns it and its own exponent.

    Frames are taken in the order of rising exponents, so that what is summed so far only ever shrinks and no
    integer can overflow.
    """
    KT: tl.constexpr = CONV.KT
    STEPS: tl.constexpr = CONV.KH * CONV.KW * CONV.CI // CUT.BLOCK_K
    e0, e1, e2 = exponents
    # With two temporal taps the third exponent repeats the second.
    rank0 = (e1 < e0).to(tl.int32) + ((e2 < e0) & (KT > 2)).to(tl.int32)
    rank1 = (e0 <= e1).to(tl.int32) + (e2 < e1).to(tl.int32)
    last = tl.minimum(e0, tl.minimum(e1, e2))
    for rank in range(KT):
        kt = tl.where(rank0 == rank, 0, tl.where(rank1 == rank, 1, KT - 1))
        exponent = pick(exponents, kt)
        if acc.dtype.is_int():
            acc = acc >> tl.minimum(exponent - last, 31)
        else:
            acc = acc * tl.exp2((last - exponent).to(tl.float32))
        last = exponent
        acc = accumulate(
            acc, kt * STEPS, (kt + 1) * STEPS, x, w, frames, exponents, row, column, weight_row, H, W, CONV, CUT
        )  # fmt: skip
    return acc, last
