"""New kernels of the 8-bit transformer beside what they replace, on the GPU at hand: first right, then the clock.

    python -m benchmarks.dit_kernels --json dit_kernels.json

Shapes are the 3B's at 1280x720 with 21 frames. Every candidate is checked against its FP32 reference on ragged
last rows, twice for equal bits; what is wrong gets no time. Candidates of a group take turns, so that a clock that
sinks meets all. Beside them: convolutions of sm_90 that spill registers, in cuts that do not.
"""

import argparse
import json
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.compile_kernels import planned
from benchmarks.dit import SHAPES, TEXT_TOKENS, inputs, relative_rms
from seedvr2_engine.bench.random_models import random_dit
from seedvr2_engine.doctor.kernel_checks import check_operation, conv_operands, conv_output
from seedvr2_engine.engine.dit.fused import FusedDiT
from seedvr2_engine.engine.dit.quantized import BlockFormat
from seedvr2_engine.engine.dit.tables import PaddedWork, joint_tables, padded_work
from seedvr2_engine.engine.dit.weights import quantized
from seedvr2_engine.engine.vae.backend import triton_backend
from seedvr2_engine.kernels.architectures import ARCHITECTURES
from seedvr2_engine.kernels.attention.windows import attend_windows
from seedvr2_engine.kernels.attention.windows_8bit import attend_windows_8bit, join_parts_8bit
from seedvr2_engine.kernels.configs import ConvConfig, ConvProblem, ProductConfig, WindowConfig
from seedvr2_engine.kernels.conv.operands import ConvOutput
from seedvr2_engine.kernels.launch import compile_ahead
from seedvr2_engine.kernels.tokens import gates, joint, product_ends, reference, rows
from seedvr2_engine.kernels.tokens.operands import EightBitQKV, GatedSum, JoinStep, StreamVectors, TokenStep
from seedvr2_engine.models.dit.config import PUBLIC_3B
from seedvr2_engine.models.dit.geometry import Execution, plan_geometry
from seedvr2_engine.plan.describe import operation_name
from seedvr2_engine.plan.execution_plan import Operation
from seedvr2_engine.quant.quantize import QuantizedTensor, quantize_rows

VIDEO_ROWS = 21_600
ROWS = VIDEO_ROWS + TEXT_TOKENS
CHECKED = 300
FORMATS = {"fp8": torch.float8_e4m3fn, "int8": torch.int8}
CUTS = (
    ProductConfig(128, 256, 128, 8, 3, True, parts=4),
    ProductConfig(128, 256, 128, 8, 3, True, parts=8),
    ProductConfig(128, 256, 128, 8, 3, True, parts=8, stays=True),
    ProductConfig(128, 256, 128, 8, 3, True, parts=4, stays=True),
    ProductConfig(128, 256, 128, 8, 4, True, parts=8, stays=True),
    ProductConfig(128, 256, 128, 8, 3, True, group=16, parts=8, stays=True),
    ProductConfig(128, 128, 128, 4, 3, True, parts=4),
    ProductConfig(128, 128, 128, 4, 3, True, parts=8),
    ProductConfig(128, 128, 128, 8, 4, True, parts=4, stays=True),
    ProductConfig(256, 128, 128, 8, 3, True, parts=8, stays=True),
)
WINDOWS = (
    WindowConfig(64, 64, 4, 3, True),
    WindowConfig(64, 64, 4, 2, True),
    WindowConfig(64, 64, 4, 4, True),
    WindowConfig(128, 64, 8, 3, True),
    WindowConfig(128, 64, 8, 2, True),
    WindowConfig(128, 64, 4, 3, True),
)
PLAIN = {"fp8": ProductConfig(128, 256, 128, 8, 3, True), "int8": ProductConfig(256, 128, 128, 8, 3, True)}
"""The cuts of the kernel that ends with the product."""
SHOWN = 2

Run = Callable[[], object]


@dataclass
class Candidate:
    """One way to compute something."""

    name: str
    run: Run
    result: Callable[[], Tensor]
    """What it left, as rows of numbers; the last ones."""
    expected: Callable[[], Tensor] | None = None
    """The same by the FP32 reference; None: the baseline, which is not checked."""
    limit: float = 6e-3

    def wrong(self) -> str:
        """What is wrong with it, empty if nothing is."""
        try:
            self.run()
            first = self.result().clone()
            self.run()
        except Exception as error:
            return f"{type(error).__name__}: {str(error).splitlines()[0][:60]}"
        if not torch.equal(first, self.result()):
            return "DIFFERS from run to run"
        if self.expected is None:
            return ""
        error = relative_rms(first, self.expected())
        return "" if error <= self.limit else f"WRONG, error {error:.1e}"


