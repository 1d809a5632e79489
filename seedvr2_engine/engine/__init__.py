"""Runs a plan: packed weights, bound launches, a clip's memory, and the model's encode and decode around them."""

from .vae.backend import Backend, triton_backend, twin_backend
from .vae.engine import EngineOptions, VAEEngine

__all__ = ["Backend", "EngineOptions", "VAEEngine", "triton_backend", "twin_backend"]
