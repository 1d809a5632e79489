"""Corrections to Triton 3.6's interpreter, which would otherwise not compute what a GPU does, and take twice the time.

Its conversion to FP8 and BF16 loses the carry when rounding reaches the next power of two (31 becomes 16 in E4M3), it
multiplies BF16 operands as the integers that hold them, and it has no block-scaled product.

A third of its time goes into computing every sum and product of integers again in 64 bits, which says nothing for
tensors as small as the tests', and a fifth into looking the same tables up again.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
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
_NUMPY = {
    dtype.name: interpreter._get_np_dtype(dtype)
    for dtype in (
        tl.int1, tl.int8, tl.uint8, tl.int16, tl.uint16, tl.int32, tl.uint32, tl.int64, tl.uint64,
        tl.float8e5, tl.float8e5b16, tl.float8e4nv, tl.float8e4b8, tl.float8e4b15,
        tl.float16, tl.bfloat16, tl.float32, tl.float64,
    )
}  # fmt: skip
_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32}


def correct_interpreter() -> None:
    """Patch the interpreter, once for the process."""
    interpreter._convert_float = _convert
    builder = interpreter.InterpreterBuilder
    builder.create_dot = _dot
    TritonSemantic.dot_scaled = _dot_scaled
    interpreter.interpreter_builder.options = replace(interpreter.interpreter_builder.options, sanitize_overflow=False)
    interpreter._get_np_dtype = _numpy_dtype
    interpreter.InterpretedFunction.__call__ = _call


def _convert(data: np.ndarray, source: Any, target: Any, _rounding: Any) -> np.ndarray:
    bits = torch.from_numpy(np.ascontiguousarray(data).view(f"i{data.itemsize}" if data.itemsize > 1 else "u1"))
    values = bits.view(_TORCH[source]).float()
    converted = values.to(_TORCH[target])
    width = converted.element_size()
    return converted.view(_BITS[width]).numpy().view(f"u{width}").reshape(data.shape)


def _numpy_dtype(dtype: Any) -> np.dtype:
    """As the original, which builds its table at every call."""
    return np.dtype(np.uint64) if dtype.scalar.is_ptr() else _NUMPY[dtype.scalar.name]


def _call(self: Any, *args: Any, **kwargs: Any) -> Any:
    """A kernel calls another function; as the original, which replaces the language's functions again every time."""
    if any(tl.core.is_builtin(module.load) for module in _languages(self.fn)):
        interpreter._patch_lang(self.fn)
    try:
        return self.rewrite()(*args, **kwargs)
    except Exception as error:
        raise interpreter.InterpreterError(repr(error)) from error


@cache
def _languages(function: Callable[..., Any]) -> list[Any]:
    """Under which modules it knows Triton's language: the functions of `tl` itself know another one."""
    return [value for value in function.__globals__.values() if value is tl or value is tl.core]


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
