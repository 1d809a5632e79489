"""Kernels against their FP32 references, on the device at hand, with the configurations that a plan chooses.

The same random numbers go through both. A kernel's memory is poisoned with NaN first, and it runs twice: what it leaves
out, and what differs from run to run, is found as well as what is wrong.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from ..engine.vae.backend import Backend, reference_backend
from ..kernels.configs import AttentionConfig, ConvConfig, ConvProblem
from ..kernels.conv.operands import (
    Additions,
    ConvOutput,
    ConvWeights,
    FrameTarget,
    FrameWindow,
    NormOperands,
    NormSpec,
    frame_scale,
    tile_counts,
)
from ..kernels.layout import DTYPES, WIDTH, attention_bytes, attention_operands, chunk_counts, element_bytes
from ..kernels.reference import partial_statistics, window_values
from ..models.precision import exact_float32
from ..plan.coverage import distinct_operations
from ..plan.describe import describe_config
from ..plan.execution_plan import ExecutionPlan, Operation
from ..quant import LIMITS, quantize_rows

TOLERANCES: dict[torch.dtype, float] = {
    torch.float32: 2e-3,
    torch.float16: 2e-3,
    torch.bfloat16: 4e-3,
    torch.float8_e4m3fn: 1e-2,
    torch.int8: 1e-2,
}
"""Largest relative RMS error by the format that a kernel stores: values between two steps may fall to either side."""
PRODUCT_TOLERANCES = {"fp8": 6e-3}
"""The same by the format that is multiplied, where it is larger: Hopper adds FP8 products up with about 14 bits."""
ATTENTION_8BIT_TOLERANCE = 1e-2
"""The same of attention in 8 bits: keys and probabilities near the middle of a step fall to either side."""
STATISTICS_TOLERANCE = 1e-2
"""Of a tile's statistics, relative to the largest of their kind; they are taken before the values are rounded."""
_NO_REFERENCE = Backend("nothing", *[lambda *_: None] * (len(Backend._fields) - 1))
"""For checks that only compile."""

Backends = tuple[Backend, Backend]
"""What is checked, and its reference."""


@dataclass(frozen=True)
class Check:
    """One kernel in one configuration."""

    layer: str
    """The first layer that uses it."""
    kernel: str
    """Which kernel."""
    format: str
    """Number format."""
    config: str
    """How it cuts its work."""
    error: float | None
    """Relative RMS error against the reference; None if it did not run."""
    wrong: str
    """What is wrong; empty if nothing."""


@dataclass(frozen=True)
class Outcome:
    """What a kernel gave, what its reference gave, and what is wrong with it beyond the difference."""

    actual: Tensor
    expected: Tensor
    limit: float
    """Largest relative RMS error."""
    wrong: str = ""


def check_plans(plans: Iterable[ExecutionPlan], backend: Backend, device: torch.device) -> Iterator[Check]:
    """Check every distinct kernel of some plans, each in its plan's configuration: compile all, then run one by one."""
    operations = distinct_operations(plans)
    backend.compile([partial(check_operation, operation, backend, device, _NO_REFERENCE) for operation in operations])
    for operation in operations:
        yield check_operation(operation, backend, device)


def check_operation(
    operation: Operation, backend: Backend, device: torch.device, reference: Backend | None = None
) -> Check:
    """Check one operation; whatever goes wrong becomes a sentence of the result. reference: None is the FP32 one."""
    reference = reference_backend() if reference is None else reference
    error: float | None = None
    wrong = ""
    try:
        with exact_float32(), torch.no_grad():
            for outcome in _run(operation, (backend, reference), device):
                now = relative_rms(outcome.actual, outcome.expected)
                error = now if error is None else max(error, now)
                wrong = wrong or verdict(outcome, now) or outcome.wrong
    except Exception as failure:  # Whatever a compiler or a driver raises is a finding here, not an end.
        wrong = f"does not run: {type(failure).__name__}: {(str(failure).splitlines() or [''])[0][:200]}"
    return Check(operation.layer, operation.kernel, operation.format, describe_config(operation.config), error, wrong)


def verdict(outcome: Outcome, error: float) -> str:
    """What is wrong with an outcome of this relative RMS error; empty if nothing."""
    if outcome.actual.isnan().any():
        return f"{int(outcome.actual.isnan().sum())} values were never written or are NaN"
    if not error <= outcome.limit:
        difference = (outcome.actual - outcome.expected).abs()
        place = torch.unravel_index(difference.argmax().cpu(), difference.shape)
        return f"relative error {error:.2e} instead of at most {outcome.limit:.0e}; worst at {[int(i) for i in place]}"
    return ""


def relative_rms(actual: Tensor, expected: Tensor) -> float:
    """RMS of the difference, relative to the RMS of what was expected."""
    return float((actual - expected).norm() / expected.norm().clamp(min=1e-30))


