"""The transformer's kernels, compiled for a GPU that is not here."""

from collections.abc import Iterator

from seedvr2_engine.kernels.architectures import ARCHITECTURES
from seedvr2_engine.kernels.configs import MatrixFormat, ProductConfig
from seedvr2_engine.kernels.tokens import gates, joint, product, product_blocks, rows
from seedvr2_engine.quant.block_scaled import BLOCKS

from .compiler import CompileReport, compile_kernel

_F32 = dict.fromkeys(
    ("gate_video", "gate_text", "scale_video", "scale_text", "shift_video", "shift_text", "cos", "sin"), "*fp32"
)
_INDEX = dict.fromkeys(("order", "rows", "video_places", "text_places"), "*i64")
_COUNTS = dict.fromkeys(("video_rows", "count", "windows", "text_tokens"), "i32")


def compile_tokens(width: int, heads: int, mlp_width: int, sm: str) -> Iterator[tuple[str, CompileReport]]:
    """Compile every pass of a transformer in BF16 with heads of 128 channels: name and what it needs."""
    flags = dict.fromkeys(("ADDS", "REORDERS", "KEEPS", "GIVES", "NORMALISES", "AHEAD"), True)
    head, tail = rows.halves(width)
    step = {"WIDTH": width, "HEAD": head, "TAIL": tail, "ROWS": gates.STEP_ROWS, "LIMIT": 0, "BLOCK": 0, **flags}
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
        if name == "step":
            types["out_scale"] = types["out_blocks"] = None
        yield name, compile_kernel(kernel, types, constants, (warps, 3), sm)
    for format, config in ARCHITECTURES[sm].matrices.items():
        yield from _in_8_bits(width, mlp_width, format, config, sm)


def _in_8_bits(
    width: int, mlp_width: int, format: MatrixFormat, config: ProductConfig | None, sm: str
) -> Iterator[tuple[str, CompileReport]]:
    """The passes that give 8 bits, and the products where they are ours."""
    number, limit = ("*i8", 127) if format == "int8" else ("*u8" if format == "nvfp4" else "*fp8e4nv", 448)
    block = BLOCKS.get(format, 0)
    scales = "*u8" if block else None
    head, tail = rows.halves(width)
    flags = dict.fromkeys(("ADDS", "REORDERS", "KEEPS", "GIVES", "NORMALISES", "AHEAD"), True)
    step = {
        "WIDTH": width,
        "HEAD": head,
        "TAIL": tail,
        "ROWS": gates.STEP_ROWS,
        "LIMIT": limit,
        "BLOCK": block,
        **flags,
    }
    others = [argument for argument in gates.step_tokens_kernel.arg_names if argument not in step]
    types: dict[str, str | None] = dict.fromkeys(others, "*bf16")
    types |= {key: kind for key, kind in (_F32 | _INDEX | _COUNTS | {"eps": "fp32"}).items() if key in types}
    types |= {"rows": "i32", "out": number, "out_scale": "*fp32", "out_blocks": scales}
    yield f"step, {format}", compile_kernel(gates.step_tokens_kernel, types, step, (gates.STEP_WARPS, 3), sm)
    for activation, columns in (("none", width), ("gated silu", mlp_width), ("gelu", mlp_width)):
        head, tail = rows.halves(columns)
        constants = {
            "WIDTH": columns,
            "HEAD": head,
            "TAIL": tail,
            "STRIDE": columns * (2 if activation == "gated silu" else 1),
            "LIMIT": limit,
            "BLOCK": block,
            "ACTIVATION": activation,
        }
        operands = {"x": "*bf16", "out": number, "scales": "*fp32", "blocks": scales}
        yield (
            f"rows, {activation}, {format}",
            compile_kernel(rows.quantize_rows_kernel, operands, constants, (rows.WARPS, 3), sm),
        )
    if config is None:
        return
    kernel = product_blocks.product_blocks_kernel if block else product.product_kernel
    for adds in (False, True):
        constants = {
            "DEPTH": width,
            "BLOCK_M": config.block_m,
            "BLOCK_N": config.block_n,
            "BLOCK_K": config.block_k,
            "GROUP": config.group,
            **({"FP4": format == "nvfp4"} if block else {"INTEGER": format == "int8"}),
            "ADDS": adds,
            "TMA": config.uses_tma,
        }
        kind = number.removeprefix("*")
        depth = config.block_k // (2 if format == "nvfp4" else 1)
        descriptors = [f"tensordesc<{kind}[{tile},{depth}]>" for tile in (config.block_m, config.block_n)]
        operands = {
            "x": descriptors[0] if config.uses_tma else number,
            "w": descriptors[1] if config.uses_tma else number,
            **({"x_blocks": scales, "w_blocks": scales} if block else {}),
            "x_scale": "*fp32",
            "w_scale": "*fp32",
            "bias": "*bf16" if adds else None,
            "out": "*bf16",
            "rows": "i32",
            "columns": "i32",
        }
        yield (
            f"product{', bias' if adds else ''}, {format}",
            compile_kernel(kernel, operands, constants, (config.warps, config.stages), sm),
        )
