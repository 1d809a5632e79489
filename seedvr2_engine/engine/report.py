"""What was done to a VAE, what was not and why, in numbers that are counted."""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field

from ..device import DeviceSpec
from ..kernels.architectures import ARCHITECTURES
from ..plan.describe import describe_area, describe_memory, gigabytes
from ..plan.execution_plan import ExecutionPlan, Operation, PlanMemory
from ..quant.recipe import EIGHT_BIT
from .accuracy.check import AccuracyResult

_RULE = "=" * 60


@dataclass(frozen=True)
class Measure:
    """One thing that can be done to a VAE."""

    name: str
    """What it is, as the entry's flags call it."""
    applied: bool
    """Whether it was done."""
    detail: str
    """To how much, or why not."""


@dataclass(frozen=True)
class PlannedWork:
    """What a plan says of one size."""

    work: str
    """Direction, size and frames."""
    area: str
    """Whole frames, or tiles."""
    is_exact: bool
    """Whether the schedule changes no number."""
    memory: PlanMemory
    """What it takes."""


@dataclass(frozen=True)
class LayerCount:
    """Convolutions, fused projections of the attention among them."""

    by_format: dict[str, int]
    """Number format of input and weights -> how many."""
    kept_in_16_bits: dict[str, str]
    """Layer in 16 bits -> why, where the others have 8."""
    attentions: int
    """Attention blocks."""
    flash_attentions: int
    """Of these, how many our kernels compute."""
    eight_bit_attentions: int
    """Of these, how many in 8 bits."""

    @property
    def total(self) -> int:
        """All of them; each is computed in channels-last order."""
        return sum(self.by_format.values())

    @property
    def eight_bit(self) -> int:
        """How many are computed in 8 bits."""
        return sum(self.by_format.get(format, 0) for format in EIGHT_BIT)


@dataclass(frozen=True)
class EngineReport:
    """What serves a VAE's calls, and how it came to that."""

    device: str
    """Name of the GPU, or `CPU`."""
    architecture: str
    """Such as `sm_120`; empty without a GPU."""
    precision: str
    """Format of the convolutions, or `reference` for the plain model."""
    reason: str
    """Why this one."""
    budget_bytes: int | None
    """GPU memory that plans may take; None is what is free."""
    measures: tuple[Measure, ...]
    """What was done and what was not."""
    layers: LayerCount | None = None
    """None for the plain model."""
    graphs_captured: int = 0
    """CUDA graphs recorded until now."""
    work: tuple[PlannedWork, ...] = ()
    """The sizes that were planned until now."""
    accuracy: AccuracyResult | None = None
    """What the accuracy check measured; None where there was nothing to check."""
    notes: tuple[str, ...] = field(default=())
    """What the user gets other than asked, or would not expect."""

    @property
    def family(self) -> str:
        """NVIDIA's name of the GPU's generation; empty where it is not known."""
        architecture = ARCHITECTURES.get(self.architecture)
        return "" if architecture is None else architecture.family

    def text(self) -> str:
        """The report as lines for a console."""
        tag = f"[{self.family.upper() or 'VAE'}_ENGINE]"
        where = f"{self.device} ({self.architecture})" if self.architecture else self.device
        lines = [_RULE, f"{tag} {self.precision.upper()} on {where}: {self.reason}", _RULE]
        if self.budget_bytes is not None:
            lines.append(f"{tag} VRAM budget: {gigabytes(self.budget_bytes)}")
        lines += [f"{tag} {'✓' if m.applied else '–'} {m.name}: {m.detail}" for m in self.measures]
        if self.layers is not None and self.layers.eight_bit:
            for reason, names in _by_reason(self.layers.kept_in_16_bits).items():
                lines.append(f"{tag}   16 bits: {len(names)} ({_shortened(names)}): {reason}")
        if self.accuracy is not None:
            lines.append(f"{tag} {'✓' if self.accuracy.psnr_db >= self.accuracy.min_psnr_db else '!'} Accuracy: "
                         f"{self.accuracy.describe()}")  # fmt: skip
        for planned in self.work:
            lines.append(f"{tag} {planned.work}: {planned.area}; predicted peak {describe_memory(planned.memory)}")
        lines += [f"{tag} ! {note}" for note in self.notes]
        return "\n".join([*lines, _RULE])

    def to_json(self) -> str:
        """The same as JSON."""
        return json.dumps(asdict(self), indent=1) + "\n"


def count_layers(plans: Iterable[ExecutionPlan]) -> LayerCount:
    """Count the distinct layers of the plans, which are those of one engine: best one for each direction."""
    formats: dict[str, str] = {}
    reasons: dict[str, str] = {}
    attentions: dict[str, Operation] = {}
    for plan in plans:
        for operation in (*plan.first.operations, *plan.steady.operations):
            if operation.kernel == "attention":
                attentions[operation.layer] = operation
            elif operation.problem is not None:
                formats[operation.layer] = operation.format
                reasons[operation.layer] = operation.reason
    is_quantized = any(format in EIGHT_BIT for format in formats.values())
    in_16_bits = {name: reasons[name] for name, format in formats.items() if is_quantized and format not in EIGHT_BIT}
    flash = [operation.format for operation in attentions.values() if operation.config is not None]
    in_8_bits = sum(format in EIGHT_BIT for format in flash)
    return LayerCount(dict(Counter(formats.values())), in_16_bits, len(attentions), len(flash), in_8_bits)


def describe_work(plan: ExecutionPlan) -> PlannedWork:
    """What a plan says of its size."""
    shape = plan.shape
    frames = "a stream" if shape.frames is None else f"{shape.frames} frames"
    return PlannedWork(
        f"{shape.part} {shape.width_px}x{shape.height_px}, {frames}", describe_area(plan), plan.is_exact, plan.memory
    )


def device_names(device: DeviceSpec | None) -> tuple[str, str]:
    """(name, architecture) for a report."""
    return ("CPU", "") if device is None else (device.name, device.sm)


def _by_reason(kept: dict[str, str]) -> dict[str, list[str]]:
    grouped: dict[str, list[str]] = {}
    for name, reason in kept.items():
        grouped.setdefault(reason, []).append(name)
    return grouped


def _shortened(names: list[str]) -> str:
    return ", ".join(names) if len(names) <= 3 else f"{names[0]}, {names[1]}, ..."
