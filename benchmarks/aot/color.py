"""The colour kernels, compiled for a GPU that is not here."""

from collections.abc import Iterator
from typing import Any

from seedvr2_engine.kernels.color import correction
from seedvr2_engine.kernels.color.operands import LabMatching

from .compiler import CompileReport, compile_kernel

_SIZES = ("H", "W", "radius", "pixels", "x_channel", "x_row", "content_channel", "content_row")
_STRIDES = ("channel_stride", "row_stride")


def compile_color(matching: LabMatching, sm: str) -> Iterator[tuple[str, CompileReport]]:
    """Compile every step for contents in FP16 whose columns are adjacent: name and what it needs."""
    tile = {"ROWS": correction.ROWS, "COLUMNS": correction.COLUMNS}
    space = {
        "TO_XYZ": matching.to_xyz,
        "KNEE": matching.knee,
        "SLOPE": matching.slope,
        "RANGES": matching.ranges,
        "LEVELS": matching.levels,
    }
    match = {
        "FROM_XYZ": matching.from_xyz,
        "SHARE": matching.lightness_share,
        "BLOCK": correction.ROWS * correction.COLUMNS,
    }
    adjacent = {"x_column": 1, "content_column": 1}
    kernels: dict[str, tuple[Any, dict[str, Any]]] = {
        "first blur": (correction.blur_kernel, {"SUBTRACTS": True, "FINISHES": False} | adjacent | tile),
        "blur": (correction.blur_kernel, {"SUBTRACTS": False, "FINISHES": False} | adjacent | tile),
        "last blur": (correction.blur_kernel, {"SUBTRACTS": False, "FINISHES": True} | adjacent | tile),
        "count": (correction.count_lab_kernel, {"column_stride": 1} | space | tile),
        "match": (correction.match_lab_kernel, space | match),
    }
    for name, (kernel, constants) in kernels.items():
        others = [argument for argument in kernel.arg_names if argument not in constants]
        types: dict[str, str | None] = dict.fromkeys(others, "*fp32")
        types |= {key: "i32" for key in (*_SIZES, *_STRIDES) if key in types}
        types |= {key: kind for key, kind in {"content": "*fp16", "counts": "*i32"}.items() if key in types}
        yield name, compile_kernel(kernel, types, constants, (correction.WARPS, 3), sm, fuses=False)