def times(candidates: list[Candidate], rounds: int) -> dict[str, tuple[float, float]]:
    """Median and 90th percentile in milliseconds, all taking turns."""
    found: dict[str, list[float]] = {candidate.name: [] for candidate in candidates}
    for index in range(rounds + 1):
        events = []
        for candidate in candidates:
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            begin.record()
            candidate.run()
            end.record()
            events.append((candidate.name, begin, end))
        torch.cuda.synchronize()
        if index:
            for name, begin, end in events:
                found[name].append(begin.elapsed_time(end))
    return {
        name: (statistics.median(values), sorted(values)[int(0.9 * (len(values) - 1))])
        for name, values in found.items()
    }


def show_group(title: str, candidates: list[Candidate], rounds: int, shown: int = SHOWN) -> dict[str, Any]:
    """The baseline, which is the first, and the best of the others."""
    verdicts = {candidate.name: candidate.wrong() for candidate in candidates}
    right = [candidate for candidate in candidates if not verdicts[candidate.name]]
    medians = times(right, rounds)
    base = medians.get(candidates[0].name, (float("nan"), 0.0))[0]
    others = sorted((c.name for c in right if c is not candidates[0]), key=lambda name: medians[name][0])
    wrong = {name: verdict for name, verdict in verdicts.items() if verdict}
    note = f"; {len(wrong)} refused: {next(iter(wrong.items()))}"[:90] if wrong else ""
    print(f"{title}: {candidates[0].name} {base:.3f} ms{note}", flush=True)
    for name in others[:shown]:
        median, late = medians[name]
        gain = f"{100 * (base / median - 1):+5.1f} % speed, {32 * (base - median):+6.2f} ms in 32"
        print(f"    {name:66} {median:7.3f} ms, p90 {late:7.3f}, {gain}", flush=True)
    return {"medians and p90": medians, "wrong": wrong}


def quietly(run: Run) -> None:
    """A launch that may fail: it fails again where that is told."""
    try:
        run()
    except Exception:
        return


def last(x: Tensor) -> Tensor:
    """The rows that are checked."""
    return x[-CHECKED:]


def few(x: QuantizedTensor) -> QuantizedTensor:
    return QuantizedTensor(last(x.data), last(x.scale))


def library_product(a: QuantizedTensor, b: QuantizedTensor, bias: Tensor | None, out: Tensor) -> None:
    """PyTorch's product, which is FP8's on this GPU."""
    torch._scaled_mm(
        a.data, b.data.t(), a.scale[:, None], b.scale[None, :], bias=bias, out_dtype=out.dtype, use_fast_accum=True,
        out=out,
    )  # fmt: skip


def operands(number: torch.dtype, depth: int, columns: int) -> tuple[QuantizedTensor, QuantizedTensor]:
    """Random rows and weights."""
    x = torch.randn(ROWS, depth, device="cuda", dtype=torch.bfloat16)
    a = QuantizedTensor(torch.empty_like(x, dtype=number), x.new_empty(ROWS, dtype=torch.float32))
    rows.quantize_rows(x, "none", a)
    return a, quantize_rows(torch.randn(columns, depth, device="cuda") * depth**-0.5, number)


def plain_product(format: str) -> Callable[..., None]:
    """What multiplies now."""
    return library_product if format == "fp8" else partial(product_ends.multiply, config=PLAIN["int8"])


def vectors() -> StreamVectors:
    return StreamVectors(*torch.randn(2, PUBLIC_3B.width, device="cuda"))


def tokens() -> Tensor:
    return torch.randn(ROWS, PUBLIC_3B.width, device="cuda", dtype=torch.bfloat16)


def room(number: torch.dtype, width: int) -> QuantizedTensor:
    return QuantizedTensor(
        torch.empty(ROWS, width, device="cuda", dtype=number), torch.empty(ROWS, device="cuda", dtype=torch.float32)
    )


