"""Every kernel on the GPU at hand: first against its FP32 reference, then the clock.

    python -m benchmarks.kernels --format fp8 --seconds 400 --json kernels.json

The convolutions are those of the plans for a 1280x720 clip, with pairs of frames and without. Each is measured with the
configuration that the heuristics choose and with a few others; a configuration whose result is wrong, or differs from
run to run, gets no time. Rates are shares of a matrix product of the same format measured in the same process.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import triton

from seedvr2_engine.device import DeviceSpec
from seedvr2_engine.doctor.kernel_checks import check_operation, conv_operands, conv_output
from seedvr2_engine.engine.vae.backend import triton_backend
from seedvr2_engine.kernels import groupnorm, reference
from seedvr2_engine.kernels.configs import FORMATS, ConvConfig, ConvProblem, Format
from seedvr2_engine.kernels.conv import image
from seedvr2_engine.kernels.conv.operands import FrameTarget, NormOperands, NormSpec, frame_scale, tile_counts
from seedvr2_engine.kernels.dispatch import shared_memory_bytes
from seedvr2_engine.kernels.layout import DTYPES, chunk_counts
from seedvr2_engine.models.vae.config import VAEConfig
from seedvr2_engine.plan.coverage import covering_plans, distinct_operations
from seedvr2_engine.plan.describe import operation_name
from seedvr2_engine.plan.execution_plan import Operation
from seedvr2_engine.plan.gpus import device_spec

SIZE_PX = (720, 1280)
CUDA = torch.device("cuda")


def milliseconds(run: Callable[[], Any], repeats: int = 12) -> float:
    """Median of `repeats` timed launches after two."""
    times = []
    for i in range(repeats + 2):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        run()
        end.record()
        end.synchronize()
        if i >= 2:
            times.append(begin.elapsed_time(end))
    return sorted(times)[len(times) // 2]


def neighbours(problem: ConvProblem, chosen: ConvConfig, device: DeviceSpec) -> Iterator[tuple[str, ConvConfig]]:
    """Other configurations than the chosen one that fit, and what is changed in them."""
    changes: list[dict[str, Any]] = [
        {"stages": chosen.stages - 1},
        {"stages": chosen.stages + 1},
        {"warps": 12 - chosen.warps},
        {"tile_h": 16},
        {"tile_h": 4, "tile_w": 32},
        {"tile_h": 1, "tile_w": 128},
        {"block_n": chosen.block_n // 2, "warps": 4, "epilogue_parts": 1},
        {"block_k": chosen.block_k // 2, "stages": chosen.stages + 1},
        {"epilogue_parts": max(1, chosen.epilogue_parts // 2)},
        {"uses_tma": not chosen.uses_tma},
    ]
    for change in changes:
        config = replace(chosen, **change)
        fits = shared_memory_bytes(problem, config, device.sm) <= device.shared_memory_bytes
        if config != chosen and fits and config.block_n >= 16 and config.block_k >= 32 and config.stages >= 2:
            yield ", ".join(f"{key} {value}" for key, value in change.items()), config


def matrix_rate(format: str) -> float:
    """TFLOP/s of an 8192-cubed matrix product of the format's kind through PyTorch."""
    n = 8192
    if format in ("fp8", "mxfp8") and torch.cuda.get_device_capability() >= (8, 9):
        a = torch.randn(n, n, device="cuda").to(torch.float8_e4m3fn)
        one = torch.ones((), device="cuda")
        ms = milliseconds(lambda: torch._scaled_mm(a, a.T, one, one, out_dtype=torch.bfloat16, use_fast_accum=True))
    elif format == "int8":
        i = torch.randint(-127, 128, (n, n), device="cuda", dtype=torch.int8)
        ms = milliseconds(lambda: torch._int_mm(i, i.T))
    else:
        b = torch.randn(n, n, device="cuda", dtype=torch.bfloat16 if format == "bf16" else torch.float16)
        ms = milliseconds(lambda: b @ b)
    return 2 * n**3 / ms / 1e9


