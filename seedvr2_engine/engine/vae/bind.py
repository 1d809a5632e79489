"""A plan's operations bound to memory: every launch with its tensors, ready to be called or captured."""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from ...kernels.configs import AttentionConfig, ConvConfig
from ...kernels.conv.operands import (
    Additions,
    ConvOutput,
    FrameTarget,
    FrameWindow,
    NormOperands,
    NormSpec,
    frame_scale,
    tile_counts,
)
from ...kernels.layout import DTYPES, PICTURE_FORMAT, WIDTH, attention_operands, chunk_counts, tiles_per_chunk
from ...models.vae.config import VAEConfig
from ...plan.execution_plan import ExecutionPlan, Operation, Schedule
from ...plan.lowering import FLOAT_BYTES
from ...plan.tables import ROW, row_count
from ...plan.target import exponents_buffer
from ..graphs import Launch
from .backend import Backend, attend_with_torch
from .host_rings import HostRings
from .rings import Memory, RingTensors, ring_tensors
from .weights import WeightStore


@dataclass(frozen=True)
class BoundSchedule:
    """The launches of one step."""

    launches: tuple[Launch, ...]
    """In order."""
    kernels: tuple[Launch, ...]
    """Those among them that are kernels of the backend."""
    tables: Tensor
    """(rows, 4) int32, which the launches look into; its contents move from step to step."""
    input: Tensor
    """What the step reads: latent (1, h, w, C), or pictures (3, T, H, W)."""
    output: Tensor
    """What it writes: pictures (3, T, H, W), or moments (1, h, w, 2 C) FP32."""


