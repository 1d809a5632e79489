"""Every kernel on the GPU at hand: first against its FP32 twin, then the clock.

    python benchmarks/kernels.py --format fp8 --seconds 400 --json kernels.json

The shapes are those of a 1280x720 clip. Each layer is measured with the configuration that the heuristics choose and
with a few others; a configuration whose result is wrong, or differs from run to run, gets no time. Rates are shares of
a matrix product of the same format measured in the same process.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import triton
from torch import Tensor

from seedvr2_engine.device import DeviceSpec
from seedvr2_engine.kernels import conv3d, groupnorm, image, reference
from seedvr2_engine.kernels.dispatch import (
    FORMATS,
    ConvConfig,
    ConvProblem,
    Format,
    Refusal,
    choose_config,
    shared_memory_bytes,
)
from seedvr2_engine.kernels.operands import (
    Additions,
    ConvOutput,
    ConvWeights,
    FrameTarget,
    FrameWindow,
    NormOperands,
    NormSpec,
    tile_counts,
)
from seedvr2_engine.kernels.problems import decoder_problems, encoder_problems
from seedvr2_engine.plan.gpus import device_spec
from seedvr2_engine.quant import quantize_rows

WIDTHS = (128, 256, 512, 512)
TOLERANCES = {"fp8": 3e-3, "mxfp8": 1e-3, "int8": 1e-3, "fp16": 1e-3, "bf16": 1e-3}
"""Relative RMS error against the twin, which multiplies the same quantised numbers; Hopper adds up FP8 products with
about 14 bits."""


@dataclass(frozen=True)
class Case:
    """One layer's tensors."""

    problem: ConvProblem
    window: FrameWindow
    weights: ConvWeights
    additions: Additions

    def output(self, config: ConvConfig) -> ConvOutput:
        """Poisoned tensors for the result."""
        problem = self.problem
        shape = (problem.frames, *problem.output_px, problem.channels_out)
        y = torch.full(shape, float("nan"), dtype=conv3d.OUTPUT_DTYPES[problem.output], device="cuda")
        if not problem.has_statistics:
            return ConvOutput(y, None)
        tiles = tile_counts(problem.grid_px, (config.tile_h, config.tile_w), problem.phases).numel()
        shape = (problem.frames, tiles, problem.statistic_rows, problem.channels_out)
        return ConvOutput(y, torch.full(shape, float("nan"), device="cuda"))

    def run(self, out: ConvOutput, config: ConvConfig) -> None:
        """Launch the kernel."""
        conv3d.conv3d(self.window, self.weights, self.additions, out, self.problem, config)


def make_case(problem: ConvProblem) -> Case:
    """Random frames and weights of one output frame that sees kt different frames of equal exponents."""
    torch.manual_seed(0)
    kt, kh, kw = problem.kernel
    dtype, output = conv3d.DTYPES[problem.format], conv3d.OUTPUT_DTYPES[problem.output]
    depth = kt * kh * kw * problem.channels_in
    frames = torch.randn(kt, problem.height_px, problem.width_px, problem.channels_in, device="cuda")
    rows = torch.randn(problem.phases * problem.channels_out, depth, device="cuda") * depth**-0.5
    exponents = scale = None
    if problem.is_quantized:
        gain = 2**5 if dtype == torch.int8 else 2**4
        frames = (frames * gain).round().clamp(-127, 127) if dtype == torch.int8 else frames * gain
        exponents = torch.full((kt,), -5 if dtype == torch.int8 else -4, dtype=torch.int32, device="cuda")
        rows, scale = quantize_rows(rows, dtype)
    table = torch.tensor([[*range(kt), 0]], dtype=torch.int32, device="cuda")
    bias = torch.randn(problem.phases, 4 if problem.phases == 4 else 1, problem.channels_out, device="cuda")
    shape = (1, *problem.output_px)
    residual = shortcut = shortcut_weight = None
    if problem.has_residual:
        residual = torch.randn(*shape, problem.channels_out, device="cuda").to(output)
    if problem.shortcut_channels:
        shortcut = torch.randn(*shape, problem.shortcut_channels, device="cuda").to(output)
        shortcut_weight = torch.randn(problem.channels_out, problem.shortcut_channels, device="cuda")
        shortcut_weight = (shortcut_weight * problem.shortcut_channels**-0.5).to(output)
    return Case(
        problem,
        FrameWindow(frames.to(dtype), exponents, table),
        ConvWeights(rows.to(dtype).contiguous(), scale, bias),
        Additions(residual, shortcut, shortcut_weight),
    )


def check(case: Case, config: ConvConfig, expected: Tensor) -> str:
    """What is wrong with a configuration's result; empty if nothing."""
    outs = [case.output(config), case.output(config)]
    for out in outs:
        case.run(out, config)
    y, partials = outs[0]
    if y.isnan().any() or (partials is not None and partials.isnan().any()):
        return "values were never written"
    if not torch.equal(y, outs[1].y):
        return "two runs differ"
    error = ((y.float() - expected).norm() / expected.norm()).item()
    if error > TOLERANCES[case.problem.format]:
        return f"relative error {error:.2e}"
    if partials is not None:
        twin = reference.partial_statistics(y, case.problem, config)
        worst = ((partials - twin).abs().amax((0, 1, 3)) / twin.abs().amax((0, 1, 3))).max().item()
        # The twin sums what was stored, the kernel what was computed.
        if worst > 1e-3:
            return f"statistics off by {worst:.2e}"
    return ""


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


