"""SeedVR2 Engine: the video upscaler SeedVR2 and its causal VAE, exact first, then fast.

The public names are imported when they are first used; importing the package does no work.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .version import __version__

if TYPE_CHECKING:
    from .engine.optimize import optimize_3d_vae_for_blackwell
    from .engine.optimize_dit import optimize_dit
    from .errors import SeedVR2Error
    from .loading import load_vae
    from .loading_dit import load_dit, load_text_embedding
    from .models.dit.config import DiTConfig
    from .models.dit.model import NaDiT
    from .models.vae.config import VAEConfig
    from .models.vae.model import VideoVAE
    from .models.vae.tiling import TileSpec
    from .pipeline.options import UpscaleOptions
    from .pipeline.upscaler import Upscaler

__all__ = [
    "DiTConfig",
    "NaDiT",
    "SeedVR2Error",
    "TileSpec",
    "UpscaleOptions",
    "Upscaler",
    "VAEConfig",
    "VideoVAE",
    "__version__",
    "load_dit",
    "load_text_embedding",
    "load_vae",
    "optimize_3d_vae_for_blackwell",
    "optimize_dit",
]

_HOMES = {
    "DiTConfig": ".models.dit.config",
    "NaDiT": ".models.dit.model",
    "SeedVR2Error": ".errors",
    "TileSpec": ".models.vae.tiling",
    "UpscaleOptions": ".pipeline.options",
    "Upscaler": ".pipeline.upscaler",
    "VAEConfig": ".models.vae.config",
    "VideoVAE": ".models.vae.model",
    "load_dit": ".loading_dit",
    "load_text_embedding": ".loading_dit",
    "load_vae": ".loading",
    "optimize_3d_vae_for_blackwell": ".engine.optimize",
    "optimize_dit": ".engine.optimize_dit",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name], __name__), name)
