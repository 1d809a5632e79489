"""The memory of an engine, whose clip is in it, and the step that takes one on by a latent frame."""

from collections import OrderedDict
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ...models.vae.config import VAEConfig
from ...plan.execution_plan import ExecutionPlan, Part
from ...plan.tables import SETTLED, Row, row_moves, step_rows
from ..graphs import GraphRecorder
from .backend import Backend
from .bind import Binder, BoundSchedule
from .host_rings import HostRings
from .rings import Memory, exponent_count
from .weights import WeightStore

MOST_BOUND = 8
"""Plans that stay bound, with their graphs, at the same time."""


@dataclass(eq=False)
class Clip:
    """One clip's way (or that of one of its tiles) through a plan."""

    plan: ExecutionPlan
    index: int = 0
    """Steps done."""
    saved: tuple[Tensor, ...] | None = None
    """What it remembers, while another clip has the memory."""


@dataclass(eq=False)
class BoundPlan:
    """A plan bound to the session's memory."""

    first: BoundSchedule
    steady: BoundSchedule | None
    exponents: Tensor
    host: HostRings | None
    openings: tuple[Tensor, ...]
    """Tables of the steps that do not follow from the step before."""
    moves: tuple[Tensor, Tensor] | None
    """What the tables of a settled step move by, and modulo what."""
    replays: dict[bool, Callable[[], None]] = field(default_factory=dict)
    """Graphs, of the first step (True) and of the later ones (False)."""
    runs: dict[bool, int] = field(default_factory=dict)


