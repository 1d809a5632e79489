"""The entry that users know: from a plain VAE to the fastest way of running it on this machine, with a report."""

import copy
import logging
from collections.abc import Callable
from functools import partial

import torch

from ..device import DeviceSpec, resolve_device
from ..errors import InvalidArgumentError
from ..models.vae.model import VideoVAE
from ..plan import PlanOptions
from ..plan.choices import PRECISION_CHOICES, choose_precision, memory_budget_bytes
from ..plan.gpus import device_spec
from ..quant import QuantRecipe
from ..quant.recipe import EIGHT_BIT
from ..spans import span
from .accuracy.cache import cache_path, check_once
from .accuracy.calibrate import calibrate_on
from .accuracy.check import DEFAULT_MIN_PSNR_DB, AccuracyResult, check_accuracy
from .accuracy.fp16_scaling import PowerOfTwoScaling, measure_scaling
from .accuracy.sensitivity import decoder_shares, paired_layers
from .reporting import report_engine, report_plain
from .served_vae import ServedVAE, cudnn_benchmark
from .settings import Settings
from .vae.backend import Backend, triton_backend
from .vae.engine import EngineOptions, VAEEngine

log = logging.getLogger(__name__)


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
    """Make the engine for a VAE on an NVIDIA GPU from Ampere on; elsewhere the plain model serves, and the log says so.

    precision: auto, fp8, mxfp8, int8, fp16, bf16 (fused, not quantised) or reference (plain PyTorch).
    enable_fp8: allows 8-bit formats to `auto`. enable_channels_last_3d: the kernels know no other order, so without it
    the plain model serves. enable_flash_attention: our kernel or PyTorch's. enable_cuda_graphs: record and replay.
    enable_tf32, enable_cudnn_benchmark: PyTorch's switches, set around the plain model's calls only.
    vram_gb: memory to plan for, decimal gigabytes; None is what is free. tile_size: spatial tiles of so many pixels;
    None leaves it to the memory. min_psnr_db: what the accuracy check holds an 8-bit format to; None switches it off.
    verbose: log the report.

    `vae` is read; where the plain model serves it is moved to the device. Raises InvalidArgumentError for a precision
    that the GPU lacks and for contradicting arguments.
    """
    settings = Settings(
        precision=precision,
        enable_fp8=enable_fp8,
        enable_channels_last_3d=enable_channels_last_3d,
        enable_flash_attention=enable_flash_attention,
        enable_cuda_graphs=enable_cuda_graphs,
        enable_tf32=enable_tf32,
        enable_cudnn_benchmark=enable_cudnn_benchmark,
        vram_gb=vram_gb,
        tile_size=tile_size,
        min_psnr_db=min_psnr_db,
    )
    served = _choose(vae, settings, device)
    if verbose:
        log.info("%s", served.report.text())
    return served


def _choose(vae: VideoVAE, settings: Settings, device: str | torch.device) -> ServedVAE:
    _check(settings)
    if torch.device(device).type == "cuda" and not torch.cuda.is_available():
        return serve_plainly(vae, settings, None, vae.device, "PyTorch sees no CUDA GPU")
    found = resolve_device(str(device))
    if found.type != "cuda":
        return serve_plainly(vae, settings, None, found, f"the kernels do not run on {found.type}")
    return serve_on(vae, settings, device_spec(found), found)


def serve_on(
    vae: VideoVAE,
    settings: Settings,
    spec: DeviceSpec,
    device: torch.device,
    load_backend: Callable[[], Backend] = triton_backend,
) -> ServedVAE:
    """The engine on a GPU that `spec` describes, or the plain model where the settings or the GPU want it."""
    decision = choose_precision(settings.precision, spec, allows_8_bit=settings.enable_fp8)
    if decision.format is None:
        return serve_plainly(vae, settings, spec, device, decision.reason)
    if not settings.enable_channels_last_3d:
        return serve_plainly(vae, settings, spec, device, "channels-last 3D is switched off", is_asked=True)
    try:
        backend = load_backend()
    except ImportError as error:
        return serve_plainly(vae, settings, spec, device, f"Triton cannot be imported ({error})")
    return serve_engine(vae, settings, spec, backend, device)


def _check(settings: Settings) -> None:
    if settings.precision in EIGHT_BIT and not settings.enable_fp8:
        raise InvalidArgumentError(
            f"precision: {settings.precision} was asked for and enable_fp8 is off, which forbids 8-bit formats; "
            "leave one of them out."
        )
    if settings.precision not in PRECISION_CHOICES:
        raise InvalidArgumentError(
            f"precision: expected one of {', '.join(PRECISION_CHOICES)}, got {settings.precision!r}."
        )