def _run(operation: Operation, backends: Backends, device: torch.device) -> Iterator[Outcome]:
    generator = torch.Generator(device).manual_seed(0)
    if operation.problem is not None:
        assert isinstance(operation.config, ConvConfig)
        for mixes in (False, True) if _can_mix(operation.problem) else (False,):
            yield _run_conv(
                operation.problem, operation.config, backends, conv_operands(operation.problem, generator, mixes=mixes)
            )
    elif operation.kernel == "norm":
        yield _run_norm(operation, backends, generator)
    elif operation.kernel == "attention":
        assert isinstance(operation.config, AttentionConfig)
        yield _run_attention(operation, operation.config, backends, generator)
    else:
        yield _run_end(operation, backends, generator)


def _can_mix(problem: ConvProblem) -> bool:
    """Whether the frames of one window can have unequal exponents, for which the kernel goes another way."""
    return problem.is_quantized and problem.kernel[0] > 1 and not problem.paired


Operands = tuple[FrameWindow, ConvWeights, Additions]


def _run_conv(problem: ConvProblem, config: ConvConfig, backends: Backends, operands: Operands) -> Outcome:
    window, weights, additions = operands
    outs = [conv_output(problem, config, window.frames.device) for _ in range(2)]
    convolve, reference = (run.paired_conv3d if problem.paired else run.conv3d for run in backends)
    for out in outs:
        convolve(window, weights, additions, out, problem, config)
    expected = torch.empty_like(outs[0].y, dtype=torch.float32)
    reference(window, weights, additions, ConvOutput(expected, None), problem, config)
    wrong = "" if torch.equal(outs[0].y, outs[1].y) or outs[0].y.isnan().any() else "two runs differ"
    if outs[0].partials is not None and not wrong:
        wrong = _statisticsverdict(outs[0].partials, expected, problem, config)
    limit = max(TOLERANCES[outs[0].y.dtype], PRODUCT_TOLERANCES.get(problem.format, 0.0))
    return Outcome(outs[0].y.float(), expected, limit, wrong)


def _statisticsverdict(partials: Tensor, expected: Tensor, problem: ConvProblem, config: ConvConfig) -> str:
    exact = partial_statistics(expected, problem, config)
    off = ((partials - exact).abs().amax((0, 1, 3)) / exact.abs().amax((0, 1, 3))).max().item()
    return "" if off <= STATISTICS_TOLERANCE else f"the tiles' statistics are off by {off:.1e}"


def conv_operands(problem: ConvProblem, generator: torch.Generator, *, mixes: bool) -> Operands:
    """Random operands: every output frame sees other frames, through another set of weights.

    mixes: whether the frames have unequal exponents.
    """
    device = generator.device
    kt, kh, kw = problem.kernel
    dtype, output = DTYPES[problem.format], DTYPES[problem.output]
    count = 4 if problem.paired else kt + problem.frames - 1
    depth = kt * kh * kw * problem.channels_in
    frames = _normal(generator, count, problem.height_px, problem.width_px, problem.channels_in)
    sets = 1 if problem.paired else min(2, problem.frames)
    rows = _normal(generator, sets * problem.phases * problem.channels_out, depth) * depth**-0.5
    exponents = scale = None
    if problem.is_quantized:
        gain = 5 if dtype == torch.int8 else 4
        frames = _to_format(frames * 2**gain, dtype)
        exponents = torch.tensor([i % 2 * mixes - gain for i in range(count)], dtype=torch.int32, device=device)
        rows, scale = quantize_rows(rows, dtype)
    table = torch.tensor([[*range(t, t + kt), t % sets] for t in range(problem.frames)], dtype=torch.int32)
    borders = 4 if problem.phases == 4 else 1
    bias = _normal(generator, sets * problem.phases, borders, problem.channels_out)
    shape = (problem.frames, *problem.output_px)
    residual = shortcut = shortcut_weight = None
    if problem.has_residual:
        residual = _normal(generator, *shape, problem.channels_out).to(output)
    if problem.shortcut_channels:
        shortcut = _normal(generator, *shape, problem.shortcut_channels).to(output)
        shortcut_weight = _normal(generator, problem.channels_out, problem.shortcut_channels)
        shortcut_weight = (shortcut_weight * problem.shortcut_channels**-0.5).to(output)
    return (
        FrameWindow(frames.to(dtype), exponents, table.to(device)),
        ConvWeights(rows.to(dtype).contiguous(), scale, bias),
        Additions(residual, shortcut, shortcut_weight),
    )


def conv_output(problem: ConvProblem, config: ConvConfig, device: torch.device) -> ConvOutput:
    """Poisoned memory for a result."""
    shape = (problem.frames, *problem.output_px, problem.channels_out)
    y = torch.full(shape, float("nan"), dtype=DTYPES[problem.output], device=device)
    if not problem.has_statistics:
        return ConvOutput(y, None)
    tiles = tile_counts(problem.grid_px, (config.tile_h, config.tile_w), problem.phases).numel()
    shape = (problem.frames, tiles, problem.statistic_rows, problem.channels_out)
    return ConvOutput(y, torch.full(shape, float("nan"), device=device))


