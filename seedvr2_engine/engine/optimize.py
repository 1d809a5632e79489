"""The entry that users know: from a plain VAE to the fastest way of running it on this machine, with a report."""

import copy
import logging
from collections.abc import Callable
from dataclasses import dataclass

import torch

from ..device import DeviceSpec, device_spec, resolve_device
from ..errors import InvalidArgumentError
from ..models.tiling import TileSpec
from ..models.vae import VideoVAE
from ..plan import PlanOptions
from ..plan.choices import PrecisionDecision, choose_precision, memory_budget_bytes
from ..plan.types import Part, VAEShape
from ..quant import QuantRecipe
from .backend import Backend, triton_backend
from .guard import DEFAULT_MIN_PSNR_DB, GuardResult, cache_path, guard
from .report import EngineReport, Measure, count_layers, describe_work, place_of
from .serve import ServedVAE
from .vae import EngineOptions, VAEEngine

log = logging.getLogger(__name__)

TILE_OVERLAP_PX = 128
"""Pixels that tiles of an asked size share, or a quarter of the tile where that is less."""
_NOMINAL_PX = (1088, 1920)
"""Rows and columns that a report tells the memory of before anything was decoded."""


@dataclass(frozen=True)
class Settings:
    """What the caller of `optimize_3d_vae_for_blackwell` chose; the names are that function's."""

    precision: str = "auto"
    enable_fp8: bool = True
    enable_channels_last_3d: bool = True
    enable_flash_attention: bool = True
    enable_cuda_graphs: bool = True
    enable_tf32: bool = True
    enable_cudnn_benchmark: bool = True
    vram_gb: float | None = None
    tile_size: int | None = None
    min_psnr_db: float | None = DEFAULT_MIN_PSNR_DB

    @property
    def tile(self) -> TileSpec | None:
        """The tiles that `tile_size` means."""
        if self.tile_size is None:
            return None
        return TileSpec(self.tile_size, min(TILE_OVERLAP_PX, self.tile_size // 4 // 8 * 8))


def optimize_3d_vae_for_blackwell(
    vae: VideoVAE,
    *,
    device: str | torch.device = "cuda",
    precision: str = "auto",
    enable_fp8: bool = True,
    enable_channels_last_3d: bool = True,
    enable_flash_attention: bool = True,
    enable_cuda_graphs: bool = True,
    enable_tf32: bool = True,
    enable_cudnn_benchmark: bool = True,
    vram_gb: float | None = None,
    tile_size: int | None = None,
    min_psnr_db: float | None = DEFAULT_MIN_PSNR_DB,
    verbose: bool = True,
) -> ServedVAE:
    """Make the engine for a VAE on any NVIDIA GPU from Ampere on; elsewhere the plain model serves, and the log says so.

    precision: auto, fp8, mxfp8, int8, fp16, bf16 (fused, not quantised) or reference (plain PyTorch).
    enable_fp8: allows 8-bit formats to `auto`. enable_channels_last_3d: the kernels know no other order, so without it
    the plain model serves. enable_flash_attention: our kernel or PyTorch's. enable_cuda_graphs: record and replay.
    enable_tf32, enable_cudnn_benchmark: PyTorch's switches, set around the plain model's calls only.
    vram_gb: memory to plan for, decimal gigabytes; None is what is free. tile_size: spatial tiles of so many pixels;
    None leaves it to the memory. min_psnr_db: what the guard holds an 8-bit format to; None switches it off.
    verbose: log the report.

    `vae` is read; where the plain model serves it is moved to the device. Raises InvalidArgumentError for a precision
    that the GPU lacks and for contradicting arguments.
    """
    settings = Settings(
        precision, enable_fp8, enable_channels_last_3d, enable_flash_attention, enable_cuda_graphs, enable_tf32,
        enable_cudnn_benchmark, vram_gb, tile_size, min_psnr_db,
    )  # fmt: skip
    served = _choose(vae, settings, device)
    if verbose:
        log.info("%s", served.report.text())
    return served


def _choose(vae: VideoVAE, settings: Settings, device: str | torch.device) -> ServedVAE:
    _check(settings)
    if torch.device(device).type == "cuda" and not torch.cuda.is_available():
        return serve_plainly(vae, settings, vae.device, "PyTorch sees no CUDA GPU", is_asked=False)
    place = resolve_device(str(device))
    if place.type != "cuda":
        return serve_plainly(vae, settings, place, f"the kernels do not run on {place.type}", is_asked=False)
    spec = device_spec(place)
    decision = choose_precision(settings.precision, spec, allows_8_bit=settings.enable_fp8)
    if decision.format is None:
        return serve_plainly(vae, settings, place, decision.reason, is_asked=settings.precision == "reference")
    if not settings.enable_channels_last_3d:
        return serve_plainly(vae, settings, place, "channels-last is switched off", is_asked=True)
    try:
        backend = triton_backend()
    except ImportError as error:
        return serve_plainly(vae, settings, place, f"Triton cannot be imported ({error})", is_asked=False)
    return serve_engine(vae, settings, spec, backend, place)


def _check(settings: Settings) -> None:
    if settings.precision in ("fp8", "mxfp8", "int8") and not settings.enable_fp8:
        raise InvalidArgumentError(
            f"precision: {settings.precision} was asked for and enable_fp8 is off, which forbids 8-bit formats; "
            "leave one of them out."
        )
    everything = DeviceSpec("any GPU", "sm_120", 0, 0, 0, 0.0, _NO_RATES)
    if settings.precision not in ("auto", "reference"):
        choose_precision(settings.precision, everything)
