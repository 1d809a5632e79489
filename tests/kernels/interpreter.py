"""Corrections to Triton 3.6's interpreter, which would otherwise not compute what a GPU does.

Its conversion to FP8 and BF16 loses the carry when rounding reaches the next power of two (31 becomes 16 in E4M3), it
multiplies BF16 operands as the integers that hold them, and it has no block-scaled product.
"""

from typing import Any

import numpy as np
import torch
import triton.language as tl
from triton.language.semantic import TritonSemantic
from triton.runtime import interpreter

_TORCH = {
    tl.float32: torch.float32,
    tl.float16: torch.float16,
    tl.bfloat16: torch.bfloat16,
    tl.float8e4nv: torch.float8_e4m3fn,
}
_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32}


def correct_interpreter() -> None:
    """Patch the interpreter, once for the process."""
    interpreter._convert_float = _convert
    builder = interpreter.InterpreterBuilder
    builder.create_dot = _dot
    TritonSemantic.dot_scaled = _dot_scaled


def _convert(data: np.ndarray, source: Any, target: Any, _rounding: Any) -> np.ndarray:
    bits = torch.from_numpy(np.ascontiguousarray(data).view(f"i{data.itemsize}" if data.itemsize > 1 else "u1"))
    values = bits.view(_TORCH[source]).float()
    converted = values.to(_TORCH[target])
    width = converted.element_size()
    return converted.view(_BITS[width]).numpy().view(f"u{width}").reshape(data.shape)


def _float(handle: Any) -> np.ndarray:
    if handle.dtype.scalar in (tl.float16, tl.float32):
        return handle.data.astype(np.float32)
    return _convert(handle.data, handle.dtype.scalar, tl.float32, None).view(np.float32)


def _dot(_self: Any, a: Any, b: Any, d: Any, _precision: Any, _imprecise: Any) -> Any:
    if a.dtype.scalar.is_int():
        product = a.data.astype(np.int32) @ b.data.astype(np.int32)
    else:
        product = _float(a) @ _float(b)
    return interpreter.TensorHandle(product + d.data, d.dtype.scalar)


def _dot_scaled(
    _self: Any, a: Any, a_scale: Any, a_format: str, b: Any, b_scale: Any, b_format: str, acc: Any, *_rest: Any
) -> Any:
    """Products of E4M3 blocks of 32 with E8M0 scales, or of E2M1 blocks of 16 with E4M3 scales."""
    left = _scaled(a.handle, a_scale.handle, a_format, packed_axis=1)
    right = _scaled(b.handle, b_scale.handle, b_format, packed_axis=0).T
    return tl.tensor(interpreter.TensorHandle(left @ right + acc.handle.data, tl.float32), acc.type)


def _scaled(data: Any, scale: Any, format: str, packed_axis: int) -> np.ndarray:
    """(rows, depth), rows as the scales have them."""
    rows = data.data if packed_axis == 1 else data.data.T
    if format == "e4m3":
        handle = interpreter.TensorHandle(np.ascontiguousarray(rows), data.dtype.scalar)
        return _float(handle) * np.repeat(np.exp2(scale.data.astype(np.float32) - 127), 32, axis=1)
    # A matrix unit takes the low half of a byte first.
    codes = np.stack([rows & 15, rows >> 4], axis=2).reshape(len(rows), -1)
    values = np.array([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0], np.float32)[codes & 7] * np.where(
        codes & 8, np.float32(-1), np.float32(1)
    )
    return values * np.repeat(_float(scale), 16, axis=1)
