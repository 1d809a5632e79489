"""What computes the steps of `lab` and `wavelet`: the Triton kernels on a GPU, PyTorch anywhere else.

`wavelet` is the same to the last bit. Of `lab` at 1280x720 all but one of 10,000 values differ by less than a hundredth
of a step of 8 bits, and none by half of one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from ..device import is_before_ampere
from ..kernels.color.operands import LabMatching
from . import reference
from .rank import LEVELS
from .space import KNEE, RGB_TO_XYZ, SLOPE, WHITE_X, WHITE_Z, XYZ_TO_RGB

log = logging.getLogger(__name__)

_WHITE = (WHITE_X, 1.0, WHITE_Z)
LAB_MATCHING = LabMatching(
    to_xyz=tuple(tuple(m / white for m in row) for row, white in zip(RGB_TO_XYZ, _WHITE, strict=True)),
    from_xyz=tuple(tuple(m * white for m, white in zip(row, _WHITE, strict=True)) for row in XYZ_TO_RGB),
    knee=KNEE,
    slope=SLOPE,
    ranges=tuple((within.low, LEVELS / (within.high - within.low)) for within in reference.LAB_RANGES),
    levels=LEVELS,
    lightness_share=reference.MATCHED_LIGHTNESS,
)


class ColorKernels(NamedTuple):
    """The functions of `kernels.color.correction`."""

    transfer_detail: Callable[[Tensor, Tensor, tuple[int, ...]], Tensor]
    count_lab: Callable[[Tensor, Tensor, LabMatching], None]
    match_lab: Callable[[Tensor, Tensor, LabMatching], None]
    compile: Callable[[list[Callable[[], object]]], None]
    """Compiles what calls of the functions above need, side by side, and runs none of it."""


def wavelet(content: Tensor, style: Tensor) -> Tensor:
    """`reference.wavelet`."""
    kernels = _kernels_for(content, style)
    if kernels is None:
        return reference.wavelet(content, style)
    with torch.cuda.device_of(content):
        return kernels.transfer_detail(content, style, reference.blur_radii(content))


def count_lab(picture: Tensor, counts: Tensor) -> None:
    """`reference.count_lab`."""
    kernels = _kernels_for(picture)
    if kernels is None:
        return reference.count_lab(picture, counts)
    with torch.cuda.device_of(picture):
        return kernels.count_lab(picture, counts, LAB_MATCHING)


def match_lab(picture: Tensor, curves: Tensor) -> Tensor:
    """`reference.match_lab`; picture: may be overwritten."""
    kernels = _kernels_for(picture)
    if kernels is None:
        return reference.match_lab(picture, curves)
    with torch.cuda.device_of(picture):
        picture = picture.float().contiguous()
        kernels.match_lab(picture, curves.contiguous(), LAB_MATCHING)
    return picture


def load_kernels(device: torch.device, load: Callable[[], ColorKernels] | None = None) -> ColorKernels | None:
    """The kernels, tried out on a GPU; None, and a line in the log, where PyTorch has to serve. load: imports them."""
    if is_before_ampere(device):
        log.info("colour: PyTorch serves, for %s is older than sm_80.", torch.cuda.get_device_name(device))
        return None
    try:
        kernels = (load or import_kernels)()
        _try_out(kernels, device)
    except ImportError as error:
        log.info("colour: PyTorch serves, for Triton cannot be imported (%s).", error)
        return None
    except torch.cuda.OutOfMemoryError:
        raise
    except Exception as failure:  # Whatever a compiler or a driver raises: PyTorch gives the same picture.
        log.warning(
            "colour: PyTorch serves, several times more slowly, for the kernels failed on %s: %s: %s.",
            device,
            type(failure).__name__,
            failure,
        )
        return None
    return kernels


_loaded = lru_cache(maxsize=None)(load_kernels)


def _kernels_for(*pictures: Tensor) -> ColorKernels | None:
    """The kernels if they can take these pictures, the content first."""
    first = pictures[0]
    if first.device.type != "cuda" or first.ndim != 3 or first.shape[0] != 3:
        return None
    if any(picture.device != first.device or picture.shape != first.shape for picture in pictures):
        return None
    if torch.is_grad_enabled() and any(picture.requires_grad for picture in pictures):
        return None
    return _loaded(first.device)


def import_kernels() -> ColorKernels:
    """The kernels; raises ImportError where Triton is missing."""
    from ..kernels import launch
    from ..kernels.color import correction
    from ..kernels.packed.using import use_packed_kernels

    use_packed_kernels()
    return ColorKernels(correction.transfer_detail, correction.count_lab, correction.match_lab, launch.compile_ahead)


def rehearsal(kernels: ColorKernels, device: torch.device) -> Callable[[], None]:
    """A call of everything, for contents in FP16."""
    content = torch.zeros(3, 8, 8, dtype=torch.float16, device=device)
    style = torch.zeros(3, 8, 8, device=device)
    counts = torch.zeros(3, LEVELS, dtype=torch.int32, device=device)

    def run() -> None:
        picture = kernels.transfer_detail(content, style, reference.BLUR_RADII_PX)
        kernels.count_lab(picture, counts, LAB_MATCHING)
        kernels.match_lab(picture, counts.view(torch.float32), LAB_MATCHING)

    return run


def _try_out(kernels: ColorKernels, device: torch.device) -> None:
    """Compile everything for contents in FP16 side by side, and run it once; raises what goes wrong."""
    run = rehearsal(kernels, device)
    with torch.cuda.device_of(torch.empty(0, device=device)):
        kernels.compile([run])
        run()
