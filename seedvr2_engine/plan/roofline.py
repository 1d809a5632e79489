"""How long a plan takes on a GPU, from its matrix rate and its memory bandwidth on paper.

Every operation takes the longer of two times: its arithmetic at the share of the paper rate that a matrix product
reaches, and its bytes at the share of the paper bandwidth that a copy reaches (Williams, Waterman, Patterson 2009).
It is what well-fed kernels would need, not a promise: `seedvr2 bench vae` measures.
"""

from dataclasses import dataclass

from ..device import DeviceSpec
from ..kernels.architectures import ARCHITECTURES
from ..kernels.architectures.record import Efficiency
from ..kernels.configs import ConvConfig, Format, MatrixFormat
from ..kernels.layout import element_bytes
from ..models.vae.tiling import TileSpec, decode_grid, encode_grid
from .execution_plan import FRAMES_PER_STEP, LATENT_CELL_PX, ExecutionPlan, Operation, Schedule


@dataclass(frozen=True)
class OperationTime:
    """The time of one operation, all its runs within one step of the clip."""

    layer: str
    """The convolution that is run or prepared."""
    kernel: str
    """What runs."""
    format: Format
    """Number format of the convolution."""
    runs: int
    """How often it runs in a step."""
    matrix_ms: float
    """Time of its arithmetic, all runs."""
    memory_ms: float
    """Time of its bytes, all runs."""
    launch_ms: float
    """Least time, all runs."""

    @property
    def ms(self) -> float:
        """Time of all runs."""
        return max(self.matrix_ms, self.memory_ms, self.launch_ms)

    @property
    def bound(self) -> str:
        """What limits it: `matrix`, `memory` or `launch`."""
        return max(("matrix", self.matrix_ms), ("memory", self.memory_ms), ("launch", self.launch_ms), key=_second)[0]


@dataclass(frozen=True)
class Roofline:
    """The time of a plan."""

    first: tuple[OperationTime, ...]
    """Operations of a clip's first frame."""
    steady: tuple[OperationTime, ...]
    """Operations of every later step."""
    host_ms: float
    """Transfer of remembered frames in a later step, hidden behind the arithmetic as far as that lasts."""
    tiles: int
    """Spatial tiles; 1 for whole frames."""
    efficiency: Efficiency
    """What was assumed."""

    @property
    def first_ms(self) -> float:
        """Time of a clip's first frame."""
        return self.tiles * sum(operation.ms for operation in self.first)

    @property
    def step_ms(self) -> float:
        """Time of a later step (one latent frame, four pictures)."""
        return self.tiles * max(sum(operation.ms for operation in self.steady), self.host_ms)

    def clip_ms(self, frames: int) -> float:
        """Time of a clip of 4n+1 frames."""
        return self.first_ms + (frames - 1) // FRAMES_PER_STEP * self.step_ms


def roofline(plan: ExecutionPlan, device: DeviceSpec) -> Roofline | None:
    """The time of `plan` on `device`; None where rates or bandwidth are not known or the kernels refuse the plan."""
    if plan.refusals or not device.bandwidth_bytes_per_s or not device.tflops.bf16:
        return None
    efficiency = ARCHITECTURES[device.sm].efficiency
    return Roofline(
        first=_times(plan.first, device, efficiency),
        steady=_times(plan.steady, device, efficiency),
        host_ms=_host_bytes(plan) / efficiency.host_bytes_per_s * 1e3,
        tiles=_tile_count(plan),
        efficiency=efficiency,
    )


