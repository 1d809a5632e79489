"""The models of a benchmark: files, or the public sizes with random weights."""

from __future__ import annotations

import torch

from ..engine.accuracy.check import DEFAULT_MIN_PSNR_DB
from ..engine.dit.fused import serve_dit
from ..engine.dit.weights import streamed
from ..engine.optimize import optimize_3d_vae_for_blackwell
from ..loading import load_vae
from ..loading_dit import load_dit
from ..models.dit.config import PUBLIC_3B, PUBLIC_7B
from ..models.dit.model import NaDiT
from ..models.dit.sampler import LAST_TIMESTEP
from ..models.vae.config import VAEConfig
from ..models.vae.model import VideoVAE
from ..pipeline.clip_stages import Models
from ..pipeline.options import UpscaleOptions
from ..pipeline.reconstruct import VideoCodec
from ..pipeline.setup import Formats
from ..pipeline.upscaler import Upscaler
from .cases import random_vae
from .random_models import PUBLIC_TEXT_TOKENS, random_dit


def bench_models(
    dit_name: str, vae_name: str, formats: Formats, options: UpscaleOptions, *, offload: bool
) -> tuple[Upscaler, Models]:
    """The upscaler, and its models by themselves.

    With random weights no layer is kept in 16 bits for the sake of the picture: there is none.
    """
    device = formats.device
    dit = _dit(dit_name, device, formats.dit_dtype, offload=offload)
    plain = _vae(vae_name, device, formats.vae_dtype)
    vae: VideoCodec = plain
    if formats.uses_engine:
        # The plain model is read once more for the accuracy check, which wants it where the engine is.
        limit = None if vae_name == "public" else DEFAULT_MIN_PSNR_DB
        vae = optimize_3d_vae_for_blackwell(
            plain, device=device, precision=formats.precision, min_psnr_db=limit, verbose=False
        )
    text = torch.randn(PUBLIC_TEXT_TOKENS, dit.config.text_width, generator=torch.manual_seed(0))
    models = Models(dit, vae, dit.conditioning(text, LAST_TIMESTEP), len(text))
    return Upscaler(dit, vae, options, text=text), models


def _dit(name: str, device: torch.device, dtype: torch.dtype, *, offload: bool) -> NaDiT:
    if name not in ("3b", "7b"):
        return load_dit(name, device=device, dtype=dtype, offload=offload)
    dit = random_dit(PUBLIC_3B if name == "3b" else PUBLIC_7B, device, dtype)
    return serve_dit(streamed(dit) if offload else dit)


def _vae(name: str, device: torch.device, dtype: torch.dtype) -> VideoVAE:
    if name == "public":
        return random_vae(VAEConfig(), device).to(dtype)
    return load_vae(name, device=device, dtype=dtype)
