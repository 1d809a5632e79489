"""Compile kernels for a GPU that is not here, and read from the result what they will need there."""

import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from seedvr2_engine.kernels.attention.eight_bit import attention_8bit_kernel, attention_constants
from seedvr2_engine.kernels.attention.flash import attention_kernel
from seedvr2_engine.kernels.configs import AttentionConfig, ConvConfig, ConvProblem, Format, OutputFormat
from seedvr2_engine.kernels.conv import conv3d as conv
from seedvr2_engine.kernels.conv.constants import constants
from seedvr2_engine.kernels.conv.paired import paired_conv3d_kernel
from seedvr2_engine.kernels.dispatch import shortcut_block_k

_TRITON_TYPES: dict[Format | OutputFormat, str] = {
    "fp8": "fp8e4nv",
    "mxfp8": "fp8e4nv",
    "int8": "i8",
    "fp16": "fp16",
    "bf16": "bf16",
    "fp32": "fp32",
}
_MATRIX_INSTRUCTION = re.compile(r"(?:wgmma\.mma_async|mma\.sync|tcgen05\.mma)\.\S+")
_REGISTER_OPERAND = re.compile(r"wgmma\.mma_async\S+ \{[^}]*\}, *\{([^}]*)\}")
_WRITTEN = re.compile(r"^(?:@!?%p\d+ )?(?!st|bra|wgmma|bar)[a-z]\S* (\{[^}]*\}|%\w+)")
_BRANCH = re.compile(r"^(@!?%p\d+ )?bra(?:\.uni)? (\$\w+)$")


@dataclass(frozen=True)
class CompileReport:
    """What a compiled kernel needs."""

    registers: int
    """Registers of a thread."""
    spilled_bytes: int
    """Bytes of registers stored to local memory, stores and loads together."""
    shared_memory_bytes: int
    """Shared memory of a program."""
    matrix_instructions: tuple[str, ...]
    """The distinct matrix instructions in the PTX, sorted."""
    reads_registers: bool
    """Whether a `wgmma` takes its first operand from registers."""
    overwrites: bool
    """Whether such registers are written before that product has been waited for."""
    serialized: bool
    """Whether ptxas waits for every single `wgmma`, because it cannot follow their registers."""


def compile_conv3d(problem: ConvProblem, config: ConvConfig, sm: str) -> CompileReport:
    """Compile the convolution for an architecture such as `sm_120`."""
    element, output = _TRITON_TYPES[problem.format], _TRITON_TYPES[problem.output]
    types = {
        "x": f"*{element}",
        "w": f"*{element}",
        "y": f"*{output}",
        "partials": "*fp32" if problem.has_statistics else None,
        "table": "*i32",
        "exponents": "*i32" if problem.is_quantized else None,
        "scale": "*fp32" if problem.is_quantized else None,
        "bias": "*fp32",
        "residual": f"*{output}" if problem.has_residual else None,
        "shortcut": f"*{output}" if problem.shortcut_channels else None,
        "shortcut_weight": f"*{output}" if problem.shortcut_channels else None,
    }
    types |= dict.fromkeys(("H", "W", "GRID_H", "GRID_W"), "i32")
    if config.uses_tma:
        tile = f"1,{config.tile_h},{config.tile_w}"
        strided = f"1,{config.tile_h},1,{config.tile_w}"
        types["x"] = f"tensordesc<{element}[{strided if problem.stride == 2 else tile},{config.block_k}]>"
        types["w"] = f"tensordesc<{element}[{config.block_n},{config.block_k}]>"
        if problem.has_residual and problem.phases == 1:
            types["residual"] = f"tensordesc<{output}[{tile},{config.block_n // config.epilogue_parts}]>"
        if problem.shortcut_channels:
            block_k = shortcut_block_k(problem.shortcut_channels, config)
            types["shortcut"] = f"tensordesc<{output}[{tile},{block_k}]>"
            types["shortcut_weight"] = f"tensordesc<{output}[{config.block_n},{block_k}]>"
    launch = config.warps, config.stages
    if problem.paired:
        types.pop("table")
        return compile_kernel(paired_conv3d_kernel, types, constants(problem, config), launch, sm)
    return compile_kernel(conv.conv3d_kernel, types, constants(problem, config), launch, sm)


def compile_attention(dim: int, config: AttentionConfig, sm: str, output: OutputFormat = "fp16") -> CompileReport:
    """Compile the attention for an architecture."""
    element = _TRITON_TYPES[output]
    types: dict[str, str | None] = dict.fromkeys(("queries", "keys", "values", "y"), f"*{element}")
    types |= {"L": "i32", "scale_log2": "fp32"}
    if config.uses_tma:
        types["queries"] = f"tensordesc<{element}[1,{config.block_m},{dim}]>"
        types["keys"] = f"tensordesc<{element}[1,{config.block_n},{dim}]>"
        types["values"] = f"tensordesc<{element}[1,{config.block_n},{config.block_v}]>"
    constants = {
        "D": dim,
        "BLOCK_M": config.block_m,
        "BLOCK_N": config.block_n,
        "BLOCK_V": config.block_v,
        "TMA": config.uses_tma,
    }
    return compile_kernel(attention_kernel, types, constants, (config.warps, config.stages), sm)