def launches(format: Format, device: DeviceSpec) -> list[tuple[Operation, str]]:
    """Every convolution that plans need, with each configuration and what was changed in it, the heaviest first."""
    operations = distinct_operations(covering_plans(device, [format], VAEConfig(), [SIZE_PX]))
    found = []
    for operation in sorted(operations, key=lambda operation: -operation.flops):
        problem, chosen = operation.problem, operation.config
        if problem is not None and isinstance(chosen, ConvConfig):
            found.append((operation, "chosen"))
            if problem.flops >= 5e9:
                found += [
                    (replace(operation, config=config), label) for label, config in neighbours(problem, chosen, device)
                ]
    return found


def check_layers(arguments: argparse.Namespace, device: DeviceSpec, deadline: float) -> list[dict[str, Any]]:
    """Compile and check this process's part of all launches."""
    part, parts = arguments.part
    rows: list[dict[str, Any]] = []
    for operation, label in launches(arguments.format, device)[part::parts]:
        if time.monotonic() > deadline:
            break
        wrong = check_operation(operation, triton_backend(), CUDA).wrong
        rows.append({"layer": operation_name(operation), "change": label, "format": operation.format, "wrong": wrong})
        if wrong:
            show(rows[-1])
    return rows


def check_in_parallel(arguments: argparse.Namespace) -> dict[tuple[str, str, str], str]:
    """What is wrong with each launch, by layer, format and change; compiled by many processes, for its cache's sake."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{part}.json" for part in range(arguments.workers)]
        seconds = ["--seconds", str(arguments.seconds / 2), "--format", arguments.format]
        command = [sys.executable, "-m", "benchmarks.kernels", *seconds]
        workers = [
            subprocess.Popen([*command, "--part", f"{i}/{len(paths)}", "--json", str(path)])
            for i, path in enumerate(paths)
        ]
        for worker in workers:
            worker.wait()
        rows = [row for path in paths if path.exists() for row in json.loads(path.read_text())["layers"]]
    return {(row["layer"], row["format"], row["change"]): row["wrong"] for row in rows}


def measure_layers(arguments: argparse.Namespace, device: DeviceSpec, deadline: float) -> list[dict[str, Any]]:
    """Time every launch that was checked and found right."""
    checked = check_in_parallel(arguments)
    rates: dict[str, float] = {}
    rows: list[dict[str, Any]] = []
    kernels = triton_backend()
    for operation, label in launches(arguments.format, device):
        if time.monotonic() > deadline:
            break
        problem, config, layer = operation.problem, operation.config, operation_name(operation)
        assert problem is not None
        assert isinstance(config, ConvConfig)
        if problem.format not in rates:
            rates[problem.format] = matrix_rate(problem.format)
        row: dict[str, Any] = {"layer": layer, "config": config.describe(), "change": label, "format": problem.format}
        row["wrong"] = checked.get((layer, problem.format, label), "not checked: its process stopped early")
        if not row["wrong"]:
            operands = conv_operands(problem, torch.Generator(CUDA).manual_seed(0), mixes=False)
            out = conv_output(problem, config, CUDA)
            convolve = partial(kernels.paired_conv3d if problem.paired else kernels.conv3d, *operands, out)
            row["ms"] = milliseconds(partial(convolve, problem, config))
            row["tflops"] = problem.flops / row["ms"] / 1e9
            row["share"] = row["tflops"] / rates[problem.format]
        rows.append(row)
        show(row)
    return rows


def show(row: dict[str, Any]) -> None:
    figures = row["wrong"] or f"{row['ms']:8.3f} ms {row['tflops']:7.0f} TFLOP/s {100 * row['share']:4.0f}%"
    print(f"{row['layer']:52} {row['format']:6} {row['change']:36} {figures}", flush=True)


def measure_passes(format: str) -> list[dict[str, Any]]:
    """The passes between the convolutions, by bytes moved; one 1280x720 frame of 128 channels."""
    height, width, channels = 720, 1280, 128
    problem = ConvProblem(channels, channels, (3, 3, 3), 1, height, width, "fp16")
    config = ConvConfig(8, 16, 128, 64, 4, 2, False)
    x = torch.randn(1, height, width, channels, device="cuda").half()
    dtype = DTYPES[format]
    spec = NormSpec(True, True, *frame_scale(dtype))
    operands = NormOperands(torch.randn(channels, device="cuda"), torch.randn(channels, device="cuda"))
    partials = reference.partial_statistics(x, problem, config)
    counts = tile_counts((height, width), (8, 16), 1).cuda()
    chunks = chunk_counts(counts)
    results = []
    for module in (groupnorm, reference):
        frames = torch.zeros(1, height, width, channels, dtype=dtype, device="cuda")
        exponents = torch.zeros(1, dtype=torch.int32, device="cuda") if dtype.itemsize == 1 else None
        target = FrameTarget(frames, exponents, torch.zeros(1, dtype=torch.int32, device="cuda"))
        combined = torch.empty(1, chunks.numel(), 4, channels, device="cuda")
        affine = torch.empty(1, 4, channels, device="cuda")
        operations = {
            "combine": (lambda m=module, c=combined: m.combine(partials, counts, c), partials.nbytes),
            "finish": (
                lambda m=module, c=combined, a=affine: m.finish_statistics(c, chunks, operands, spec, a),
                combined.nbytes,
            ),
            "normalize": (
                lambda m=module, a=affine, t=target: m.normalize(x, a, operands, spec, t),
                x.nbytes + frames.nbytes,
            ),
        }
        for run, _ in operations.values():
            run()
        results.append((frames.float(), operations))
    (actual, operations), (expected, _) = results
    error = ((actual - expected).norm() / expected.norm()).item()
    rows = []
    for name, (run, size) in operations.items():
        ms = milliseconds(run)
        row = {"pass": name, "ms": ms, "gb_per_s": size / ms / 1e6, "relative_error": error}
        rows.append(row)
        print(f"{name:42} {format:6} {ms:8.3f} ms {row['gb_per_s']:7.0f} GB/s, relative error {error:.1e}", flush=True)
    return [*rows, measure_fold()]


def measure_fold() -> dict[str, Any]:
    """Adding up the last convolution's taps for one 1280x720 frame."""
    taps, bias = torch.randn(1, 720, 1280, image.WIDTH, device="cuda"), torch.randn(3, device="cuda")
    pictures = [torch.empty(3, 1, 720, 1280, device="cuda") for _ in range(2)]
    image.fold(taps, bias, pictures[0])
    reference.fold(taps, bias, pictures[1])
    error = ((pictures[0] - pictures[1]).norm() / pictures[1].norm()).item()
    ms = milliseconds(lambda: image.fold(taps, bias, pictures[0]))
    print(f"{'fold':42} {'fp32':6} {ms:8.3f} ms {taps.nbytes / ms / 1e6:7.0f} GB/s, relative error {error:.1e}")
    return {"pass": "fold", "ms": ms, "gb_per_s": taps.nbytes / ms / 1e6, "relative_error": error}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--format", choices=FORMATS, default="fp8")
    parser.add_argument("--seconds", type=float, default=400.0, help="begin nothing new after this long")
    parser.add_argument("--json", type=Path, help="a file to write")
    parser.add_argument("--workers", type=int, default=os.cpu_count() // 2, help="processes that compile and check")
    parser.add_argument("--part", type=lambda text: tuple(map(int, text.split("/"))), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    begin = time.monotonic()
    device = device_spec(CUDA)
    print(f"{device.name}, {device.sm}, PyTorch {torch.__version__}, Triton {triton.__version__}")
    result: dict[str, Any] = {"gpu": device.name, "torch": torch.__version__, "triton": triton.__version__}
    if arguments.part:
        result["layers"] = check_layers(arguments, device, begin + arguments.seconds)
        arguments.json.write_text(json.dumps(result) + "\n")
        return
    result["passes"] = measure_passes(arguments.format)
    result["layers"] = measure_layers(arguments, device, begin + arguments.seconds)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")
    wrong = [row for row in result["layers"] if row["wrong"]]
    print(f"{len(result['layers'])} layer configurations, {len(wrong)} refused a time")


if __name__ == "__main__":
    main()
