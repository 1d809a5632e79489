"""The VAE that the loader node hands on: loaded, optimised, and behind ComfyUI's memory management."""

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..checkpoint.detect import detect_vae
from ..checkpoint.opening import open_checkpoint
from ..device import resolve_dtype
from ..engine.optimize import optimize_3d_vae_for_blackwell
from ..engine.report import EngineReport
from ..engine.served_vae import ServedVAE
from ..engine.vae.engine import VAEEngine
from ..loading import load_vae
from ..models.vae.config import VAEConfig
from ..models.vae.model import VideoVAE
from ..models.vae.tiling import TileSpec
from ..plan.choices import memory_budget_bytes
from ..plan.compile import compile_vae_plan
from ..plan.execution_plan import ExecutionPlan, Part, VAEShape
from ..plan.gpus import device_spec
from .devices import device_of
from .model_files import OnBytes, locate
from .residency import Resident, bring, make_room

log = logging.getLogger(__name__)

NOMINAL_PX = (1088, 1920)
"""Rows and columns that tiles are planned for before the frames are known."""


@dataclass(frozen=True)
class VAERequest:
    """What a loader node was asked for; the names are its inputs'."""

    model: str
    device: str
    encode_tiled: bool = False
    encode_tile_size: int = 512
    encode_tile_overlap: int = 64
    decode_tiled: bool = False
    decode_tile_size: int = 512
    decode_tile_overlap: int = 64
    offload_device: str = "none"
    cache_model: bool = False
    enable_blackwell_optimization: bool = True
    precision: str = "auto"

    @staticmethod
    def of(config: Mapping[str, Any]) -> "VAERequest":
        """From a configuration as the public pack hands it on, whose `model` is a name."""
        known = VAERequest.__dataclass_fields__
        return VAERequest(**{key: value for key, value in config.items() if key in known})

    @property
    def encode_tile(self) -> TileSpec | None:
        """Tiles of the encoder; raises InvalidArgumentError for an overlap that is not below the size."""
        return TileSpec(self.encode_tile_size, self.encode_tile_overlap) if self.encode_tiled else None

    @property
    def decode_tile(self) -> TileSpec | None:
        """Tiles of the decoder; raises as `encode_tile`."""
        return TileSpec(self.decode_tile_size, self.decode_tile_overlap) if self.decode_tiled else None


class ResidentVAE(Resident[ServedVAE]):
    """The optimised VAE in ComfyUI's books."""

    def bytes_of(self, built: ServedVAE) -> int:
        """Weights, and for the engine its working memory."""
        return built.nbytes

    def shrink(self, built: ServedVAE) -> None:
        """Give the engine's working memory back."""
        built.release()


@dataclass(frozen=True, eq=False)
class ManagedVAE:
    """Encodes and decodes like `VideoVAE`; brings its weights back when ComfyUI has unloaded them."""

    resident: ResidentVAE
    config: VAEConfig
    """The model's hyper-parameters."""

    @property
    def served(self) -> ServedVAE:
        """The model, brought back if need be."""
        if self.resident.built is None:
            bring([self.resident])
        assert self.resident.built is not None
        return self.resident.built

    @property
    def device(self) -> torch.device:
        """Where it computes, and its results are."""
        return self.resident.load_device

    @property
    def report(self) -> EngineReport:
        """What serves, and how it came to that."""
        return self.served.report

    def encode(self, video: Tensor) -> Tensor:
        """(N, 3, 4n+1, H, W) in [-1, 1] -> posterior mean (N, 16, n+1, H/8, W/8), unscaled."""
        return self.served.encode(video)

    def decode(self, latent: Tensor) -> Tensor:
        """(N, 16, n+1, h, w), unscaled -> (N, 3, 4n+1, 8h, 8w), nominally in [-1, 1]."""
        return self.served.decode(latent)


def manage_vae(
    config: VAEConfig, device: torch.device, load: Callable[[], VideoVAE], optimize: Callable[[VideoVAE], ServedVAE]
) -> ManagedVAE:
    """Put a VAE into ComfyUI's books; it is loaded and optimised when it is first used, and after it was unloaded."""
    numbers = sum(math.prod(shape) for shape in config.tensor_shapes().values())
    dtype = resolve_dtype("auto", device)
    return ManagedVAE(ResidentVAE(device, numbers * dtype.itemsize, lambda: optimize(load())), config)