def compile_attention_8bit(
    dim: int, config: AttentionConfig, sm: str, format: Format, output: OutputFormat = "fp16"
) -> CompileReport:
    """Compile the attention in 8 bits for an architecture; format: of queries and keys."""
    element, value = _TRITON_TYPES[format], _TRITON_TYPES["fp8"]
    types: dict[str, str | None] = {"queries": f"*{element}", "keys": f"*{element}", "values": f"*{value}"}
    types |= dict.fromkeys(("q_scale", "k_scale", "common"), "*fp32") | {"y": f"*{_TRITON_TYPES[output]}"}
    types |= {"L": "i32", "PADDED": "i32"}
    if config.uses_tma:
        types["queries"] = f"tensordesc<{element}[1,{config.block_m},{dim}]>"
        types["keys"] = f"tensordesc<{element}[1,{config.block_n},{dim}]>"
        types["values"] = f"tensordesc<{value}[1,{config.block_v},{config.block_n}]>"
    constants = attention_constants(dim, config, format == "int8")
    return compile_kernel(attention_8bit_kernel, types, constants, (config.warps, config.stages), sm)


def compile_kernel(
    kernel: Any,
    types: dict[str, str | None],
    constants: dict[str, Any],
    launch: tuple[int, int],
    sm: str,
    *,
    fuses: bool = True,
) -> CompileReport:
    """Compile any kernel; launch: warps and stages; fuses: whether a product may be added without being rounded."""
    absent = {name: None for name, kind in types.items() if kind is None}
    kinds = {name: types.get(name) or "constexpr" for name in kernel.arg_names}
    # PyTorch's allocations are aligned to 16 bytes and more, which the launcher would see for itself.
    attributes = {
        (i,): [["tt.divisibility", 16]] for i, name in enumerate(kernel.arg_names) if kinds[name].startswith("*")
    }
    source = ASTSource(kernel, signature=kinds, constexprs=constants | absent, attrs=attributes)
    capability = int(sm.removeprefix("sm_"))
    warps, stages = launch
    target = GPUTarget("cuda", capability, 32)
    options = {"num_warps": warps, "num_stages": stages, "enable_fp_fusion": fuses}
    compiled = triton.compile(source, target=target, options=options)
    ptx = compiled.asm["ptx"]
    registers, spilled, serialized = _assemble(ptx, capability)
    return CompileReport(
        registers,
        spilled,
        compiled.metadata.shared,
        tuple(sorted(set(_MATRIX_INSTRUCTION.findall(ptx)))),
        _REGISTER_OPERAND.search(ptx) is not None,
        overwrites_operands(ptx),
        serialized,
    )


def _assemble(ptx: str, capability: int) -> tuple[int, int, bool]:
    """Registers of a thread, spilled bytes, and whether `wgmma` are serialized, as ptxas reports them."""
    tools = triton.knobs.nvidia
    ptxas = tools.ptxas_blackwell if capability >= 100 else tools.ptxas
    architecture = f"sm_{capability}{'a' if capability >= 90 else ''}"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "kernel.ptx"
        file.write_text(ptx)
        command = [ptxas.path, "-v", f"--gpu-name={architecture}", str(file), "-o", str(Path(folder) / "kernel.cubin")]
        log = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    registers = re.findall(r"Used (\d+) registers", log)
    spilled = re.findall(r"(\d+) bytes spill (?:stores|loads)", log)
    return max(map(int, registers)), sum(map(int, spilled)), "instructions are serialized" in log


def overwrites_operands(ptx: str) -> bool:
    """Whether, on some way through the PTX, registers that a `wgmma` reads are written before `wait_group 0`.

    A wait that leaves products under way counts for nothing, so the answer may be yes where it need not be.
    """
    text = re.sub(r"//[^\n]*|^\s*\.loc[^\n]*", "", ptx, flags=re.MULTILINE)
    text = re.sub(r"^\s*(\$\w+):", r"\1:;", text, flags=re.MULTILINE)
    statements = [" ".join(part.strip().lstrip("{").split()) for part in text.split(";")]
    labels = {statement[:-1]: i for i, statement in enumerate(statements) if statement.endswith(":")}
    for i, statement in enumerate(statements):
        read = _REGISTER_OPERAND.match(statement)
        if read and _written(statements, labels, i + 1, set(re.findall(r"%\w+", read[1]))):
            return True
    return False


def _written(statements: list[str], labels: dict[str, int], start: int, registers: set[str]) -> bool:
    ahead, seen = [start], set()
    while ahead:
        i = ahead.pop()
        while i < len(statements) and i not in seen:
            seen.add(i)
            if re.match(r"wgmma\.wait_group\.sync\.aligned 0$|ret$", statements[i]):
                break
            written = _WRITTEN.match(statements[i])
            if written and registers & set(re.findall(r"%\w+", written[1])):
                return True
            branch = _BRANCH.match(statements[i])
            if branch and branch[2] in labels:
                ahead.append(labels[branch[2]])
                if not branch[1]:
                    break
            i += 1
    return False
