"""A plan in words: the phrases that the command line and the engine's report share."""

from ..kernels.configs import AttentionConfig, ConvConfig
from .execution_plan import ExecutionPlan, Operation, PlanMemory


def describe_config(config: ConvConfig | AttentionConfig | None) -> str:
    """How a kernel cuts its work; empty for None."""
    if isinstance(config, AttentionConfig):
        loads = "descriptors" if config.uses_tma else "pointers"
        way = ", overlapping" if config.overlaps else ""
        return (
            f"{config.block_m} queries, {config.block_n} keys, {config.block_v} dimensions, {config.warps} warps, "
            f"{config.stages} stages, {loads}{way}"
        )
    return "" if config is None else config.describe()


def operation_name(operation: Operation) -> str:
    """An operation's layer, and the taps and frames of its kernel, of which one layer can have several."""
    problem = operation.problem
    if problem is None:
        return operation.layer
    taps = "x".join(map(str, problem.kernel))
    frames = " in pairs" if problem.paired else f", {problem.frames} frames" if problem.frames > 1 else ""
    return f"{operation.layer} {taps}{frames}"


def describe_memory(memory: PlanMemory) -> str:
    """The predicted peak on the GPU, and what it is made of."""
    line = (
        f"{gigabytes(memory.peak)} (weights {gigabytes(memory.weights)}, remembered frames {gigabytes(memory.rings)}, "
        f"working set {gigabytes(memory.arena)}, result {gigabytes(memory.result)})"
    )
    return f"{line}, and {gigabytes(memory.host)} of host memory" if memory.host else line


def describe_area(plan: ExecutionPlan) -> str:
    """Whole frames or tiles, and whether frames are computed in pairs."""
    pairs = ", two at a time where a step has two" if plan.in_pairs else ""
    if plan.tile_px is None:
        return f"whole frames, exact{pairs}"
    rows, columns = plan.tile_px
    return f"tiles of {columns}x{rows} px that share {plan.overlap_px} px: approximate{pairs}"


def gigabytes(size_bytes: float) -> str:
    """12_345_678_901 -> "12.35 GB" (decimal)."""
    return f"{size_bytes / 1e9:.2f} GB"
