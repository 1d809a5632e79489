"""What a machine has, what will be used there and why, and whether every kernel computes there what it should."""

import json
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata

import torch

from ..device import DeviceSpec
from ..engine.dit.backend import triton_tokens
from ..engine.vae.backend import Backend, triton_backend
from ..errors import InvalidArgumentError
from ..kernels.architectures import ARCHITECTURES, formats_of
from ..kernels.configs import Format
from ..models.vae.config import VAEConfig
from ..plan import ExecutionPlan
from ..plan.choices import choose_precision
from ..plan.coverage import CHECKED_PX, covering_plans
from ..plan.gpus import device_spec
from ..version import __version__
from .kernel_checks import Check, check_plans
from .token_checks import check_tokens


@dataclass(frozen=True)
class Installation:
    """What is installed; versions as their owners write them."""

    engine: str
    """Of this package."""
    python: str
    """Of the interpreter."""
    system: str
    """Operating system and processor."""
    torch: str
    """Of PyTorch, with its build."""
    cuda: str
    """CUDA that PyTorch was built for; `none` in a build for CPUs."""
    triton: str
    """Of Triton; `none` where it is not installed."""
    driver: str
    """Of NVIDIA's driver; `unknown` where nvidia-smi does not say."""
    gpu: DeviceSpec | None
    """The GPU that would be used; None without one."""

    def file_stem(self, kind: str, date: str) -> str:
        """`KIND-DATE-GPU` as the name of a file with results, without characters that a file system minds."""
        gpu = self.gpu.name if self.gpu is not None else "cpu"
        return f"{kind}-{''.join(c if c.isalnum() else '-' for c in f'{date[:16]}-{gpu}'.lower())}"


@dataclass(frozen=True)
class DoctorReport:
    """The findings."""

    machine: Installation
    """What is installed."""
    uses: str
    """What will be used, and why."""
    checks: tuple[Check, ...]
    """Every kernel that was checked."""
    seconds: float
    """What the checks took, compiling included."""

    @property
    def failures(self) -> tuple[Check, ...]:
        """The kernels with which something is wrong."""
        return tuple(check for check in self.checks if check.wrong)

    def to_json(self) -> str:
        """Everything, for whoever is to look at it elsewhere."""
        return json.dumps({**asdict(self), "failures": len(self.failures)}, indent=1) + "\n"


def inspect_machine(device: torch.device) -> Installation:
    """Versions and the GPU; asks nothing of a network and changes nothing."""
    return Installation(
        engine=__version__,
        python=sys.version.split()[0],
        system=f"{platform.system()} {platform.release()}, {platform.machine()}",
        torch=str(torch.__version__),
        cuda=torch.version.cuda or "none",
        triton=_triton_version(),
        driver=_driver_version(device),
        gpu=device_spec(device) if device.type == "cuda" else None,
    )


def what_is_used(installed: Installation) -> str:
    """One sentence: the engine in which format, or the plain model, and why."""
    if installed.gpu is None:
        if installed.cuda == "none":
            return "the plain model on the CPU: this PyTorch is built without CUDA"
        return "the plain model on the CPU: PyTorch sees no CUDA GPU"
    if installed.triton == "none":
        name = "triton-windows" if platform.system() == "Windows" else "triton"
        return f"the plain model on the GPU: Triton is not installed (pip install {name})"
    decision = choose_precision("auto", installed.gpu)
    if decision.format is None:
        return f"the plain model on the GPU: {decision.reason}"
    return f"the engine in {decision.format}: {decision.reason}"


def plans_to_check(
    device: DeviceSpec,
    formats: Sequence[Format],
    config: VAEConfig,
    sizes_px: Sequence[tuple[int, int]] = CHECKED_PX,
) -> list[ExecutionPlan]:
    """Plans with every kernel of the formats; sizes_px: rows and columns, by default few that ask for much.

    Raises InvalidArgumentError for a format that the GPU does not offer.
    """
    offered = formats_of(device.sm)
    for format in formats:
        if format not in offered:
            raise InvalidArgumentError(
                f"format: expected one that {device.name} ({device.sm}) offers, {', '.join(offered)}; got {format}."
            )
    return covering_plans(device, formats, config, sizes_px)


def check_kernels(
    plans: Sequence[ExecutionPlan],
    device: torch.device,
    *,
    backend: Backend | None = None,
    on_check: Callable[[Check], None] | None = None,
) -> tuple[Check, ...]:
    """Every distinct kernel of the plans against its reference; on_check sees each as it ends.

    backend: what is checked; None is Triton's.

    A kernel that reads or writes where it should not can take the driver's context with it: then all later ones fail
    as well, and the first is the one to look at.
    """
    backend = triton_backend() if backend is None else backend
    found: list[Check] = []
    for check in check_plans(plans, backend, device):
        found.append(check)
        if on_check is not None:
            on_check(check)
    return tuple(found)


def check_transformer(
    sm: str, wanted: Sequence[str], device: torch.device, on_check: Callable[[Check], None] = lambda _: None
) -> tuple[Check, ...]:
    """The transformer's kernels in each 8- and 4-bit format of the generation that is wanted (none: all)."""
    formats = [format for format in ARCHITECTURES[sm].matrices if not wanted or format in wanted]
    found: list[Check] = []
    for check in check_tokens(sm, formats, triton_tokens(), device):
        found.append(check)
        on_check(check)
    return tuple(found)


def _triton_version() -> str:
    for name in ("triton", "triton-windows"):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return "none"


def _driver_version(device: torch.device) -> str:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return "unknown"
    command = [tool, "--query-gpu=driver_version", "--format=csv,noheader", f"--id={device.index or 0}"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return answer.stdout.strip() or "unknown"