def sums(format: str, depth: int) -> Iterator[Candidate]:
    """A product and the gated sum after it, the norm left out: in two passes, and in one."""
    number = FORMATS[format]
    a, b = operands(number, depth, PUBLIC_3B.width)
    bias, x, change, out = torch.randn(PUBLIC_3B.width, device="cuda").bfloat16(), tokens(), tokens(), tokens()
    norm = {"scale": vectors(), "shift": vectors()}
    gate, normed = vectors(), room(number, PUBLIC_3B.width)

    def old() -> None:
        plain_product(format)(a, b, bias, change)
        gates.step_tokens(x, TokenStep(VIDEO_ROWS, change, gate, **norm), kept=out, out=normed)

    def new(cut: ProductConfig) -> None:
        product_ends.add_product(a, b, bias, GatedSum(x, gate, VIDEO_ROWS), out, cut)
        gates.step_tokens(out, TokenStep(VIDEO_ROWS, **norm), kept=None, out=normed)

    def expected() -> Tensor:
        result = torch.empty(CHECKED, PUBLIC_3B.width, device="cuda")
        end = GatedSum(last(x), gate, CHECKED - TEXT_TOKENS)
        reference.add_product(few(a), b, bias, end, result, None)
        return result

    yield Candidate("product, sum and norm", old, lambda: last(out))
    for cut in CUTS:
        yield Candidate(f"sum in the product {tuple(cut)}", partial(new, cut), lambda: last(out), expected)


def gated(format: str) -> Iterator[Candidate]:
    """Gate and up, SiLU, and rounding the rows: in two passes over 16 bits, and in one."""
    number, width = FORMATS[format], PUBLIC_3B.mlp_width
    a, b = operands(number, PUBLIC_3B.width, 2 * width)
    both, inner = (torch.empty(ROWS, n, device="cuda", dtype=torch.bfloat16) for n in (2 * width, width))
    rounded = room(number, width)

    def old() -> None:
        plain_product(format)(a, b, None, both)
        rows.quantize_rows(both, "gated silu", rounded)

    def new(cut: ProductConfig) -> None:
        product_ends.multiply_gated(a, b, inner, cut)
        rows.quantize_rows(inner, "none", rounded)

    def expected() -> Tensor:
        result = torch.empty(CHECKED, width, device="cuda")
        reference.multiply_gated(few(a), b, result, None)
        return result

    yield Candidate("product, SiLU with rounding", old, lambda: last(rounded.data).float())
    for cut in CUTS:
        yield Candidate(f"SiLU in the product {tuple(cut)}", partial(new, cut), lambda: last(inner), expected, 8e-3)


def plain(format: str, depth: int, columns: int) -> Iterator[Candidate]:
    """A product alone: as it is, and in the new kernel's cuts."""
    a, b = operands(FORMATS[format], depth, columns)
    out = torch.empty(ROWS, columns, device="cuda", dtype=torch.bfloat16)

    def expected() -> Tensor:
        result = torch.empty(CHECKED, columns, device="cuda")
        reference.multiply(few(a), b, None, result, None)
        return result

    yield Candidate("as it is", partial(plain_product(format), a, b, None, out), lambda: last(out))
    yield Candidate(
        f"our kernel {tuple(PLAIN[format])[:6]}", partial(product_ends.multiply, a, b, None, out, PLAIN[format]),
        lambda: last(out), expected,
    )  # fmt: skip
    for cut in CUTS:
        run = partial(product_ends.multiply, a, b, None, out, cut)
        yield Candidate(f"new kernel {tuple(cut)}", run, lambda: last(out), expected)


def steps(adds: bool) -> Iterator[Candidate]:
    """The pass that adds and normalises, in several cuts."""
    x, change, kept, normed = tokens(), tokens(), tokens(), room(FORMATS["fp8"], PUBLIC_3B.width)
    step = TokenStep(VIDEO_ROWS, scale=vectors(), shift=vectors())
    if adds:
        step = replace(step, change=change, gate=vectors())

    def run(count: int, warps: int) -> None:
        before = gates.STEP_ROWS, gates.STEP_WARPS
        gates.STEP_ROWS, gates.STEP_WARPS = count, warps
        try:
            gates.step_tokens(x, step, kept=kept if adds else None, out=normed)
        finally:
            gates.STEP_ROWS, gates.STEP_WARPS = before

    def expected() -> Tensor:
        result = QuantizedTensor(torch.empty_like(last(normed.data)), torch.empty_like(last(normed.scale)))
        few_rows = replace(step, video_rows=CHECKED - TEXT_TOKENS, change=last(change) if adds else None)
        reference.step_tokens(last(x), few_rows, kept=None, out=result)
        return result.data.float()

    for count, warps in ((gates.STEP_ROWS, gates.STEP_WARPS), (4, 4), (16, 4), (8, 8)):
        name = f"{count} rows, {warps} warps"
        yield Candidate(name, partial(run, count, warps), lambda: last(normed.data).float(), expected, 1e-2)