class Session:
    """Memory, bound plans and graphs on one device.

    The rings of each direction belong to one clip at a time; when another one steps, they are put aside in host memory
    and brought back later. So streams, tiles and batches may be interleaved at will.
    """

    def __init__(self, config: VAEConfig, backend: Backend, weights: WeightStore, device: torch.device) -> None:
        self._config = config
        self._backend = backend
        self._weights = weights
        self._device = device
        self._arena = torch.empty(0, dtype=torch.uint8, device=device)
        self._rings: dict[Part, Tensor] = {}
        self._owners: dict[Part, Clip] = {}
        self._bound: OrderedDict[int, tuple[ExecutionPlan, BoundPlan]] = OrderedDict()
        self.graphs: GraphRecorder | None = GraphRecorder() if device.type == "cuda" else None

    @property
    def memory_bytes(self) -> int:
        """Bytes of arena and rings on the device."""
        return self._arena.nbytes + sum(rings.nbytes for rings in self._rings.values())

    def reusable_bytes(self, part: Part) -> int:
        """Bytes of what is held that a new plan of `part` may have: all but the rings of an open clip elsewhere."""
        elsewhere = (rings.nbytes for other, rings in self._rings.items() if other != part and other in self._owners)
        return self.memory_bytes - sum(elsewhere)

    def step(self, clip: Clip, x: Tensor) -> Tensor:
        """Take a clip on by one latent frame; the result is overwritten by the next step.

        Decode: x (C, h, w) -> pictures (3, T, H, W), T = 1 for the first step and 4 later, FP16.
        Encode: x (3, T, H, W) -> moments (2 C, h, w), FP32.
        """
        part = clip.plan.shape.part
        with self._on_device():
            schedule = self._advance(clip, x)
        return schedule.output if part == "decode" else schedule.output[0].permute(2, 0, 1)

    def prepare(self, plan: ExecutionPlan) -> None:
        """Pack the weights and allocate the memory that a plan needs; the steps themselves allocate nothing."""
        with self._on_device():
            self._bind(plan)

    def _on_device(self) -> AbstractContextManager[object]:
        return torch.cuda.device(self._device) if self._device.type == "cuda" else nullcontext()

    def _advance(self, clip: Clip, x: Tensor) -> BoundSchedule:
        bound = self._bind(clip.plan)
        entered = self._enter(clip, bound)
        begins = clip.index == 0
        schedule = bound.first if begins or bound.steady is None else bound.steady
        self._set_tables(bound, schedule, clip.index, entered)
        if clip.plan.shape.part == "decode":
            schedule.input[0].copy_(x.permute(1, 2, 0))
        else:
            schedule.input.copy_(x)
        if bound.host is not None:
            bound.host.begin(clip.index)
        self._run(bound, schedule, begins)
        clip.index += 1
        return schedule

    def close(self, clip: Clip) -> None:
        """A clip is done: nothing it remembers is needed any more."""
        part = clip.plan.shape.part
        if self._owners.get(part) is clip:
            del self._owners[part]
        clip.saved = None

    def release(self) -> None:
        """Give all memory of arena, rings and graphs back; open clips keep what they remember in host memory."""
        self._drop_bound()
        self._arena = torch.empty(0, dtype=torch.uint8, device=self._device)
        self._rings.clear()

    def _drop_bound(self) -> None:
        for part in list(self._owners):
            self._put_aside(part)
        self._bound.clear()
        if self.graphs is not None:
            self.graphs.forget()

    def _put_aside(self, part: Part) -> None:
        clip = self._owners.pop(part)
        bound = self._bound[id(clip.plan)][1]
        if bound.host is not None:
            bound.host.finish()
        clip.saved = tuple(tensor.to("cpu", copy=True) for tensor in self._remembered(bound, clip))

    def _remembered(self, bound: BoundPlan, clip: Clip) -> tuple[Tensor, ...]:
        memory = self._rings[clip.plan.shape.part][: clip.plan.memory.rings]
        return memory, bound.exponents, *(bound.host.frames if bound.host else ())

    def _enter(self, clip: Clip, bound: BoundPlan) -> bool:
        """Make the rings the clip's own; whether they were not before."""
        part = clip.plan.shape.part
        owner = self._owners.get(part)
        if owner is clip:
            return False
        if owner is not None:
            self._put_aside(part)
        if clip.saved is not None:
            for tensor, saved in zip(self._remembered(bound, clip), clip.saved, strict=True):
                tensor.copy_(saved)
            clip.saved = None
        self._owners[part] = clip
        return True

    def _bind(self, plan: ExecutionPlan) -> BoundPlan:
        if id(plan) in self._bound:
            self._bound.move_to_end(id(plan))
            return self._bound[id(plan)][1]
        part = plan.shape.part
        self._weights.prepare([*plan.first.operations, *plan.steady.operations])
        self._grow(plan)
        while len(self._bound) >= MOST_BOUND:
            # A clip that is under way keeps its plan bound.
            owned = {id(clip.plan) for clip in self._owners.values()}
            oldest = next(key for key in self._bound if key not in owned)
            del self._bound[oldest]
        exponents = torch.zeros(exponent_count(plan), dtype=torch.int32, device=self._device)
        memory = Memory(self._arena, self._rings[part])
        host = HostRings(plan, self._device) if plan.uses_host else None
        binder = Binder(plan, self._config, self._backend, self._weights)
        steady = binder.bind(plan.steady, memory, exponents, host) if plan.steady.operations else None
        openings = [self._table(step_rows(plan, index)) for index in range(_openings(plan))]
        moves = None
        if steady is not None:
            increments, moduli = row_moves(plan)
            moves = self._table(increments), self._table(moduli)
        first = binder.bind(plan.first, memory, exponents, host)
        self._backend.compile([*first.kernels, *(steady.kernels if steady is not None else ())])
        bound = BoundPlan(first, steady, exponents, host, tuple(openings), moves)
        self._bound[id(plan)] = plan, bound
        return bound

    def _table(self, rows: list[Row]) -> Tensor:
        return torch.tensor(rows, dtype=torch.int32, device=self._device)

    def _grow(self, plan: ExecutionPlan) -> None:
        """Let arena and rings be large enough; where they must grow, everything bound to them is dropped first."""
        part, memory = plan.shape.part, plan.memory
        rings = self._rings.get(part)
        if self._arena.nbytes >= memory.arena and rings is not None and rings.nbytes >= memory.rings:
            return
        self._drop_bound()
        if self._arena.nbytes < memory.arena:
            self._arena = torch.empty(0, dtype=torch.uint8, device=self._device)
            self._arena = self._allocate(memory.arena, part)
        if rings is None or rings.nbytes < memory.rings:
            del rings
            self._rings.pop(part, None)
            self._rings[part] = self._allocate(memory.rings, part)

    def _allocate(self, size: int, part: Part) -> Tensor:
        """Memory for `part`; where there is none left, the other direction gives its own back, for nothing is bound."""
        assert not self._owners
        try:
            return torch.empty(size, dtype=torch.uint8, device=self._device)
        except torch.cuda.OutOfMemoryError:
            if set(self._rings) <= {part}:
                raise
        self._rings = {own: rings for own, rings in self._rings.items() if own == part}
        return torch.empty(size, dtype=torch.uint8, device=self._device)

    def _set_tables(self, bound: BoundPlan, schedule: BoundSchedule, index: int, entered: bool) -> None:
        if index < len(bound.openings):
            schedule.tables.copy_(bound.openings[index])
        elif entered:
            plan = next(plan for plan, other in self._bound.values() if other is bound)
            schedule.tables.copy_(torch.tensor(step_rows(plan, index), dtype=torch.int32))
        else:
            assert bound.moves is not None
            schedule.tables.add_(bound.moves[0]).remainder_(bound.moves[1])

    def _run(self, bound: BoundPlan, schedule: BoundSchedule, begins: bool) -> None:
        if begins in bound.replays:
            bound.replays[begins]()
            return
        runs = bound.runs[begins] = bound.runs.get(begins, 0) + 1
        if self.graphs is not None and bound.host is None and runs > 1:
            replay = self.graphs.record(schedule.launches)
            if replay is not None:
                bound.replays[begins] = replay
                replay()
                return
        for launch in schedule.launches:
            launch()


def _openings(plan: ExecutionPlan) -> int:
    return SETTLED + 1 if plan.steady.operations else 1
