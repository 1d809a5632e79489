"""The only place that asks a machine what it can do."""

import os
import time
from dataclasses import astuple, dataclass
from functools import lru_cache
from pathlib import Path

import torch

from .errors import InvalidArgumentError
from .spans import RECORDER


def resolve_device(name: str) -> torch.device:
    """Turn `auto`, `cpu`, `cuda`, `cuda:1`, ... into a device that is there.

    `auto` is the first CUDA GPU, or else the CPU. Raises InvalidArgumentError for anything that is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InvalidArgumentError(f"device: expected auto, cpu, cuda or cuda:N, got {name!r}.") from error
    if device.type == "cuda":
        count = torch.cuda.device_count()
        if (device.index or 0) >= count:
            raise InvalidArgumentError(
                f"device: {name} was asked for, but PyTorch {torch.__version__} sees {count} CUDA GPUs; "
                "choose another, or `cpu`."
            )
    elif device.type == "mps":
        if not torch.backends.mps.is_available():
            raise InvalidArgumentError("device: mps was asked for, but PyTorch sees no Apple GPU; choose `cpu`.")
    elif device.type != "cpu":
        raise InvalidArgumentError(f"device: expected auto, cpu, cuda or cuda:N, got {name!r}.")
    return device


def as_device(device: str | torch.device) -> torch.device:
    """A device as it is, or what `resolve_device` makes of its name."""
    return resolve_device(device) if isinstance(device, str) else device


_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
_SHORT = {"fp16": "float16", "bf16": "bfloat16", "fp8": "auto", "mxfp8": "auto", "int8": "auto", "reference": "auto"}
DTYPE_NAMES = ("auto", *_DTYPES)


def resolve_dtype(name: str, device: torch.device) -> torch.dtype:
    """Turn a dtype's name into the dtype; `auto` is float32 on the CPU and float16 on a GPU."""
    if name == "auto":
        return torch.float32 if device.type == "cpu" else torch.float16
    if name not in _DTYPES:
        raise InvalidArgumentError(f"dtype: expected one of {', '.join(DTYPE_NAMES)}, got {name!r}.")
    return _DTYPES[name]


def resolve_dit_dtype(name: str, device: torch.device, *, is_here: bool = True) -> torch.dtype:
    """The transformer's dtype for a precision or dtype; `auto` is float32 on the CPU and bfloat16 on a GPU.

    8-bit precisions are the VAE's, beside which the transformer's is `auto`. is_here: whether the GPU can be asked; one
    that cannot is one of the planner's, which all have bfloat16.
    """
    name = _SHORT.get(name, name)
    has_bf16 = device.type == "cuda" and (not is_here or torch.cuda.is_bf16_supported(including_emulation=False))
    if name == "auto" and has_bf16:
        return torch.bfloat16
    return resolve_dtype(name, device)


class QueueClock:
    """Marks places in a CUDA device's queue of work; a `spans.Clock`."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._origin = self.mark()
        self._origin.synchronize()
        self._origin_ns = time.perf_counter_ns()

    def mark(self) -> torch.cuda.Event:
        """Mark where the queue ends now, without waiting."""
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        return event

    def nanoseconds(self, mark: torch.cuda.Event) -> int:
        """When the GPU came to a mark, on `time.perf_counter_ns`'s scale, to some 10 microseconds; waits for it."""
        mark.synchronize()
        return self._origin_ns + round(1e6 * float(self._origin.elapsed_time(mark)))


@lru_cache
def queue_clock(device: torch.device) -> QueueClock | None:
    """The clock of a GPU's queue where spans are recorded; None elsewhere."""
    return None if RECORDER is None or device.type != "cuda" else QueueClock(device)


def is_before_ampere(device: torch.device) -> bool:
    """Whether a CUDA device is older than sm_80, with which all kernels begin."""
    return torch.cuda.get_device_capability(device) < (8, 0)


def total_memory_bytes(device: torch.device) -> int:
    """Memory of a GPU, or of this machine, all of it; what a container may have where that is less."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 8 << 30
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text().strip() if limit.is_file() else "max"
    return min(total, int(text)) if text.isdigit() else total


_OUT_OF_MEMORY = (
    "defaultcpuallocator",
    "not enough memory",
    "can't allocate memory",
    "cannot allocate memory",
    "bad_alloc",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a device or this machine had too little memory.

    PyTorch has a class for GPUs only; what its CPU allocator raises is known by its words.
    """
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _OUT_OF_MEMORY)


@dataclass(frozen=True)
class MatrixRates:
    """Dense matrix-product rates with FP32 (INT8: INT32) accumulation; 0 where the hardware lacks the format.

    The unit is the holder's: FLOP per SM and clock in an Architecture, TFLOP/s in a DeviceSpec.
    """

    bf16: float
    """BF16, and FP16."""
    fp8: float
    """FP8 E4M3 without block scales."""
    int8: float
    """INT8."""
    mxfp8: float
    """FP8 E4M3 with block scales."""
    nvfp4: float = 0.0
    """FP4 E2M1 with block scales."""

    def scaled(self, factor: float) -> "MatrixRates":
        """Every rate times `factor`."""
        return MatrixRates(*(rate * factor for rate in astuple(self)))


@dataclass(frozen=True)
class DeviceSpec:
    """A GPU as the planner sees it; can be written down for a GPU that is not here."""

    name: str
    """What the driver calls it."""
    sm: str
    """Architecture, such as `sm_120`."""
    sm_count: int
    """Streaming multiprocessors."""
    shared_memory_bytes: int
    """Shared memory that one block may opt in to."""
    vram_bytes: int
    """Memory of the GPU, all of it."""
    bandwidth_bytes_per_s: float
    """Memory bandwidth on paper; 0 where it is not known."""
    tflops: MatrixRates
    """Dense matrix rates on paper, TFLOP/s; all 0 where they are not known."""

    @property
    def card_memory(self) -> str:
        """In binary units, as cards are sold: what is 17.18 GB to everything else is a card of 16.0 GiB."""
        return f"{self.vram_bytes / 2**30:.1f} GiB"


def ask_gpu(device: torch.device) -> tuple[DeviceSpec, float]:
    """What the driver says of a CUDA device, and its clock in Hz, 0 where it does not say; matrix rates it never tells.

    Raises InvalidArgumentError for a device of another kind.
    """
    if device.type != "cuda":
        raise InvalidArgumentError(f"device: expected a CUDA GPU, got {device}; the kernels run on NVIDIA GPUs only.")
    properties = torch.cuda.get_device_properties(device)
    # PyTorch 2.7 does not report clocks and bus width; later releases do, in kHz and bits.
    memory_hz = 1e3 * getattr(properties, "memory_clock_rate", 0)
    bus_bytes = getattr(properties, "memory_bus_width", 0) / 8
    spec = DeviceSpec(
        name=properties.name,
        sm=f"sm_{properties.major}{properties.minor}",
        sm_count=properties.multi_processor_count,
        shared_memory_bytes=getattr(properties, "shared_memory_per_block_optin", properties.shared_memory_per_block),
        vram_bytes=properties.total_memory,
        # Two transfers a clock: all memory here is of the double-data-rate kind.
        bandwidth_bytes_per_s=2 * memory_hz * bus_bytes,
        tflops=MatrixRates(0, 0, 0, 0),
    )
    return spec, 1e3 * getattr(properties, "clock_rate", 0)
