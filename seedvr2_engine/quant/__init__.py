"""Which numbers a layer is computed in, and how tensors become those numbers. Pure PyTorch."""

from .quantize import LIMITS, QuantizedTensor, quantize_rows, smoothing_factors
from .recipe import QuantRecipe

__all__ = ["LIMITS", "QuantRecipe", "QuantizedTensor", "quantize_rows", "smoothing_factors"]
