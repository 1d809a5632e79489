"""Where every byte lies: rings, the arena of a step, and the size of packed weights."""

from dataclasses import replace

from ..kernels.layout import element_bytes
from .execution_plan import Buffer, Operation, Ring, ring_buffer
from .lowering import FLOAT_BYTES, Lowering
from .target import RingKey, exponents_buffer

ALIGNMENT = 512
"""Of every tensor, bytes: descriptors want 16, and PyTorch's own allocator gives 512."""


def align(size: int) -> int:
    """The next multiple of the alignment."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def place_rings(lowered: Lowering) -> tuple[Ring, ...]:
    """The rings of one direction, one behind the other."""
    rings, offset = [], 0
    for key, past in lowered.members.items():
        ring = _ring(lowered.names[key], key, past + lowered.frames(key.segment))
        if key.layer:
            early = past > 0 and lowered.target.fetches_early
            ring = replace(ring, offset=None, host_frames=past, fetched_early=early)
        else:
            ring = replace(ring, offset=offset)
            offset += align(ring.bytes)
        rings.append(ring)
    return tuple(rings)


def _ring(name: str, key: RingKey, slots: int) -> Ring:
    rows, columns, channels = key.size
    frame_bytes = rows * columns * channels * element_bytes(key.format)
    return Ring(name, key.segment, key.size, key.format, slots, frame_bytes)


def rings_bytes(rings: tuple[Ring, ...]) -> int:
    """GPU memory of all rings together."""
    return sum(align(ring.bytes) for ring in rings if ring.offset is not None)


def host_bytes(rings: tuple[Ring, ...]) -> int:
    """Pinned host memory of all rings together."""
    return sum(ring.host_frames * ring.frame_bytes for ring in rings)


def place_buffers(lowered: Lowering, rings: tuple[Ring, ...], kept: dict[str, int]) -> tuple[Buffer, ...]:
    """Lifetimes and places of all buffers of a step; those in `kept` (name -> bytes) live from end to end.

    Each buffer goes to the lowest place that is free all its life, the largest first.
    """
    sizes = {**lowered.sizes, **kept}
    sizes |= {ring_buffer(index): ring.bytes for index, ring in enumerate(rings) if ring.offset is None}
    lives: dict[str, tuple[int, int]] = {}
    for index, operation in enumerate(lowered.operations):
        for name in touched(operation):
            if name in sizes:
                first, _ = lives.get(name, (index, index))
                lives[name] = first, index
    lives |= _host_lives(lowered, rings, lives)
    lives |= {name: (0, len(lowered.operations)) for name in kept}
    buffers = [Buffer(name, sizes[name], *lives[name]) for name in lives]
    placed: list[Buffer] = []
    for buffer in sorted(buffers, key=lambda buffer: (-buffer.bytes, buffer.first)):
        others = [other for other in placed if other.first <= buffer.last and buffer.first <= other.last]
        offset = 0
        for other in sorted(others, key=lambda other: other.offset):
            if other.offset - offset >= buffer.bytes:
                break
            offset = max(offset, align(other.offset + other.bytes))
        placed.append(replace(buffer, offset=offset))
    return tuple(sorted(placed, key=lambda buffer: (buffer.first, buffer.name)))


def touched(operation: Operation) -> list[str]:
    """The buffers that an operation reads or writes; that of a ring which stays on the GPU is not there."""
    names = [operation.source, operation.target, operation.partials, operation.shortcut]
    if operation.slot is not None:
        names.append(ring_buffer(operation.slot.ring))
    if operation.makes_winograd_inputs:
        names.append(exponents_buffer(operation.target))
    elif operation.problem is not None and operation.problem.paired:
        names.append(exponents_buffer(operation.source))
    if operation.kernel == "norm":
        names += [f"{operation.layer}.combined", f"{operation.layer}.affine"]
    if operation.kernel == "attention" and element_bytes(operation.format) == 1:
        names.append(f"{operation.layer}.operands")
    return [name for name in names if name]


def _host_lives(
    lowered: Lowering, rings: tuple[Ring, ...], lives: dict[str, tuple[int, int]]
) -> dict[str, tuple[int, int]]:
    """Lives of rings that wait in host memory: each is fetched while the one before it is in use."""
    longer: dict[str, tuple[int, int]] = {}
    since: dict[int, int] = {}
    for index, operation in enumerate(lowered.operations):
        start = since.setdefault(operation.segment, index)
        if operation.slot is not None and operation.problem is None and rings[operation.slot.ring].fetched_early:
            name = ring_buffer(operation.slot.ring)
            longer[name] = start, lives[name][1]
            since[operation.segment] = index
    return longer


def arena_bytes(buffers: tuple[Buffer, ...]) -> int:
    """Memory of a step's buffers together."""
    return max((align(buffer.offset + buffer.bytes) for buffer in buffers), default=0)


def weight_bytes(operation: Operation, sets: int) -> int:
    """Packed weights of a convolution with `sets` kernels: data, scales, biases and the fused shortcut's matrix."""
    problem = operation.problem
    assert problem is not None
    kt, kh, kw = problem.kernel
    rows = sets * problem.phases * problem.channels_out
    data = rows * kt * kh * kw * problem.channels_in * element_bytes(problem.format)
    scale = rows * FLOAT_BYTES if problem.is_quantized else 0
    bias = rows * (4 if problem.phases == 4 else 1) * FLOAT_BYTES
    shortcut = problem.channels_out * problem.shortcut_channels * element_bytes(problem.output)
    return sum(align(size) for size in (data, scale, bias, shortcut) if size)


def weight_sets(operation: Operation) -> int:
    """Kernels of a layer: four where an upsampler doubles time (two steady ones, two for the clip's second frame)."""
    problem = operation.problem
    assert problem is not None
    return 4 if operation.temporal_rate == "up" and problem.kernel[0] == 2 else 1
