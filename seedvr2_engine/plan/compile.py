"""From a model, a recipe, a GPU and a shape to a plan: the most exact and fastest one that the memory allows.

In this order: whole frames with everything on the GPU, two at a time where that is faster, else one at a time; whole
frames with remembered frames in pinned host memory, as few layers as will do; spatial tiles, as large as will do.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from ..device import DeviceSpec
from ..errors import InvalidArgumentError
from ..kernels.layout import PICTURE_FORMAT, WIDTH, element_bytes
from ..models.vae.config import VAEConfig
from ..models.vae.tiling import TileSpec
from ..quant import QuantRecipe
from .execution_plan import (
    FRAMES_PER_STEP,
    LATENT_CELL_PX,
    ExecutionPlan,
    Operation,
    PlanMemory,
    Ring,
    Schedule,
    VAEShape,
)
from .lowering import Lowering, lower
from .memory import arena_bytes, host_bytes, place_buffers, place_rings, rings_bytes, weight_bytes, weight_sets
from .target import Target, can_pair
from .tiling import OVERLAP_PX, needs_tiles, result_bytes, tile_candidates, tile_size

LIBRARY_BYTES = 40 << 20
"""Workspace that cuBLAS keeps once weights have been composed with it (32 MiB on Hopper, where measured peaks exceeded
planned ones by 33 to 39 MB at any size), and tables."""


@dataclass(frozen=True)
class PlanOptions:
    """What a caller may ask of a plan."""

    fuses_attention: bool = True
    """Whether our kernel computes the attention, or PyTorch."""
    tile: TileSpec | None = None
    """Spatial tiles that the caller asks for; None leaves it to the memory."""
    allows_pairs: bool = True
    """Whether frames may be computed two at a time, which is faster on some GPUs and takes more memory."""
    allows_host: bool = True
    """Whether remembered frames may wait in pinned host memory."""
    allows_tiles: bool = True
    """Whether spatial tiles, which change the picture, may be used where the memory wants them."""


def compile_vae_plan(
    config: VAEConfig,
    recipe: QuantRecipe,
    device: DeviceSpec,
    shape: VAEShape,
    budget_bytes: int,
    options: PlanOptions | None = None,
) -> ExecutionPlan:
    """The plan for `shape` within `budget_bytes` of GPU memory.

    Source of the order: whole frames change no number, tiles do. A plan that cannot run has `refusals`; that the memory
    does not suffice even for the smallest tile is one of them. Raises InvalidArgumentError for an impossible shape.
    """
    _check(shape)
    options = options or PlanOptions()
    target = Target(config, recipe, device, options.fuses_attention)
    tile = options.tile if options.tile is not None and needs_tiles(shape, options.tile) else None
    if options.allows_pairs and can_pair(device, recipe) and not shape.is_picture:
        paired = _plan(replace(target, pairs=True), shape, tile)
        if paired.memory.peak <= budget_bytes and not paired.refusals:
            return paired
    if tile is not None:
        return _plan(target, shape, tile)
    whole = _plan(target, shape, None)
    if whole.memory.peak <= budget_bytes:
        return whole
    least = whole
    for plan in _host_plans(target, shape, whole) if options.allows_host else ():
        if plan.memory.peak <= budget_bytes:
            return plan
        least = min(least, plan, key=lambda plan: plan.memory.peak)
    if options.allows_tiles:
        plan = _largest_tiles(target, shape, budget_bytes) or whole
        if plan.memory.peak <= budget_bytes:
            return plan
    need = f"needs {least.memory.peak / 1e9:.2f} GB of GPU memory, {budget_bytes / 1e9:.2f} GB are allowed"
    return replace(least, refusals=(*least.refusals, need))


def _check(shape: VAEShape) -> None:
    size = f"{shape.width_px}x{shape.height_px} px"
    if min(shape.height_px, shape.width_px) < LATENT_CELL_PX:
        raise InvalidArgumentError(f"plan: expected pictures of at least 8x8 px, got {size}; pad them.")
    if shape.part == "decode" and (shape.height_px % LATENT_CELL_PX or shape.width_px % LATENT_CELL_PX):
        raise InvalidArgumentError(f"plan: expected a decoded size in multiples of 8 px, got {size}.")
    if shape.frames is not None and shape.frames % FRAMES_PER_STEP != 1:
        raise InvalidArgumentError(f"plan: expected 4n+1 frames (1, 5, 9, ...), got {shape.frames}.")


def _host_plans(target: Target, shape: VAEShape, whole: ExecutionPlan) -> Iterator[ExecutionPlan]:
    """Plans with ever more layers in host memory, those that remember most first; then the same, fetched late."""
    if shape.is_picture:
        return
    layers: dict[str, int] = {}
    for operation in whole.steady.operations:
        # A layer that changes the frame rate uses its ring at other times than it writes it.
        if (
            operation.problem is not None
            and operation.slot is not None
            and operation.problem.kernel[0] == 3
            and operation.temporal_rate == "same"
        ):
            layers[operation.layer] = 2 * whole.rings[operation.slot.ring].frame_bytes
    largest = sorted(layers, key=lambda layer: (-layers[layer], layer))
    for early in (True, False):
        for count in range(1, len(largest) + 1):
            hosted = replace(target, host_layers=frozenset(largest[:count]), fetches_early=early)
            yield _plan(hosted, shape, None)


def _largest_tiles(target: Target, shape: VAEShape, budget_bytes: int) -> ExecutionPlan | None:
    """Bisection over tile sizes: the peak grows with the tile."""
    found = None
    sizes = tile_candidates(shape)
    low, high = 0, len(sizes)
    while low < high:
        middle = (low + high) // 2
        plan = _plan(target, shape, TileSpec(sizes[middle], min(OVERLAP_PX, sizes[middle] // 4)))
        if plan.memory.peak <= budget_bytes:
            found, low = plan, middle + 1
        else:
            high = middle
    return found


def _plan(target: Target, shape: VAEShape, tile: TileSpec | None) -> ExecutionPlan:
    size = (shape.height_px, shape.width_px) if tile is None else tile_size(shape, tile)
    remembers = not shape.is_picture
    first = lower(target, shape.part, size, one_frame=True, remembers=remembers)
    later = lower(target, shape.part, size, one_frame=False, remembers=True) if remembers else None
    rings = place_rings(later or first)
    schedules = [_schedule(first, rings)]
    schedules.append(Schedule((), (), ()) if later is None else _schedule(later, rings))
    operations = [*schedules[0].operations, *schedules[1].operations]
    memory = PlanMemory(
        weights=_weights(operations) + LIBRARY_BYTES,
        rings=rings_bytes(rings),
        arena=max(arena_bytes(schedule.buffers) for schedule in schedules),
        result=result_bytes(shape, tile, target.config.latent_channels),
        host=host_bytes(rings),
    )
    return ExecutionPlan(
        shape=shape,
        device=target.device.name,
        precision=target.recipe.precision,
        tile_px=None if tile is None else tile.sizes_px,
        overlap_px=0 if tile is None else max(tile.overlaps_px),
        first=schedules[0],
        steady=schedules[1],
        rings=rings,
        memory=memory,
        refusals=tuple(dict.fromkeys([*first.refusals, *(later.refusals if later else [])])),
    )


def _schedule(lowered: Lowering, rings: tuple[Ring, ...]) -> Schedule:
    frames = 1 if lowered.one_frame else FRAMES_PER_STEP
    ends = lowered.operations[0 if lowered.part == "encode" else -1]
    rows, columns = ends.size[:2]
    pictures = lowered.target.config.image_channels * frames * rows * columns * element_bytes(PICTURE_FORMAT)
    if lowered.part == "decode":
        rows, columns, channels = lowered.operations[0].size
        kept = {"input": rows * columns * channels * element_bytes(lowered.operations[0].format), "output": pictures}
    else:
        kept = {"input": pictures, "output": lowered.sizes["output"]}
    return Schedule(tuple(lowered.operations), place_buffers(lowered, rings, kept), _order(lowered))


def _order(lowered: Lowering) -> tuple[int, ...]:
    """Segments depth first: a segment that doubles the frame rate runs for every frame of the one before it."""
    last = lowered.segment
    if lowered.one_frame:
        return tuple(range(last + 1))
    return _halving(lowered, last) if lowered.part == "encode" else _doubling(lowered, 0)


def _doubling(lowered: Lowering, segment: int) -> tuple[int, ...]:
    if segment == lowered.segment:
        return (segment,)
    runs = 2 * lowered.frames(segment) // lowered.frames(segment + 1)
    return (segment, *_doubling(lowered, segment + 1) * runs)


def _halving(lowered: Lowering, segment: int) -> tuple[int, ...]:
    if segment == 0:
        return (segment,)
    runs = 2 * lowered.frames(segment) // lowered.frames(segment - 1)
    return (*_halving(lowered, segment - 1) * runs, segment)


def _weights(operations: list[Operation]) -> int:
    """Packed weights of the operations, and the parameters of the norms, which are small."""
    packed = sum(
        weight_bytes(operation, weight_sets(operation)) for operation in operations if operation.problem is not None
    )
    norms = {operation.norm: operation.size[2] for operation in operations if operation.norm}
    return packed + sum(2 * 4 * channels for channels in norms.values()) + 4 * WIDTH