def operation_bytes(operation: Operation) -> int:
    """Bytes that one run has to read and write if nothing is read twice."""
    rows, columns, channels = operation.size
    pixels = rows * columns
    if operation.problem is not None:
        return _convolution_bytes(operation)
    if operation.kernel == "attention":
        return 2 * pixels * (channels + channels // 3)
    if operation.kernel == "unfold":
        return operation.frames * pixels * (2 * 3 + 2 * 32)
    if operation.kernel == "fold":
        return operation.frames * pixels * (4 * 32 + 2 * 3)
    # Norm and load: a 16-bit tensor in, a frame of the next convolution out; Winograd inputs want two remembered
    # frames more, and are four.
    others = 6 if operation.makes_winograd_inputs else 0
    return pixels * channels * (2 * operation.frames + (operation.frames + others) * element_bytes(operation.format))


def _convolution_bytes(operation: Operation) -> int:
    problem = operation.problem
    assert problem is not None
    element = element_bytes(problem.format)
    kt, kh, kw = problem.kernel
    height, width = problem.output_px
    written = height * width * problem.channels_out * problem.frames
    output_bytes = 4 if problem.output == "fp32" else 2
    # Every frame that is seen, once: one more for each further frame that is computed.
    seen = 4 if problem.paired else kt + problem.frames - 1 if problem.stride == 1 else kt + 2 * problem.frames - 2
    total = seen * problem.height_px * problem.width_px * problem.channels_in * element
    total += problem.phases * problem.channels_out * kt * kh * kw * problem.channels_in * element
    total += written * output_bytes * (2 if problem.has_residual else 1)
    total += height * width * problem.shortcut_channels * 2 * problem.frames
    if isinstance(operation.config, ConvConfig):
        total += 4 * problem.statistic_rows * written // operation.config.block_m
    return total


def _times(schedule: Schedule, device: DeviceSpec, efficiency: Efficiency) -> tuple[OperationTime, ...]:
    runs: dict[int, int] = {}
    for segment in schedule.order:
        runs[segment] = runs.get(segment, 0) + 1
    return tuple(
        _time(operation, runs.get(operation.segment, 0), device, efficiency) for operation in schedule.operations
    )


def _time(operation: Operation, runs: int, device: DeviceSpec, efficiency: Efficiency) -> OperationTime:
    # A fused shortcut multiplies 16-bit numbers whatever the convolution's are.
    shortcut = _shortcut_flops(operation)
    matrix_ms = shortcut / matrix_rate("fp16", device, efficiency) * 1e3
    main = operation.flops - shortcut
    if main:
        matrix_ms += main / matrix_rate(operation.format, device, efficiency) * 1e3
    memory_ms = operation_bytes(operation) / (device.bandwidth_bytes_per_s * efficiency.bandwidth) * 1e3
    launches = 3 if operation.kernel == "norm" else 1
    return OperationTime(
        layer=operation.layer,
        kernel=operation.kernel,
        format=operation.format,
        runs=runs,
        matrix_ms=runs * matrix_ms,
        memory_ms=runs * memory_ms,
        launch_ms=runs * launches * efficiency.launch_us * 1e-3,
    )


def _shortcut_flops(operation: Operation) -> int:
    problem = operation.problem
    if problem is None:
        return 0
    height, width = problem.output_px
    return 2 * problem.frames * height * width * problem.channels_out * problem.shortcut_channels


def matrix_rate(format: MatrixFormat, device: DeviceSpec, efficiency: Efficiency) -> float:
    """FLOP/s that a matrix product in `format` is taken to reach on `device`."""
    rates = {
        "fp8": device.tflops.fp8,
        "mxfp8": device.tflops.mxfp8,
        "int8": device.tflops.int8,
        "nvfp4": device.tflops.nvfp4,
    }
    return rates.get(format, device.tflops.bf16) * 1e12 * efficiency.share(format)


def _host_bytes(plan: ExecutionPlan) -> int:
    """Bytes that cross the bus in a later step, in the busier direction: the past comes, one new frame goes."""
    total = 0
    for ring in plan.rings:
        if ring.host_frames:
            total += plan.steady.frames_of(ring.segment) * ring.host_frames * ring.frame_bytes
    return total


def _tile_count(plan: ExecutionPlan) -> int:
    if plan.tile_px is None:
        return 1
    spec = TileSpec(plan.tile_px, plan.overlap_px)
    height, width = plan.shape.height_px, plan.shape.width_px
    if plan.shape.part == "encode":
        grid = encode_grid(height, width, spec, LATENT_CELL_PX)
    else:
        grid = decode_grid(height // LATENT_CELL_PX, width // LATENT_CELL_PX, spec, LATENT_CELL_PX)
    return 1 if grid is None else len(grid.tiles)


def _second(pair: tuple[str, float]) -> float:
    return pair[1]
