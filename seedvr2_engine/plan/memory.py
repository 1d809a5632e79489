"""Where every byte lies: rings and staging, the arena of a step, and the size of packed weights."""

from dataclasses import replace

from .types import Buffer, Ring, Step
from .walk import ELEMENT_BYTES, FLOAT_BYTES, RingKey, Walk

ALIGNMENT = 512
"""Of every tensor, bytes: descriptors want 16, and PyTorch's own allocator gives 512."""
EXPONENT_BYTES = 4


def align(size: int) -> int:
    """The next multiple of the alignment."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def place_rings(walked: Walk) -> tuple[Ring, ...]:
    """The rings of a walk, one behind the other; those with host frames take turns in two places at the end."""
    rings, offset = [], 0
    for key, past in walked.members.items():
        ring = _ring(walked.names[key], key, past)
        if not ring.host_frames:
            ring = replace(ring, offset=offset)
            offset += align(ring.bytes)
        rings.append(ring)
    stage = max((align(ring.bytes) for ring in rings if ring.host_frames), default=0)
    turn = 0
    for index, ring in enumerate(rings):
        if ring.host_frames:
            rings[index] = replace(ring, offset=offset + turn * stage)
            turn = 1 - turn
    return tuple(rings)


def _ring(name: str, key: RingKey, past: int) -> Ring:
    rows, columns, channels = key.size
    frame_bytes = rows * columns * channels * ELEMENT_BYTES[key.format]
    host_frames = past if key.layer else 0
    return Ring(name, key.segment, key.size, key.format, past + 1, frame_bytes, host_frames=host_frames)


def rings_bytes(rings: tuple[Ring, ...]) -> int:
    """GPU memory of all rings together."""
    return max((ring.offset + align(ring.bytes) for ring in rings), default=0)


def host_bytes(rings: tuple[Ring, ...]) -> int:
    """Pinned host memory of all rings together."""
    return sum(ring.host_frames * ring.frame_bytes for ring in rings)


def place_buffers(walked: Walk, kept: dict[str, int]) -> tuple[Buffer, ...]:
    """Lifetimes and places of all buffers of a step; those in `kept` (name -> bytes) live from end to end.

    Each buffer goes to the lowest place that is free all its life, the largest first.
    """
    sizes = {**walked.sizes, **kept}
    lives: dict[str, tuple[int, int]] = {name: (0, len(walked.steps)) for name in kept}
    for index, step in enumerate(walked.steps):
        for name in touched(step):
            first, _ = lives.get(name, (index, index))
            if name not in kept:
                lives[name] = first, index
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


def touched(step: Step) -> list[str]:
    """The buffers that a step reads or writes."""
    names = [step.source, step.target, step.partials, step.shortcut]
    if step.kernel == "norm":
        names += [f"{step.layer}.combined", f"{step.layer}.affine"]
    return [name for name in names if name]


def arena_bytes(buffers: tuple[Buffer, ...]) -> int:
    """Memory of a step's buffers together."""
    return max((align(buffer.offset + buffer.bytes) for buffer in buffers), default=0)


def weight_bytes(step: Step, sets: int) -> int:
    """Packed weights of a convolution with `sets` kernels: data, scales, biases and the fused shortcut's matrix."""
    problem = step.problem
    assert problem is not None
    kt, kh, kw = problem.kernel
    rows = sets * problem.phases * problem.channels_out
    data = rows * kt * kh * kw * problem.channels_in * ELEMENT_BYTES[problem.format]
    scale = rows * FLOAT_BYTES if problem.is_quantized else 0
    bias = rows * (4 if problem.phases == 4 else 1) * FLOAT_BYTES
    shortcut = problem.channels_out * problem.shortcut_channels * ELEMENT_BYTES[problem.output]
    return sum(align(size) for size in (data, scale, bias, shortcut) if size)


def weight_sets(step: Step) -> int:
    """Kernels of a layer: four where an upsampler doubles time (two steady ones, two for the clip's second frame)."""
    problem = step.problem
    assert problem is not None
    return 4 if step.pace == "up" and problem.kernel[0] == 2 else 1