def serve_plainly(
    vae: VideoVAE,
    settings: Settings,
    spec: DeviceSpec | None,
    device: torch.device,
    reason: str,
    *,
    is_asked: bool = False,
) -> ServedVAE:
    """The plain model on `device`; is_asked: whether the caller chose it, or gets it for want of something better.

    Raises InvalidArgumentError where a format was asked for by name and is not to be had.
    """
    is_asked = is_asked or settings.precision == "reference"
    if settings.precision not in ("auto", "reference"):
        raise InvalidArgumentError(
            f"precision: {settings.precision} was asked for, but {reason}; choose `auto` or `reference`."
        )
    notes = () if is_asked else (f"the plain model serves: {reason}",)
    for note in notes:
        log.warning("VAE: %s.", note)
    vae.to(device)
    benchmarks = settings.enable_cudnn_benchmark and device.type == "cuda"
    report = report_plain(settings, spec, reason, notes, benchmarks=benchmarks)
    return ServedVAE(vae, lambda: report, tile=settings.tile, switches=cudnn_benchmark if benchmarks else None)


def serve_engine(
    vae: VideoVAE, settings: Settings, spec: DeviceSpec, backend: Backend, device: torch.device
) -> ServedVAE:
    """The engine for `spec` on `device`, checked for accuracy; the reference backend makes it run anywhere."""
    decision = choose_precision(settings.precision, spec, allows_8_bit=settings.enable_fp8)
    assert decision.format is not None
    budget = None if settings.vram_gb is None else memory_budget_bytes(spec, settings.vram_gb)
    plan = PlanOptions(fuses_attention=settings.enable_flash_attention, tile=settings.tile)
    recipe = QuantRecipe(decision.format)
    scaling, reference_vae = PowerOfTwoScaling(), vae
    if recipe.precision != "bf16":
        # The plain model is wanted where the engine is: on a CPU its small clips would take a minute.
        reference_vae = vae if _is_same_device(vae.device, device) else copy.deepcopy(vae).to(device)
        with span("accuracy check"):
            scaling = measure_scaling(reference_vae, spec)
    maxima = calibrate_on(reference_vae, device) if recipe.precision == "int8" else None
    options = EngineOptions(
        plan=plan, budget_bytes=budget, uses_graphs=settings.enable_cuda_graphs, scaling=scaling, maxima=maxima
    )

    def build(recipe: QuantRecipe, previous: VAEEngine | None) -> VAEEngine:
        if previous is not None:
            return previous.with_recipe(recipe)
        return VAEEngine(vae, recipe, spec, backend, device=device, options=options)

    result: AccuracyResult | None = None
    if recipe.is_quantized and settings.min_psnr_db is not None:
        measure = partial(
            check_accuracy,
            reference_vae,
            recipe,
            build,
            min_psnr_db=settings.min_psnr_db,
            costs=decoder_shares(vae.config, spec),
            paired=paired_layers(vae.config, recipe, spec),
            maxima=maxima,
        )
        cache_file = cache_path(vae, recipe, spec.sm)
        with span("accuracy check"):
            result, engine = check_once(cache_file, settings.min_psnr_db, recipe, build, measure)
    else:
        engine = build(recipe, None)
    del reference_vae
    notes = _notes(result)
    for note in notes:
        log.warning("VAE: %s.", note)
    # Not a warning: it changes nothing.
    notes = (*filter(None, [scaling.describe()]), *notes)
    return ServedVAE(engine, lambda: report_engine(engine, settings, decision, result, notes))


def _is_same_device(a: torch.device, b: torch.device) -> bool:
    # PyTorch calls the first GPU `cuda` as well as `cuda:0`.
    return a.type == b.type and (a.index or 0) == (b.index or 0)


def _notes(result: AccuracyResult | None) -> tuple[str, ...]:
    if result is None or not result.kept:
        return ()
    count = "1 layer" if len(result.kept) == 1 else f"{len(result.kept)} layers"
    if result.psnr_db < result.min_psnr_db:
        return (
            f"even with {count} in 16 bits the picture is {result.psnr_db:.1f} dB from the plain "
            f"model's, not the {result.min_psnr_db:g} dB that were asked for",
        )
    return (f"in 16 bits, because 8 would leave {result.before_db:.1f} dB: {count}, named in the report",)
