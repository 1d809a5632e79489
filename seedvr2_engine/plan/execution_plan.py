"""The plan of an encode or a decode: which kernel runs which layer how, and where every byte lies.

A clip is walked one latent frame at a time. The layers form *segments*, parts of the network with one frame rate, which
run frame by frame or pair by pair, depth first. What a convolution remembers of earlier frames stands in a *ring*.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Literal

from ..kernels.configs import AttentionConfig, ConvConfig, ConvProblem, Format

Part = Literal["encode", "decode"]
KernelName = Literal["unfold", "load", "norm", "conv3d", "attention", "fold"]
TemporalRate = Literal["same", "up", "down"]

LATENT_CELL_PX = 8
"""Picture pixels along one edge of a latent cell."""
FRAMES_PER_STEP = 4
"""Picture frames of one step, the first of a clip excepted, which has one."""


@dataclass(frozen=True)
class VAEShape:
    """What is to be encoded or decoded."""

    part: Part
    """Direction."""
    height_px: int
    """Rows of the picture; for a decode a multiple of 8."""
    width_px: int
    """Columns of the picture; for a decode a multiple of 8."""
    frames: int | None = None
    """Picture frames of the clip, 4n+1; None if that is not known, as in a stream."""

    @property
    def is_picture(self) -> bool:
        """Whether there is only one frame, so that nothing need be remembered."""
        return self.frames == 1

    @property
    def latent_px(self) -> tuple[int, int]:
        """(rows, columns) of the latent."""
        return self.height_px // LATENT_CELL_PX, self.width_px // LATENT_CELL_PX


@dataclass(frozen=True)
class Ring:
    """Frames that convolutions of one shape and one segment remember, and slots for the one or two newest.

    The convolutions share the ring: frame t of one with base b is in slot (t - b) mod slots. What one of them no longer
    needs is thereby just where the next one writes.
    """

    name: str
    """The first layer that uses it, and the format."""
    segment: int
    """Segment whose frames are counted."""
    size: tuple[int, int, int]
    """(rows, columns, channels) of a frame."""
    format: Format
    """Number format of the frames."""
    slots: int
    """Frames it holds on the GPU."""
    frame_bytes: int
    """Bytes of a frame."""
    offset: int | None = 0
    """Where it begins in the memory of the rings, bytes. None for the ring of one layer that keeps nothing on the GPU
    from one use to the next: a buffer of the arena, called `ring_buffer(index)`, then takes its place."""
    host_frames: int = 0
    """Frames that wait in pinned host memory between two uses; 0 if none do."""
    fetched_early: bool = False
    """Whether they are fetched while the layer before computes, or only when their own turn has come."""

    @property
    def bytes(self) -> int:
        """Bytes on the GPU."""
        return self.slots * self.frame_bytes


def ring_buffer(index: int) -> str:
    """Name of the buffer that stands for ring `index` within a step."""
    return f"ring {index}"


@dataclass(frozen=True)
class RingSlot:
    """One layer's place in a ring."""

    ring: int
    """Index of the ring."""
    base: int
    """The layer's frame t is in slot (t - base) mod slots."""