class Binder:
    """Binds the schedules of one plan."""

    def __init__(self, plan: ExecutionPlan, config: VAEConfig, backend: Backend, weights: WeightStore) -> None:
        self._plan = plan
        self._config = config
        self._backend = backend
        self._weights = weights
        self._counts: dict[tuple[int, int, int, int, int], tuple[Tensor, Tensor]] = {}

    def bind(self, schedule: Schedule, memory: Memory, exponents: Tensor, host: HostRings | None) -> BoundSchedule:
        """All launches of a step over `memory`."""
        device = memory.arena.device
        executions = list(schedule.executions())
        rows = sum(row_count(operation) for operation, _ in executions)
        tables = torch.zeros(rows, ROW, dtype=torch.int32, device=device)
        rings = ring_tensors(self._plan, schedule, memory, exponents)
        space = _Space(schedule, memory, rings, tables)
        frames = sum(operation.frames for operation, _ in executions if operation.kernel in ("unfold", "fold"))
        pictures = (3, frames, self._plan_px()[0], self._plan_px()[1])
        decodes = self._plan.shape.part == "decode"
        first, last = schedule.operations[0], schedule.operations[-1]
        if decodes:
            entry = space.view("input", (1, *first.size), DTYPES[first.format])
            result = space.view("output", pictures, DTYPES[PICTURE_FORMAT])
        else:
            assert last.problem is not None
            entry = space.view("input", pictures, DTYPES[PICTURE_FORMAT])
            result = space.view("output", (1, *last.problem.output_px, last.problem.channels_out), torch.float32)
        launches: list[Launch] = []
        kernels: list[Launch] = []
        row = 0
        for operation, run in executions:
            picture = (result if decodes else entry)[:, run : run + operation.frames]
            bound = self._launches(operation, space, row, picture)
            launches += bound if host is None else host.surround(operation, bound, schedule, rings)
            if operation.kernel != "attention" or operation.config is not None:
                kernels += bound
            row += row_count(operation)
        return BoundSchedule(tuple(launches), tuple(kernels), tables, entry, result)

    def _plan_px(self) -> tuple[int, int]:
        operation = self._plan.first.operations[-1 if self._plan.shape.part == "decode" else 0]
        return operation.size[0], operation.size[1]

    def _launches(self, operation: Operation, space: "_Space", row: int, picture: Tensor) -> list[Launch]:
        backend = self._backend
        if operation.kernel == "unfold":
            unfolded = space.view(operation.target, (operation.frames, *operation.size), DTYPES[operation.format])
            return [partial(backend.unfold, picture, unfolded)]
        if operation.kernel == "fold":
            taps = space.view(operation.source, (operation.frames, *operation.size[:2], WIDTH), torch.float32)
            return [partial(backend.fold, taps, self._weights.picture_bias(), picture)]
        if operation.kernel == "load":
            return [self._load(operation, space, row)]
        if operation.kernel == "norm":
            return self._norm(operation, space, row)
        if operation.kernel == "attention":
            return self._attention(operation, space)
        return [self._conv(operation, space, row)]

    def _load(self, operation: Operation, space: "_Space", row: int) -> Launch:
        frames, channels = operation.frames, operation.size[2]
        nothing = torch.tensor([0.0, 1.0, 0.0, 0.0], device=space.device)[None, :, None]
        affine = nothing.expand(frames, 4, channels).contiguous()
        x = space.view(operation.source, (frames, *operation.size), DTYPES[operation.format])
        spec = NormSpec(normalises=False, activates=False)
        return partial(self._backend.normalize, x, affine, NormOperands(None, None), spec, space.target(operation, row))

    def _norm(self, operation: Operation, space: "_Space", row: int) -> list[Launch]:
        assert operation.counts is not None
        counts, chunks = self._tile_counts(operation.counts, space.device)
        frames, channels = operation.frames, operation.size[2]
        x = space.view(operation.source, (frames, *operation.size), space.activation_dtype)
        rows = space.bytes(operation.partials) // (frames * FLOAT_BYTES * counts.numel() * channels)
        partials = space.view(operation.partials, (frames, counts.numel(), rows, channels), torch.float32)
        combined = space.view(f"{operation.layer}.combined", (frames, chunks.numel(), 4, channels), torch.float32)
        affine = space.view(f"{operation.layer}.affine", (frames, 4, channels), torch.float32)
        operands, target = self._weights.norm(operation), space.target(operation, row)
        spec = NormSpec(
            bool(operation.norm),
            operation.activates,
            *frame_scale(DTYPES[operation.format], is_smoothed=self._weights.is_smoothed(operation)),
            groups=self._config.norm_groups,
            # The variance is that of the stored tensor.
            eps=self._config.norm_eps * 4.0 ** -self._weights.scaling.of(operation.source),
        )
        normalize = partial(self._backend.normalize, x, affine, operands, spec, target)
        if operation.makes_winograd_inputs:
            winograd = FrameTarget(*space.winograd(operation.target, operation), target.slots)
            normalize = partial(self._backend.normalize_pair, x, affine, operands, spec, target, winograd)
        return [
            partial(self._backend.combine, partials, counts, combined),
            partial(self._backend.finish_statistics, combined, chunks, operands, spec, affine),
            normalize,
        ]

    def _attention(self, operation: Operation, space: "_Space") -> list[Launch]:
        rows, columns, width = operation.size
        qkv = space.view(operation.source, (1, rows * columns, width), space.activation_dtype)
        y = space.view(operation.target, (1, rows * columns, width // 3), space.activation_dtype)
        if operation.config is None:
            return [partial(attend_with_torch, qkv, y)]
        assert isinstance(operation.config, AttentionConfig)
        name = f"{operation.layer}.operands"
        if name not in space.schedule.places:
            return [partial(self._backend.attend, qkv, y, operation.config)]
        memory = space.view(name, (space.bytes(name),), torch.uint8)
        operands = attention_operands(memory, rows * columns, width // 3, operation.format)
        return [
            partial(self._backend.quantize_attention, qkv, operands, operation.config),
            partial(self._backend.attend_8bit, operands, y, operation.config),
        ]

    def _conv(self, operation: Operation, space: "_Space", row: int) -> Launch:
        problem, config = operation.problem, operation.config
        assert problem is not None
        assert isinstance(config, ConvConfig)
        frames, taps = operation.frames, problem.kernel[0]
        first = row * ROW
        if problem.paired:
            window = FrameWindow(*space.winograd(operation.source, operation), space.tables)
        elif operation.slot is not None:
            table = space.tables.view(-1)[first : first + frames * (taps + 1)].view(frames, -1)
            ring = space.rings[operation.slot.ring]
            window = FrameWindow(ring.frames, ring.exponents, table)
        else:
            table = space.tables.view(-1)[first : first + taps + 1].view(1, -1)
            window = FrameWindow(
                space.view(operation.source, (1, *operation.size), DTYPES[operation.format]), None, table
            )
        weights = self._weights.layer(operation)
        size = (frames, *problem.output_px, problem.channels_out)
        y = space.view(operation.target, size, DTYPES[problem.output])
        partials = shortcut = None
        if operation.shortcut:
            shortcut = space.view(operation.shortcut, (*size[:3], problem.shortcut_channels), DTYPES[problem.output])
        if operation.partials:
            tiles = tile_counts(problem.grid_px, (config.tile_h, config.tile_w), problem.phases).numel()
            partials = space.view(
                operation.partials, (frames, tiles, problem.statistic_rows, problem.channels_out), torch.float32
            )
        additions = Additions(y if problem.has_residual else None, shortcut, weights.shortcut)
        convolve = self._backend.paired_conv3d if problem.paired else self._backend.conv3d
        return partial(convolve, window, weights.conv, additions, ConvOutput(y, partials), problem, config)

    def _tile_counts(self, key: tuple[int, int, int, int, int], device: torch.device) -> tuple[Tensor, Tensor]:
        if key not in self._counts:
            rows, columns, tile_h, tile_w, phases = key
            counts = tile_counts((rows, columns), (tile_h, tile_w), phases)
            assert chunk_counts(counts).numel() == -(-counts.numel() // tiles_per_chunk(counts.numel()))
            self._counts[key] = counts.to(device), chunk_counts(counts).to(device)
        return self._counts[key]


@dataclass(frozen=True)
class _Space:
    """Where the tensors of a step are."""

    schedule: Schedule
    memory: Memory
    rings: tuple[RingTensors, ...]
    tables: Tensor

    @property
    def device(self) -> torch.device:
        return self.memory.arena.device

    @property
    def activation_dtype(self) -> torch.dtype:
        """Of the tensors between the layers."""
        return next(
            DTYPES[operation.problem.output] for operation in self.schedule.operations if operation.problem is not None
        )

    def view(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """A buffer as a tensor."""
        buffer = self.schedule.places[name]
        view = self.memory.arena[buffer.offset : buffer.offset + buffer.bytes].view(dtype)
        return view.view(shape)

    def bytes(self, name: str) -> int:
        """The size of a buffer."""
        return self.schedule.places[name].bytes

    def winograd(self, name: str, operation: Operation) -> tuple[Tensor, Tensor | None]:
        """The four Winograd inputs of an operation's size, and their exponents."""
        dtype = DTYPES[operation.format]
        exponents = self.view(exponents_buffer(name), (4,), torch.int32) if dtype.itemsize == 1 else None
        return self.view(name, (4, *operation.size), dtype), exponents

    def target(self, operation: Operation, row: int) -> FrameTarget:
        """Where an operation writes frames, behind the slots of those that it reads."""
        assert operation.slot is not None
        ring = self.rings[operation.slot.ring]
        slots = operation.frames * (2 if operation.makes_winograd_inputs else 1)
        return FrameTarget(ring.frames, ring.exponents, self.tables.view(-1)[row * ROW : row * ROW + slots])
