"""What is chosen where the user leaves it open: the number format, and how much memory a plan may take."""

from dataclasses import dataclass

from ..device import DeviceSpec
from ..errors import InvalidArgumentError
from ..kernels.architectures import ARCHITECTURES, formats_of
from ..kernels.configs import Format
from ..quant.recipe import PRECISIONS

PRECISION_CHOICES: tuple[str, ...] = ("auto", *PRECISIONS, "reference")

RESERVE = 0.1
"""Share of a GPU's memory that a plan leaves to the driver, the desktop and the allocator when nothing else is said."""

_WHY_AUTO: dict[Format, str] = {
    "mxfp8": "block-scaled FP8 is this GPU's fastest format with FP32 accumulation",
    "fp8": "FP8 is this GPU's fastest format with FP32 accumulation",
    "int8": "this GPU has no FP8 units; INT8 is its fastest format",
}


@dataclass(frozen=True)
class PrecisionDecision:
    """The format that is used, and why."""

    format: Format | None
    """Format of the convolutions; None is the plain PyTorch model."""
    reason: str
    """One clause for the report."""


def choose_precision(wanted: str, device: DeviceSpec, *, allows_8_bit: bool = True) -> PrecisionDecision:
    """The format for `wanted` (one of PRECISION_CHOICES) on a GPU.

    `auto` takes what the GPU is fastest in, or the plain model where no kernel is compiled for it; allows_8_bit False
    keeps `auto` in 16 bits. Raises InvalidArgumentError for a format that is asked for by name and is not there.
    """
    formats = formats_of(device.sm)
    if wanted not in PRECISION_CHOICES:
        raise InvalidArgumentError(f"precision: expected one of {', '.join(PRECISION_CHOICES)}, got {wanted!r}.")
    if wanted == "reference":
        return PrecisionDecision(None, "asked for")
    if wanted != "auto":
        for format in formats:
            if format == wanted:
                return PrecisionDecision(format, "asked for")
        offered = ", ".join(formats) or "none"
        raise InvalidArgumentError(
            f"precision: {wanted} was asked for, but {device.name} ({device.sm}) offers {offered}"
            f"{_why_not(wanted, device.sm)}; choose one of these, `auto` or `reference`."
        )
    if not formats:
        return PrecisionDecision(None, f"no kernels are compiled for {device.sm}")
    if not allows_8_bit:
        return PrecisionDecision("fp16", "8-bit formats are switched off")
    without = _why_not("fp8", device.sm)
    if formats[0] == "int8" and without:
        return PrecisionDecision("int8", f"INT8 is this GPU's fastest format without FP8{without}")
    return PrecisionDecision(formats[0], _WHY_AUTO.get(formats[0], "this GPU has nothing faster"))


def _why_not(format: str, sm: str) -> str:
    architecture = ARCHITECTURES.get(sm)
    for name, reason in architecture.left_out.items() if architecture else ():
        if name == format:
            return f" ({reason})"
    return ""


def memory_budget_bytes(device: DeviceSpec, vram_gb: float | None) -> int:
    """Bytes a plan may take: `vram_gb` (decimal gigabytes), or the GPU's memory less a reserve.

    Raises InvalidArgumentError for a `vram_gb` that is not positive or is more than the GPU has.
    """
    if vram_gb is None:
        return int(device.vram_bytes * (1 - RESERVE))
    # Boxes round up: a GPU sold with 16 GB reports 17.2 decimal ones, or a little less than 16 binary ones.
    if not 0 < vram_gb * 1e9 <= device.vram_bytes * 1.01:
        raise InvalidArgumentError(
            f"vram_gb: expected more than 0 and at most the {device.vram_bytes / 1e9:.1f} GB of {device.name}, "
            f"got {vram_gb:g}."
        )
    return int(vram_gb * 1e9)