@dataclass(frozen=True)
class Buffer:
    """A tensor that lives within a step."""

    name: str
    """The layer that writes it, and what it is."""
    bytes: int
    """Size."""
    first: int
    """Index of the step's operation that writes it."""
    last: int
    """Index of the last operation that reads it."""
    offset: int = 0
    """Where it begins in the arena, bytes."""


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One operation."""

    layer: str
    """The convolution that is run or prepared, by its name in the checkpoint."""
    kernel: KernelName
    """What runs."""
    segment: int
    """Segment it belongs to."""
    source: str
    """Buffer that is read; empty where a ring is."""
    target: str
    """Buffer that is written; empty where only a ring is. A norm with one prepares a pair of frames for a convolution
    that computes both from four Winograd inputs, which it writes there."""
    size: tuple[int, int, int]
    """(rows, columns, channels) of what is read."""
    partials: str = ""
    """Buffer of the partial statistics: a convolution writes it, a norm reads it."""
    counts: tuple[int, int, int, int, int] | None = None
    """Of the statistics that a norm reads: rows and columns of the grid, of a tile, and phases."""
    shortcut: str = ""
    """Buffer that a fused shortcut reads."""
    slot: RingSlot | None = None
    """Ring that is written (load, norm) or read (convolution)."""
    temporal_rate: TemporalRate = "same"
    """Whether a convolution doubles or halves the frame rate."""
    norm: str = ""
    """Name of the GroupNorm; empty where a tensor is only quantised."""
    activates: bool = True
    """Whether SiLU follows the norm."""
    problem: ConvProblem | None = None
    """What a convolution computes."""
    config: ConvConfig | AttentionConfig | None = None
    """How the kernel cuts its work; None for an attention that PyTorch computes."""
    format: Format = "fp16"
    """Number format of the convolution's input and weights."""
    reason: str = ""
    """Why this format."""
    frames: int = 1
    """Frames of its segment that one run computes: 1, or 2."""

    @property
    def flops(self) -> int:
        """Floating-point operations of one run: of a convolution or an attention; 0 for anything else."""
        if self.problem is not None:
            return self.problem.flops
        if self.kernel == "attention":
            rows, columns, channels = self.size
            return 4 * (channels // 3) * (rows * columns) ** 2
        return 0

    @property
    def makes_winograd_inputs(self) -> bool:
        """Whether it prepares the four Winograd inputs of a paired convolution."""
        return self.kernel == "norm" and bool(self.target)


@dataclass(frozen=True)
class PlanMemory:
    """Bytes that a plan needs; what the engine allocates."""

    weights: int
    """Packed weights of this direction on the GPU, tables, and the workspace that cuBLAS keeps after packing."""
    rings: int
    """Remembered frames on the GPU."""
    arena: int
    """Tensors within a step; their places are reused."""
    result: int
    """What the caller receives: the whole clip, or one step of a stream; with tiles also the blend's sums."""
    host: int
    """Remembered frames in pinned host memory."""

    @property
    def peak(self) -> int:
        """Bytes of GPU memory at the peak."""
        return self.weights + self.rings + self.arena + self.result


@dataclass(frozen=True)
class Schedule:
    """The operations of one step: of a clip's first frame, or of all later steps."""

    operations: tuple[Operation, ...]
    """Operations by segment; each segment once."""
    buffers: tuple[Buffer, ...]
    """Tensors within a step; lifetimes in indices of `operations`."""
    order: tuple[int, ...]
    """Segments in the order in which they run."""

    @cached_property
    def places(self) -> dict[str, Buffer]:
        """The buffers by name."""
        return {buffer.name: buffer for buffer in self.buffers}

    def executions(self) -> Iterator[tuple[Operation, int]]:
        """Every operation of the step as it comes, with how many frames of its segment ran before in this step."""
        runs: dict[int, int] = {}
        for segment in self.order:
            run = runs.get(segment, 0)
            for operation in self.operations:
                if operation.segment == segment:
                    yield operation, run
            runs[segment] = run + self.frames_of_run(segment)

    def frames_of_run(self, segment: int) -> int:
        """Frames that one run of a segment computes."""
        return next(operation.frames for operation in self.operations if operation.segment == segment)

    def frames_of(self, segment: int) -> int:
        """Frames of a segment that the whole step computes."""
        return self.order.count(segment) * self.frames_of_run(segment)


@dataclass(frozen=True)
class ExecutionPlan:
    """Everything that is decided before the first kernel runs."""

    shape: VAEShape
    """What is processed, whole."""
    device: str
    """The GPU it is for."""
    precision: str
    """The recipe's format."""
    tile_px: tuple[int, int] | None
    """(rows, columns) of a spatial tile in picture pixels; None for whole frames."""
    overlap_px: int
    """Pixels that neighbouring tiles share."""
    first: Schedule
    """The first frame of a clip, with temporal taps folded into one."""
    steady: Schedule
    """All later steps; empty for a picture."""
    rings: tuple[Ring, ...]
    """What is remembered from step to step."""
    memory: PlanMemory
    """What it takes."""
    refusals: tuple[str, ...] = ()
    """Why the kernels cannot run this; empty if they can."""

    @property
    def is_exact(self) -> bool:
        """Whether the schedule changes no number: whole frames, whatever is cut in time."""
        return self.tile_px is None

    @property
    def in_pairs(self) -> bool:
        """Whether convolutions compute two frames at once from Winograd inputs."""
        return any(operation.makes_winograd_inputs for operation in self.steady.operations)

    @property
    def uses_host(self) -> bool:
        """Whether remembered frames wait in host memory."""
        return any(ring.host_frames for ring in self.rings)

    def frames_before(self, segment: int, step: int) -> int:
        """Frames of a segment that were run before a step; step 0 is the first frame of the clip."""
        return 0 if step == 0 else 1 + (step - 1) * self.steady.frames_of(segment)

    def convolutions(self, *, first: bool = False) -> Iterator[Operation]:
        """The operations that are convolutions, of the later steps of a clip, or of its first frame."""
        schedule = self.first if first or not self.steady.operations else self.steady
        return (operation for operation in schedule.operations if operation.problem is not None)

    def flops(self, *, first: bool) -> int:
        """Floating-point operations of the first frame, or of one later step: convolutions and attention."""
        return sum(operation.flops for operation, _ in (self.first if first else self.steady).executions())

    def to_json(self) -> str:
        """The plan as JSON."""
        return json.dumps(asdict(self))
