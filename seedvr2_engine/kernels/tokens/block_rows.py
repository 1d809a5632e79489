"""Rows of tokens in MXFP8 and NVFP4, a part of a row at a time; `quant.block_scaled` says what the numbers are."""

import triton
import triton.language as tl


@triton.jit
def store_mxfp8(value, out, blocks, first, mask, WIDTH: tl.constexpr, COUNT: tl.constexpr):
    """COUNT values of a row, `first` the first of them: E4M3, and an exponent for each 32."""
    groups = tl.reshape(value, (COUNT // 32, 32))
    largest = tl.max(tl.abs(groups), axis=1)
    # The least power of two that brings the largest value within 448: the quotient's exponent, one more if it is none.
    bits = tl.div_rn(largest, 448.0).to(tl.int32, bitcast=True)
    code = (bits >> 23) + ((bits & 0x7FFFFF) != 0).to(tl.int32)
    code = tl.where(largest > 0, tl.minimum(tl.maximum(code, 1), 254), 0)
    scale = tl.where(largest > 0, (code << 23).to(tl.float32, bitcast=True), 1.0)
    number = tl.minimum(tl.maximum(groups / scale[:, None], -448.0), 448.0)
    c = first + tl.arange(0, COUNT)
    tl.store(out + c, tl.reshape(number, (COUNT,)).to(tl.float8e4nv), mask=(c < WIDTH) & mask)
    b = first // 32 + tl.arange(0, COUNT // 32)
    tl.store(blocks + b, code.to(tl.uint8), mask=(b < WIDTH // 32) & mask)


@triton.jit
def nearest_e2m1(value):
    """The code of what is nearest, ties to the even one; beyond 6 that is 6."""
    size = tl.abs(value)
    code = (size > 0.25).to(tl.int32) + (size >= 0.75).to(tl.int32) + (size > 1.25).to(tl.int32)
    code += (size >= 1.75).to(tl.int32) + (size > 2.5).to(tl.int32) + (size >= 3.5).to(tl.int32)
    code += (size > 5.0).to(tl.int32)
    return tl.where(value.to(tl.int32, bitcast=True) < 0, code + 8, code)


@triton.jit
def store_nvfp4(value, row_scale, out, blocks, first, mask, WIDTH: tl.constexpr, COUNT: tl.constexpr):
    """The same: E2M1, two in a byte, and a scale in E4M3 for each 16."""
    groups = tl.reshape(value, (COUNT // 16, 16))
    largest = tl.max(tl.abs(groups), axis=1)
    block = tl.minimum(tl.div_rn(tl.div_rn(largest, 6.0), row_scale), 448.0).to(tl.float8e4nv)
    factor = (row_scale * block.to(tl.float32))[:, None]
    code = nearest_e2m1(tl.where(factor > 0, groups / factor, 0.0))
    high, low = tl.split(tl.reshape(code, (COUNT // 2, 2)))
    c = first // 2 + tl.arange(0, COUNT // 2)
    tl.store(out + c, (high << 4 | low).to(tl.uint8), mask=(c < WIDTH // 2) & mask)
    b = first // 16 + tl.arange(0, COUNT // 16)
    tl.store(blocks + b, block.to(tl.uint8, bitcast=True), mask=(b < WIDTH // 16) & mask)
