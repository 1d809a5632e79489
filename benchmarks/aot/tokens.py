"""The transformer's kernels, compiled for a GPU that is not here."""

from collections.abc import Iterator

from seedvr2_engine.kernels.architectures import ARCHITECTURES
from seedvr2_engine.kernels.attention import windows_8bit
from seedvr2_engine.kernels.configs import MatrixFormat, ProductConfig, WindowConfig
from seedvr2_engine.kernels.tokens import gates, joint, product_blocks, product_ends, rows
from seedvr2_engine.quant.block_scaled import BLOCKS

from .compiler import CompileReport, compile_kernel

_F32 = dict.fromkeys(
    ("gate_video", "gate_text", "scale_video", "scale_text", "shift_video", "shift_text", "cos", "sin"), "*fp32"
)
_INDEX = dict.fromkeys(("rows", "video_places", "text_places"), "*i64")
_COUNTS = dict.fromkeys(("video_rows", "count", "windows", "text_tokens"), "i32")


def compile_tokens(width: int, heads: int, mlp_width: int, sm: str) -> Iterator[tuple[str, CompileReport]]:
    """Compile every pass of a transformer in BF16 with heads of 128 channels: name and what it needs."""
    flags = dict.fromkeys(("ADDS", "KEEPS", "GIVES", "NORMALISES"), True)
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
    yield from compile_windows(heads, sm)
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
    flags = dict.fromkeys(("ADDS", "KEEPS", "GIVES", "NORMALISES"), True)
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
    if config is not None and block:
        for adds in (False, True):
            yield f"product{', bias' if adds else ''}, {format}", _block_product(width, format, config, adds, sm)
    elif config is not None:
        for kind in ("product", "product, bias"):
            yield f"{kind}, {format}", _product(width, format, config, kind, sm)
    for (name, end), cut in ARCHITECTURES[sm].ends.items():
        if name == format:
            yield f"product, {end}, {format}", _product(width, format, cut, f"product, {end}", sm)


def _product(width: int, format: MatrixFormat, config: ProductConfig, kind: str, sm: str) -> CompileReport:
    """A product of rows in 8 bits with what it ends with."""
    number = "i8" if format == "int8" else "fp8e4nv"
    sums, gated = kind == "product, sum", kind == "product, gate"
    adds = sums or kind == "product, bias"
    constants = {
        "DEPTH": width,
        "BLOCK_M": config.block_m,
        "BLOCK_N": config.block_n,
        "BLOCK_K": config.block_k,
        "GROUP": config.group,
        "INTEGER": format == "int8",
        "ADDS": adds,
        "SUMS": sums,
        "GATES": gated,
        "PARTS": config.parts,
        "STAYS": config.stays,
        "TMA": config.uses_tma,
    }
    operands: dict[str, str | None] = {"x": f"*{number}", "w": f"*{number}", "out": "*bf16"}
    if config.uses_tma:
        wide = config.block_n // (2 if gated else 1)
        operands["x"] = f"tensordesc<{number}[{config.block_m},{config.block_k}]>"
        operands["w"] = f"tensordesc<{number}[{'2,' if gated else ''}{wide},{config.block_k}]>"
        operands["out"] = f"tensordesc<bf16[{config.block_m},{wide // config.parts}]>"
    operands |= {"x_scale": "*fp32", "w_scale": "*fp32", "bias": "*bf16" if adds else None}
    operands |= {"tokens": "*bf16" if sums else None, **dict.fromkeys(("rows", "columns", "video_rows"), "i32")}
    operands |= dict.fromkeys(("gate_video", "gate_text"), "*fp32" if sums else None)
    launch = config.warps, config.stages
    return compile_kernel(product_ends.product_ends_kernel, operands, constants, launch, sm)


def _block_product(width: int, format: MatrixFormat, config: ProductConfig, adds: bool, sm: str) -> CompileReport:
    """A product in MXFP8 or NVFP4."""
    number = "u8" if format == "nvfp4" else "fp8e4nv"
    depth = config.block_k // (2 if format == "nvfp4" else 1)
    constants = {
        "DEPTH": width,
        "BLOCK_M": config.block_m,
        "BLOCK_N": config.block_n,
        "BLOCK_K": config.block_k,
        "GROUP": config.group,
        "FP4": format == "nvfp4",
        "ADDS": adds,
        "TMA": config.uses_tma,
    }
    descriptors = [f"tensordesc<{number}[{tile},{depth}]>" for tile in (config.block_m, config.block_n)]
    operands = {
        "x": descriptors[0] if config.uses_tma else f"*{number}",
        "w": descriptors[1] if config.uses_tma else f"*{number}",
        "x_blocks": "*u8",
        "w_blocks": "*u8",
        "x_scale": "*fp32",
        "w_scale": "*fp32",
        "bias": "*bf16" if adds else None,
        "out": "*bf16",
        "rows": "i32",
        "columns": "i32",
    }
    launch = config.warps, config.stages
    return compile_kernel(product_blocks.product_blocks_kernel, operands, constants, launch, sm)


def compile_windows(heads: int, sm: str) -> Iterator[tuple[str, CompileReport]]:
    """Attention inside windows in 8 bits, heads of 128 channels: what prepares its operands, and itself."""
    architecture = ARCHITECTURES[sm]
    # With 4 warps `mma.sync` spills 2 kB of registers.
    warps = 4 if sm == "sm_90" else 8
    config = WindowConfig(64, windows_8bit.BLOCK, warps=warps, stages=3, uses_tma=architecture.has_descriptors)
    for format in ("int8", "fp8"):
        # The values are E4M3 beside either.
        if format not in architecture.formats or "fp8" not in architecture.formats:
            continue
        number, limit = ("i8", 127) if format == "int8" else ("fp8e4nv", 448)
        scales = dict.fromkeys(("q_scale", "k_scale", "v_power"), "*fp32")
        types: dict[str, str | None] = {
            "q": f"*{number}",
            "k": f"*{number}",
            "v": "*fp8e4nv",
            **scales,
            "padded": "i32",
        }
        kernel = windows_8bit.join_8bit_kernel
        constants = {"HEADS": heads, "PAIRS": 64, "ROWS": windows_8bit.BLOCK, "LIMIT": limit}
        own: dict[str, str | None] = {name: "*bf16" for name in kernel.arg_names if name not in constants}
        own |= {name: kind for name, kind in (_F32 | _INDEX | _COUNTS).items() if name in own}
        own |= types | {"eps": "fp32", "scale_log2": "fp32"}
        yield f"join in 8 bits, {format}", compile_kernel(kernel, own, constants, (windows_8bit.PREPARE_WARPS, 3), sm)
        if config.uses_tma:
            types |= {"q": f"tensordesc<{number}[{config.block_m},128]>", "k": f"tensordesc<{number}[64,128]>"}
            types["v"] = "tensordesc<fp8e4nv[128,64]>"
        types |= {"work": "*i32", "places": "*i32", "out": "*bf16"}
        constants = windows_8bit.window_constants(128, heads, config, format == "int8")
        launch = config.warps, config.stages
        yield (
            f"windows in 8 bits, {format}",
            compile_kernel(windows_8bit.window_attention_8bit_kernel, types, constants, launch, sm),
        )
