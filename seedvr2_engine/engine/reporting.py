"""Makes the report of what serves: of the engine, counted anew whenever it is asked for, or of the plain model."""

from ..device import DeviceSpec
from ..plan import VAEShape, compile_vae_plan
from ..plan.choices import PrecisionDecision, memory_budget_bytes
from ..plan.execution_plan import Part
from .accuracy.check import AccuracyResult
from .report import EngineReport, Measure, count_layers, describe_work, device_names
from .settings import Settings
from .vae.engine import VAEEngine

_NOMINAL_PX = (1088, 1920)
"""Rows and columns that a report tells the memory of before anything was decoded."""


def report_plain(
    settings: Settings, spec: DeviceSpec | None, reason: str, notes: tuple[str, ...], *, benchmarks: bool
) -> EngineReport:
    """The plain model, and why it serves; benchmarks: whether cuDNN times its algorithms for it."""
    no_kernels = "the plain model serves"
    why_not = "no GPU" if settings.enable_cudnn_benchmark else "switched off"
    measures = (
        Measure("8-bit formats", False, no_kernels),
        Measure("channels-last 3D", False, no_kernels),
        Measure("flash attention", False, "PyTorch's attention serves, which has no flash kernel for this head"),
        Measure("CUDA graphs", False, no_kernels),
        Measure("TF32", False, "the plain model's FP32 is exact" if settings.enable_tf32 else "switched off"),
        Measure("cuDNN benchmark", benchmarks, "around every call" if benchmarks else why_not),
    )
    return EngineReport(*device_names(spec), "reference", reason, None, measures, notes=notes)


def report_engine(
    engine: VAEEngine,
    settings: Settings,
    decision: PrecisionDecision,
    result: AccuracyResult | None = None,
    notes: tuple[str, ...] = (),
) -> EngineReport:
    """Count what an engine does now; the memory is that of a 1920x1088 stream."""
    spec = engine.device_spec
    budget = engine.options.budget_bytes or memory_budget_bytes(spec, None)
    parts: tuple[Part, ...] = ("decode", "encode")
    nominal = [
        compile_vae_plan(engine.config, engine.recipe, spec, VAEShape(part, *_NOMINAL_PX), budget, engine.options.plan)
        for part in parts
    ]
    layers = count_layers(nominal)
    graphs = engine.session.graphs
    captured = graphs.captured if graphs is not None else 0
    formats = f"{layers.eight_bit} of {layers.total} convolutions ({_listed(layers.by_format)})"
    flash = (
        f"{layers.flash_attentions} of {layers.attentions} attention blocks, {layers.eight_bit_attentions} in 8 bits"
    )
    no_product = "nothing to do: no FP32 matrix product is left" if settings.enable_tf32 else "switched off"
    no_cudnn = "nothing to do: cuDNN computes nothing" if settings.enable_cudnn_benchmark else "switched off"
    measures = (
        Measure(
            "8-bit formats", layers.eight_bit > 0, formats if layers.eight_bit else _why_16_bit(settings, decision)
        ),
        Measure("channels-last 3D", True, f"all {layers.total} convolutions, from the first to the last"),
        Measure("flash attention", layers.flash_attentions > 0, flash),
        _graph_measure(settings, captured, graphs.reason if graphs is not None else ""),
        Measure("TF32", False, no_product),
        Measure("cuDNN benchmark", False, no_cudnn),
    )
    return EngineReport(
        *device_names(spec),
        precision=str(decision.format),
        reason=decision.reason,
        budget_bytes=engine.options.budget_bytes,
        measures=measures,
        layers=layers,
        graphs_captured=captured,
        work=tuple(describe_work(plan) for plan in nominal),
        accuracy=result,
        notes=notes,
    )


def _graph_measure(settings: Settings, captured: int, failure: str) -> Measure:
    if not settings.enable_cuda_graphs:
        return Measure("CUDA graphs", False, "switched off")
    if failure:
        return Measure("CUDA graphs", False, failure)
    return Measure("CUDA graphs", captured > 0, f"{captured} captured" if captured else "none yet: the first call does")


def _why_16_bit(settings: Settings, decision: PrecisionDecision) -> str:
    return "switched off" if not settings.enable_fp8 else f"{decision.format} was {decision.reason}"


def _listed(by_format: dict[str, int]) -> str:
    return ", ".join(f"{format.upper()} {count}" for format, count in by_format.items())