def load_vae_model(request: VAERequest, on_bytes: OnBytes | None = None) -> dict[str, Any]:
    """Find or download, verify, load and optimise; returns what the loader node hands on."""
    device = device_of(request.device)
    tiles = request.encode_tile, request.decode_tile  # Their errors come before a download.
    path = locate(request.model, "vae", on_bytes)
    log.info("[VAE Loader] Loading VAE model: %s", request.model)
    log.info("[VAE Loader] Path: %s", path)
    log.info("[VAE Loader] Device: %s", _describe(device))
    with open_checkpoint(path) as checkpoint:
        is_gguf = checkpoint.format == "gguf"
        config = detect_vae(checkpoint)
    log.info("[VAE Loader] Format: %s", "GGUF" if is_gguf else "safetensors")
    optimizes = request.enable_blackwell_optimization
    dtype = resolve_dtype("auto", device)

    def optimize(plain: VideoVAE) -> ServedVAE:
        served = optimize_3d_vae_for_blackwell(
            plain,
            device=device,
            precision=request.precision if optimizes else "reference",
            # Only a file that is quantised already is quantised further without being asked.
            enable_fp8=is_gguf or request.precision != "auto",
            verbose=False,
        )
        return served if served.is_engine else served.with_tiles(*tiles)

    vae = manage_vae(config, device, lambda: load_vae(path, dtype=dtype), optimize)
    served = vae.served
    numbers = sum(math.prod(shape) for shape in config.tensor_shapes().values())
    log.info("[VAE Loader] ✓ Model loaded successfully: %.1f million parameters", numbers / 1e6)
    _log_engine(served)
    return {
        **{key: getattr(request, key) for key in VAERequest.__dataclass_fields__},
        "model": vae,
        "model_name": request.model,
        **_decode_tiles(served, request),
        "is_gguf": is_gguf,
        "is_optimized": served.is_engine,
        "engine_report": served.report,
    }


def _describe(device: torch.device) -> str:
    if device.type != "cuda":
        return str(device)
    spec = device_spec(device)
    return f"{device} ({spec.name}, {spec.sm}, {spec.card_memory})"


def _log_engine(served: ServedVAE) -> None:
    report = served.report
    if report.family != "Blackwell":
        place = f"{report.device} ({report.architecture})" if report.architecture else report.device
        log.info("[VAE Loader] %s is no Blackwell GPU: %s is used instead", place, report.precision)
    log.info("%s", report.text())


def prepare_for(vae: ManagedVAE, part: Part, size: tuple[int, int]) -> ServedVAE:
    """The VAE, with the GPU's memory for a stream of frames of (rows, columns) in pixels; other models make room."""
    served = vae.served
    if engine := served.engine:
        engine.limit(memory_budget_bytes(engine.device_spec, None))
        # The stream's own plan, which takes 10 ms and more to make, and is then there.
        plan = engine.plan(VAEShape(part, *size, None))
        make_room([vae.resident], vae.device, plan.memory.peak - vae.resident.loaded_size())
    return served


def _plan(engine: VAEEngine, part: Part, size: tuple[int, int]) -> ExecutionPlan:
    # As the engine would plan it with the whole GPU, but not kept by the engine.
    spec, options = engine.device_spec, engine.options
    budget = options.budget_bytes or memory_budget_bytes(spec, None)
    return compile_vae_plan(engine.config, engine.recipe, spec, VAEShape(part, *size, None), budget, options.plan)


def _decode_tiles(served: ServedVAE, request: VAERequest) -> dict[str, Any]:
    """What the decoder does at a nominal size: as asked for, or as the engine's planner chooses."""
    if served.engine is None:
        return {}
    tile_px = _plan(served.engine, "decode", NOMINAL_PX).tile_px
    edge = max(NOMINAL_PX if tile_px is None else tile_px)
    if tile_px is None:
        log.info("[VAE Loader] Tiles: none are needed at %dx%d", NOMINAL_PX[1], NOMINAL_PX[0])
    else:
        log.info("[VAE Loader] Tiles: %d px at %dx%d (asked: %d)", edge, *NOMINAL_PX[::-1], request.decode_tile_size)
    return {"decode_tiled": tile_px is not None, "decode_tile_size": edge}
