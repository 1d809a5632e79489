"""What the layers are planned for, and what stands between two of them."""

from dataclasses import dataclass, replace

from ..device import DeviceSpec
from ..kernels.architectures import ARCHITECTURES
from ..kernels.configs import ConvProblem, Format
from ..models.vae.config import VAEConfig
from ..quant import QuantRecipe


@dataclass(frozen=True)
class Target:
    """What the layers are planned for."""

    config: VAEConfig
    recipe: QuantRecipe
    device: DeviceSpec
    fuses_attention: bool = True
    """Whether our kernel computes the attention, or PyTorch."""
    host_layers: frozenset[str] = frozenset()
    """Convolutions whose remembered frames wait in host memory."""
    fetches_early: bool = True
    """Whether those are fetched one layer ahead, which takes more memory."""
    pairs: bool = False
    """Whether frames are computed two at a time where there are two: a third less arithmetic, and more memory."""


@dataclass(frozen=True)
class RingKey:
    """Convolutions with equal keys share a ring."""

    segment: int
    size: tuple[int, int, int]
    format: Format
    layer: str = ""
    """The layer, where it has a ring of its own that keeps nothing on the GPU."""


@dataclass(frozen=True)
class Activation:
    """A 16-bit tensor between two layers, with its statistics."""

    buffer: str
    size: tuple[int, int, int]
    partials: str
    counts: tuple[int, int, int, int, int] | None


def fold_problem(problem: ConvProblem) -> ConvProblem:
    """The problem where all temporal taps see the same frame."""
    return replace(problem, kernel=(1, *problem.kernel[1:]))


def pair_problem(problem: ConvProblem) -> ConvProblem:
    """The problem of three temporal taps where two frames are computed from four Winograd inputs."""
    return replace(problem, kernel=(4, *problem.kernel[1:]), frames=2, paired=True)


def can_pair(device: DeviceSpec, recipe: QuantRecipe) -> bool:
    """Whether frames are computed in pairs on a GPU.

    Not in INT8: a frame's steps are as fine as its largest value allows, and those of Winograd inputs cost 3 dB in a
    resnet and 8 in an upsampler (FP8's relative steps: 2 and 1), so that the accuracy check would move most layers to
    16 bits.
    """
    architecture = ARCHITECTURES.get(device.sm)
    return architecture is not None and architecture.pairs_frames and recipe.precision != "int8"


def exponents_buffer(winograd: str) -> str:
    """Name of the buffer with the exponents of a buffer of Winograd inputs."""
    return f"{winograd} exponents"
