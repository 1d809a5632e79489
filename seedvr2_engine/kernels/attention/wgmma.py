"""What attention does with the registers of Hopper's `wgmma`, where Triton has no words for it.

A thread holds of a product's sums pairs of two rows in turn: columns 2q and 2q + 1 of every 8, q being its place among
four, of row r and then of row r + 8. Of an 8-bit first operand it must hand over columns 4q to 4q + 3 of every 16.
COMPILED is false in the interpreter, which has no assembly: the same is then computed without.
"""

import triton
import triton.language as tl

HELD = 64
"""Sums of a thread that `rescale` takes at once; a thread must hold a multiple of that."""
_FACTORS = 2 * HELD
_OF_BOTH_ROWS = _FACTORS, _FACTORS + 2
RESCALE = tl.constexpr(
    "{ .reg .pred moved, other;"
    + " setp.neu.f32 moved, ${}, 0f3F800000; setp.neu.f32 other, ${}, 0f3F800000;".format(*_OF_BOTH_ROWS)
    + " or.pred moved, moved, other; vote.sync.any.pred moved, moved, 0xffffffff; @!moved bra same;"
    + "".join(f" mul.rn.f32 ${i}, ${i}, ${_OF_BOTH_ROWS[i % 4 // 2]};" for i in range(HELD))
    + " same: }"
)
RESCALE_OPERANDS = tl.constexpr(",".join(["=r"] * HELD + [str(i) for i in range(HELD)] + ["r"] * HELD))


@triton.jit
def finished(product):
    """The same numbers, where Triton has to wait for the product.

    Otherwise a product runs on into the loop's next turn, where ptxas cannot tell its registers from those that the
    next one starts with, and waits for every single `wgmma` (its message C7515).
    """
    return tl.inline_asm_elementwise("mov.b32 $0, $1;", "=r,r", [product], dtype=tl.float32, is_pure=True, pack=1)


@triton.jit
def rescale(acc, rescaling, COMPILED: tl.constexpr):
    """acc [M, V] times rescaling [M]: a warp multiplies only where one of its factors is not 1."""
    if COMPILED:
        factors = tl.broadcast_to(rescaling[:, None], acc.shape)
        acc = tl.inline_asm_elementwise(
            RESCALE, RESCALE_OPERANDS, [acc, factors], dtype=tl.float32, is_pure=True, pack=64
        )
    else:
        acc = acc * rescaling[:, None]
    return acc


@triton.jit
def pack_e4m3(p, COMPILED: tl.constexpr):
    """FP32 -> E4M3, four in the first of four integers, which a loop carries as they are; bytes it carries apart."""
    if COMPILED:
        packed = tl.inline_asm_elementwise(
            "{ .reg .b16 low, high; cvt.rn.satfinite.e4m3x2.f32 low, $5, $4;"
            " cvt.rn.satfinite.e4m3x2.f32 high, $7, $6; mov.b32 $0, {low, high};"
            " mov.b32 $1, 0; mov.b32 $2, 0; mov.b32 $3, 0; }",
            "=r,=r,=r,=r,r,r,r,r", [p], dtype=tl.int32, is_pure=True, pack=4,
        )  # fmt: skip
    else:
        packed = p.to(tl.float8e4nv)
    return packed


@triton.jit
def unpack_e4m3(packed, COMPILED: tl.constexpr):
    """What `pack_e4m3` packed, E4M3, in registers of its own: a product reads those on into the next turn."""
    if COMPILED:
        p = tl.inline_asm_elementwise(
            "mov.b32 $0, $1;", "=r,r,r,r,r", [packed], dtype=tl.float8e4nv, is_pure=True, pack=4
        )
    else:
        p = packed
    return p


@triton.jit
def in_value_order(p, M: tl.constexpr, N: tl.constexpr):
    """[M, N] with its columns in `layout.value_order`: what a thread has is what it must hand over."""
    return p.reshape(M, N // 16, 2, 4, 2).permute(0, 1, 3, 2, 4).reshape(M, N)


@triton.jit
def token_at(place):
    """The token whose values stand at a place in `layout.value_order`."""
    return place // 16 * 16 + place % 4 // 2 * 8 + place % 16 // 4 * 2 + place % 2