def attention(layer: int, number: torch.dtype) -> Iterator[Candidate]:
    """Everything between qkv and the attention's result, text apart: in 16 bits, and in 8."""
    config, device = PUBLIC_3B, torch.device("cuda")
    shape = (1, *SHAPES["720p, 21 frames"])
    geometry = plan_geometry(config, shape, TEXT_TOKENS, Execution(device, "torch-varlen"))
    chosen = ARCHITECTURES["sm_90"].windows
    assert chosen is not None
    table = joint_tables(geometry, chosen)[layer]
    assert table.work is not None
    work, heads, head = table.work, config.heads, config.head_width
    qkv = torch.randn(ROWS, 3 * config.attention_width, device="cuda", dtype=torch.bfloat16)
    norms = [StreamVectors(*(1 + 0.2 * torch.randn(2, head, device="cuda"))) for _ in range(2)]
    step = JoinStep(VIDEO_ROWS, heads, table.rows, *norms, table.cos, table.sin)
    joined = tuple(qkv.new_empty(len(work.joint_places), heads, head) for _ in range(3))
    out = qkv.new_empty(ROWS + table.places.text_rows.numel(), config.attention_width)
    results = [torch.empty_like(out) for _ in range(2)]

    def old() -> None:
        joint.join_parts(qkv, step, joined)
        attend_windows(joined, work.joint, work.joint_places, out, chosen)

    old()
    results[0].copy_(out)
    yield Candidate("16 bits", old, lambda: out[:VIDEO_ROWS])
    for cut in WINDOWS:
        padded = padded_work(table, work.joint_places, cut)
        x = EightBitQKV.empty(len(padded.rows), heads, head, number, device)
        own = replace(step, rows=padded.rows)

        def new(x: EightBitQKV = x, own: JoinStep = own, padded: PaddedWork = padded, cut: WindowConfig = cut) -> None:
            join_parts_8bit(qkv, own, x)
            attend_windows_8bit(x, padded.work, padded.places, out, cut)

        def alone(x: EightBitQKV = x, padded: PaddedWork = padded, cut: WindowConfig = cut) -> None:
            attend_windows_8bit(x, padded.work, padded.places, out, cut)

        # Against 16 bits: what 8 bits cost on random rows is a few percent.
        yield Candidate(f"8 bits {tuple(cut)}", new, lambda: out[:VIDEO_ROWS], lambda: results[0][:VIDEO_ROWS], 0.1)
        yield Candidate(f"8 bits {tuple(cut)}, joined before", alone, lambda: out[:VIDEO_ROWS])
    yield Candidate("16 bits, join alone", lambda: joint.join_parts(qkv, step, joined), lambda: joined[0])


def spilling() -> list[Operation]:
    """Convolutions whose kernels keep registers in local memory, as the planner cuts them, the largest of each."""
    found: dict[str, Operation] = {}
    for operation in planned("sm_90", "fp8"):
        problem, config = operation.problem, operation.config
        if problem is None or not isinstance(config, ConvConfig) or config.divides(problem.grid_px):
            continue
        name = f"{problem.format} {operation_name(operation)}"
        # Through pointers, but for what spills through descriptors only.
        by_descriptors = "upsamplers" in name or "conv_in" in name
        if name in ARCHITECTURES["sm_90"].known_spills and config.uses_tma == by_descriptors:
            found[name] = operation
    return list(found.values())


def cuts_without_spills(config: ConvConfig, problem: ConvProblem) -> Iterator[tuple[str, ConvConfig]]:
    """What was compiled ahead of time and spilled nothing."""
    if not problem.paired and config.block_n == 256:
        yield "8 parts", replace(config, epilogue_parts=8)
        yield "K 64", replace(config, block_k=64)
        yield "128 channels", replace(config, block_n=128)
    elif not problem.paired:
        yield "8 warps", replace(config, warps=8)
        yield "pixels as rows, 2 parts", replace(config, transposed=False, epilogue_parts=2)
        yield "64 channels", replace(config, block_n=64)
    if problem.paired:
        yield "pixels as rows, 4 parts", replace(config, transposed=False, epilogue_parts=4)
        yield "pixels as rows, 8 parts", replace(config, transposed=False, epilogue_parts=8)
        yield "64 channels", replace(config, block_n=64)
    if not config.uses_tma:
        yield "2 stages", replace(config, stages=2)


def convolution_runs(operation: Operation) -> Iterator[tuple[str, ConvConfig, Callable[[], ConvOutput]]]:
    """A convolution in the cut that spills, and in others."""
    problem, chosen = operation.problem, operation.config
    assert problem is not None
    assert isinstance(chosen, ConvConfig)
    kernels = triton_backend()
    given = conv_operands(problem, torch.Generator("cuda").manual_seed(0), mixes=False)
    convolve = kernels.paired_conv3d if problem.paired else kernels.conv3d

    def run(out: ConvOutput, config: ConvConfig) -> ConvOutput:
        convolve(*given, out, problem, config)
        return out

    for label, config in (("as it is", chosen), *cuts_without_spills(chosen, problem)):
        yield label, config, partial(run, conv_output(problem, config, torch.device("cuda")), config)


