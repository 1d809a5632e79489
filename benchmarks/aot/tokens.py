"""The transformer's kernels, compiled for a GPU that is not here."""

from collections.abc import Iterator

from seedvr2_engine.kernels.tokens import gates, joint

from .compiler import CompileReport, compile_kernel

_F32 = dict.fromkeys(
    ("gate_video", "gate_text", "scale_video", "scale_text", "shift_video", "shift_text", "cos", "sin"), "*fp32"
)
_INDEX = dict.fromkeys(("order", "rows", "video_places", "text_places"), "*i64")
_COUNTS = dict.fromkeys(("video_rows", "count", "windows", "text_tokens"), "i32")


def compile_tokens(width: int, heads: int, mlp_width: int, sm: str) -> Iterator[tuple[str, CompileReport]]:
    """Compile every pass of a transformer in BF16 with heads of 128 channels: name and what it needs."""
    flags = dict.fromkeys(("ADDS", "REORDERS", "KEEPS", "GIVES", "NORMALISES"), True)
    head, tail = gates.halves(width)
    step = {"WIDTH": width, "HEAD": head, "TAIL": tail, "ROWS": gates.STEP_ROWS, **flags}
    silu = {"WIDTH": mlp_width, "ROWS": gates.SILU_ROWS, "COLUMNS": gates.SILU_COLUMNS}
    join = {
        "HEADS": heads,
        "PAIRS": 64,
        "TOKENS": joint.JOIN_TOKENS,
        "GROUP": 4,
        "ASKS": True,
        "ANSWERS": True,
        "GATHERS": True,
    }
    collect = {"WIDTH": heads * 128, "ROWS": joint.COPY_ROWS, "COLUMNS": joint.COPY_COLUMNS}
    kernels = {
        "step": (gates.step_tokens_kernel, step, gates.STEP_WARPS),
        "gate": (gates.gate_silu_kernel, silu, gates.SILU_WARPS),
        "join": (joint.join_parts_kernel, join, joint.JOIN_WARPS),
        "collect": (joint.collect_rows_kernel, collect, joint.COPY_WARPS),
    }
    for name, (kernel, constants, warps) in kernels.items():
        others = [argument for argument in kernel.arg_names if argument not in constants]
        types: dict[str, str | None] = dict.fromkeys(others, "*bf16")
        types |= {key: kind for key, kind in (_F32 | _INDEX | _COUNTS | {"eps": "fp32"}).items() if key in types}
        if name in ("step", "gate"):
            types["rows"] = "i32"
        yield name, compile_kernel(kernel, types, constants, (warps, 3), sm)