def candidates(problem: ConvProblem, device: DeviceSpec) -> Iterator[tuple[str, ConvConfig]]:
    """The chosen configuration, and its neighbours that fit."""
    chosen = choose_config(problem, device)
    if isinstance(chosen, Refusal):
        return
    yield "chosen", chosen
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


def launches(format: Format, device: DeviceSpec) -> list[tuple[str, ConvProblem, str, ConvConfig]]:
    """(layer, problem, what was changed, configuration) of all that is measured, the heaviest layer first."""
    layers = [("decoder", *layer) for layer in decoder_problems(WIDTHS, (90, 160), format)]
    layers += [("encoder", *layer) for layer in encoder_problems(WIDTHS, (720, 1280), format)]
    distinct = {problem: f"{part} {name}" for part, name, problem in reversed(layers)}
    return [
        (distinct[problem], problem, label, config)
        for problem in sorted(distinct, key=lambda problem: -problem.flops)
        for label, config in candidates(problem, device)
        if label == "chosen" or problem.flops >= 5e9
    ]


def check_layers(arguments: argparse.Namespace, device: DeviceSpec, deadline: float) -> list[dict[str, Any]]:
    """Compile and check this process's part of all launches."""
    part, parts = arguments.part
    rows: list[dict[str, Any]] = []
    case, expected = None, None
    for layer, problem, label, config in launches(arguments.format, device)[part::parts]:
        if time.monotonic() > deadline:
            break
        if case is None or case.problem != problem:
            case = make_case(problem)
            plain = ConvConfig(8, 16, 16, 32, 4, 2, False)
            expected = case.output(plain).y.float()
            reference.conv3d(case.window, case.weights, case.additions, ConvOutput(expected, None), problem, plain)
        try:
            wrong = check(case, config, expected)
        except (triton.runtime.errors.OutOfResources, triton.compiler.errors.CompilationError) as error:
            wrong = f"does not run: {str(error).splitlines()[0][:80]}"
        rows.append({"layer": layer, "change": label, "format": problem.format, "wrong": wrong})
        if wrong:
            show(rows[-1])
    return rows


def check_in_parallel(arguments: argparse.Namespace) -> dict[tuple[str, str, str], str]:
    """What is wrong with each launch, by layer, format and change; compiled by many processes, for its cache's sake."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{part}.json" for part in range(arguments.workers)]
        seconds = ["--seconds", str(arguments.seconds / 2), "--format", arguments.format]
        workers = [
            subprocess.Popen([sys.executable, __file__, *seconds, "--part", f"{i}/{len(paths)}", "--json", str(path)])
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
    case = None
    for layer, problem, label, config in launches(arguments.format, device):
        if time.monotonic() > deadline:
            break
        if problem.format not in rates:
            rates[problem.format] = matrix_rate(problem.format)
        row: dict[str, Any] = {"layer": layer, "config": config.describe(), "change": label, "format": problem.format}
        row["wrong"] = checked.get((layer, problem.format, label), "not checked: its process stopped early")
        if not row["wrong"]:
            if case is None or case.problem != problem:
                case = make_case(problem)
            out = case.output(config)
            row["ms"] = milliseconds(lambda case=case, out=out, config=config: case.run(out, config))
            row["tflops"] = problem.flops / row["ms"] / 1e9
            row["share"] = row["tflops"] / rates[problem.format]
        rows.append(row)
        show(row)
    return rows


def show(row: dict[str, Any]) -> None:
    figures = row["wrong"] or f"{row['ms']:8.3f} ms {row['tflops']:7.0f} TFLOP/s {100 * row['share']:4.0f}%"
    print(f"{row['layer']:42} {row['format']:6} {row['change']:36} {figures}", flush=True)


def measure_passes(format: str) -> list[dict[str, Any]]:
    """The passes between the convolutions, by bytes moved; one 1280x720 frame of 128 channels."""
    height, width, channels = 720, 1280, 128
    problem = ConvProblem(channels, channels, (3, 3, 3), 1, height, width, "fp16")
    config = ConvConfig(8, 16, 128, 64, 4, 2, False)
    x = torch.randn(1, height, width, channels, device="cuda").half()
    dtype = conv3d.DTYPES[format]
    spec = NormSpec(limit=127.0 if dtype == torch.int8 else 448.0)
    operands = NormOperands(torch.randn(channels, device="cuda"), torch.randn(channels, device="cuda"))
    partials = reference.partial_statistics(x, problem, config)
    counts = tile_counts((height, width), (8, 16), 1).cuda()
    chunks = groupnorm.chunk_counts(counts)
    results = []
    for module in (groupnorm, reference):
        frames = torch.zeros(1, height, width, channels, dtype=dtype, device="cuda")
        exponents = torch.zeros(1, dtype=torch.int32, device="cuda") if dtype.itemsize == 1 else None
        target = FrameTarget(frames, exponents, torch.zeros(1, dtype=torch.int32, device="cuda"))
        combined = torch.empty(1, chunks.numel(), 4, channels, device="cuda")
        affine = torch.empty(1, 4, channels, device="cuda")
        steps = {
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
        for run, _ in steps.values():
            run()
        results.append((frames.float(), steps))
    (actual, steps), (expected, _) = results
    error = ((actual - expected).norm() / expected.norm()).item()
    rows = []
    for name, (run, size) in steps.items():
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
    device = device_spec(torch.device("cuda"))
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