def _run_norm(operation: Operation, backends: Backends, generator: torch.Generator) -> Outcome:
    device = generator.device
    rows, columns, channels = operation.size
    dtype = DTYPES[operation.format]
    frames = operation.frames
    x = (_normal(generator, frames, rows, columns, channels) * 2 + 1).half()
    tile = ConvConfig(8, 16, 16, 16, 4, 2, False)
    problem = ConvProblem(channels, channels, (1, 1, 1), 1, rows, columns, "fp16", has_range=dtype == torch.int8)
    counts = tile_counts((rows, columns), (tile.tile_h, tile.tile_w), 1).to(device)
    chunks = chunk_counts(counts)
    partials = partial_statistics(x, problem, tile)
    affine_parameters = _normal(generator, 2, channels)
    normalises = bool(operation.norm)
    operands = NormOperands(*affine_parameters) if normalises else NormOperands(None, None)
    spec = NormSpec(normalises, operation.activates, *frame_scale(dtype))
    past = _normal(generator, 2, rows, columns, channels)
    values = []
    for run in backends:
        combined = torch.full((frames, chunks.numel(), 4, channels), float("nan"), device=device)
        affine = torch.full((frames, 4, channels), float("nan"), device=device)
        run.combine(partials, counts, combined)
        run.finish_statistics(combined, chunks, operands, spec, affine)
        if operation.makes_winograd_inputs:
            target, winograd = (_poisoned_target(dtype, operation.size, 4, device) for _ in "ab")
            target.frames[:2].copy_(_to_format(past * 16, dtype))
            run.normalize_pair(x, affine, operands, spec, target, winograd)
            values.append(torch.cat([_values(target)[2:], _values(winograd)]))
        else:
            target = _poisoned_target(dtype, operation.size, frames, device)
            run.normalize(x, affine, operands, spec, target)
            values.append(_values(target))
    return Outcome(values[0], values[1], TOLERANCES[dtype])


def _values(target: FrameTarget) -> Tensor:
    return window_values(FrameWindow(target.frames, target.exponents, target.slots))


def _poisoned_target(dtype: torch.dtype, size: tuple[int, int, int], frames: int, device: torch.device) -> FrameTarget:
    poisoned = torch.full((frames, *size), 127 if dtype == torch.int8 else float("nan"), device=device).to(dtype)
    exponents = torch.zeros(frames, dtype=torch.int32, device=device) if dtype.itemsize == 1 else None
    return FrameTarget(poisoned, exponents, torch.arange(frames, dtype=torch.int32, device=device))


def _run_attention(
    operation: Operation, config: AttentionConfig, backends: Backends, generator: torch.Generator
) -> Outcome:
    rows, columns, width = operation.size
    length, dim = rows * columns, width // 3
    quantized = element_bytes(operation.format) == 1
    dtype = torch.float16 if quantized else DTYPES[operation.format]
    # Some queries see little but one key, and all keys have something in common, as real ones do.
    q, k, v = _normal(generator, 1, length, width).chunk(3, dim=-1)
    qkv = torch.cat([3 * q, k + _normal(generator, 1, 1, dim), v], dim=-1).to(dtype)

    def attend(run: Backend, out: Tensor) -> Tensor:
        if not quantized:
            run.attend(qkv, out, config)
            return out
        memory = torch.full((attention_bytes(length, dim),), 0x7F, dtype=torch.uint8, device=qkv.device)
        operands = attention_operands(memory, length, dim, operation.format)
        run.quantize_attention(qkv, operands, config)
        run.attend_8bit(operands, out, config)
        return out

    outs = [attend(backends[0], torch.full((1, length, dim), float("nan"), device=qkv.device).to(dtype)) for _ in "ab"]
    expected = attend(backends[1], torch.empty(1, length, dim, device=qkv.device))
    wrong = "" if torch.equal(*outs) or outs[0].isnan().any() else "two runs differ"
    limit = ATTENTION_8BIT_TOLERANCE if quantized else TOLERANCES[dtype]
    return Outcome(outs[0].float(), expected, limit, wrong)


def _run_end(operation: Operation, backends: Backends, generator: torch.Generator) -> Outcome:
    """The few-channel ends, `unfold` and `fold`."""
    rows, columns, _ = operation.size
    dtype = DTYPES[operation.format]
    values = []
    picture = _normal(generator, 3, 1, rows, columns).half()
    taps, bias = _normal(generator, 1, rows, columns, WIDTH), _normal(generator, 3)
    for run in backends:
        if operation.kernel == "unfold":
            out = torch.full((1, rows, columns, WIDTH), float("nan"), device=generator.device).to(dtype)
            run.unfold(picture, out)
        else:
            out = torch.full((3, 1, rows, columns), float("nan"), device=generator.device).to(dtype)
            run.fold(taps, bias, out)
        values.append(out.float())
    return Outcome(values[0], values[1], TOLERANCES[dtype])


def _normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, device=generator.device)


def _to_format(values: Tensor, dtype: torch.dtype) -> Tensor:
    # 16-bit frames are given no more than FP8's range.
    limit = LIMITS.get(dtype, LIMITS[torch.float8_e4m3fn])
    return (values.round() if dtype == torch.int8 else values).clamp(-limit, limit)
