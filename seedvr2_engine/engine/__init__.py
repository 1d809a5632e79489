"""Runs a plan: packed weights, bound launches, a clip's memory, and the model's encode and decode around them."""

from .vae.backend import Backend, reference_backend, triton_backend
from .vae.engine import EngineOptions, VAEEngine

__all__ = ["Backend", "EngineOptions", "VAEEngine", "reference_backend", "triton_backend"]