def convolutions(operation: Operation) -> Iterator[Candidate]:
    """The same as candidates, each checked against its reference."""
    for label, config, run in convolution_runs(operation):
        wrong = check_operation(replace(operation, config=config), triton_backend(), torch.device("cuda")).wrong
        if wrong:
            print(f"    {operation_name(operation)}, {label}: {wrong[:80]}")
        else:
            yield Candidate(label, run, lambda run=run: run().y)


def gaps() -> None:
    """One velocity: the clock's time, the kernels' and what stands between them."""
    dit = FusedDiT(
        quantized(random_dit(PUBLIC_3B, torch.device("cuda"), torch.bfloat16), [BlockFormat.all_in("fp8")] * 32)
    )
    shape = SHAPES["720p, 21 frames"]
    video, text = inputs(PUBLIC_3B, shape, dit.device)
    geometry, conditioning = dit.geometry(shape, TEXT_TOKENS), dit.conditioning(text, 1000.0)
    with torch.no_grad():
        for _ in range(3):
            dit.velocity(video, geometry, conditioning)
        alone = Candidate("velocity", lambda: dit.velocity(video, geometry, conditioning), lambda: video)
        ms, late = times([alone], 9)["velocity"]
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as seen:
            for _ in range(4):
                dit.velocity(video, geometry, conditioning)
            torch.cuda.synchronize()
    spans = sorted(
        (event.time_range.start, event.time_range.end, event.name)
        for event in seen.events()
        if event.device_type == torch.autograd.DeviceType.CUDA
    )
    spans = spans[len(spans) // 4 :]
    kernels = sum(end - begin for begin, end, _ in spans) / 3e3
    between = [(after[0] - before[1], before[2], after[2]) for before, after in pairwise(spans)]
    print(f"velocity in FP8: {ms:.1f} ms, p90 {late:.1f}; kernels {kernels:.1f} ms in {len(spans) // 3} launches")
    print(f"    between them {sum(max(gap[0], 0) for gap in between) / 3e3:.1f} ms; the longest, in us:")
    for us, before, after in sorted(between, reverse=True)[:3]:
        print(f"    {us:8.1f} {before[:48]} -> {after[:48]}", flush=True)
    names: dict[str, float] = {}
    for begin, end, name in spans:
        names[name] = names.get(name, 0) + (end - begin) / 3e3
    for name, total in sorted(names.items(), key=lambda item: -item[1])[:14]:
        print(f"    {total:8.2f} ms {name[:80]}")


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", nargs="*", help="groups whose title contains one of these")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    width, mlp = PUBLIC_3B.width, PUBLIC_3B.mlp_width
    groups: dict[str, Callable[[], Iterator[Candidate]]] = {}
    for format in FORMATS:
        groups[f"out, {format}"] = partial(sums, format, PUBLIC_3B.attention_width)
        groups[f"down, {format}"] = partial(sums, format, mlp)
        groups[f"gate and up, {format}"] = partial(gated, format)
        groups[f"qkv, {format}"] = partial(plain, format, width, 3 * PUBLIC_3B.attention_width)
    for format, number in FORMATS.items():
        for layer, label in enumerate(("regular", "shifted")):
            groups[f"attention, {label}, {format}"] = partial(attention, layer, number)
    groups["step, with a sum"] = partial(steps, True)
    groups["step, norm alone"] = partial(steps, False)
    results: dict[str, Any] = {"gpu": torch.cuda.get_device_name()}
    wanted = arguments.only or [""]
    built = {title: list(make()) for title, make in groups.items() if any(part in title for part in wanted)}
    convolved = spilling() if any(part in "conv" for part in wanted) else []
    # Everything is compiled side by side before the first kernel runs.
    compile_ahead([partial(quietly, candidate.run) for candidates in built.values() for candidate in candidates])
    compile_ahead([partial(quietly, run) for operation in convolved for _, _, run in convolution_runs(operation)])
    for title, candidates in built.items():
        results[title] = show_group(title, candidates, arguments.rounds, 4 if "attention" in title else SHOWN)
    built.clear()
    for operation in convolved:
        title = f"conv {operation.format} {operation_name(operation)}"
        results[title] = show_group(title, list(convolutions(operation)), arguments.rounds, 1)
    if any(part in "velocity" for part in wanted):
        gaps()
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
