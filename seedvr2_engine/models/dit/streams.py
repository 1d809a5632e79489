"""What the video and the text stream of the transformer have in common: weights kept apart or shared, and the norm."""

from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import Stream


class PerStream(nn.ModuleDict):
    """One module for each stream under the names `vid` and `txt`, or one for both under the name `all`."""

    def __init__(self, weight_sets: Iterable[str], make: Callable[[], nn.Module]) -> None:
        super().__init__({name: make() for name in weight_sets})

    def of(self, stream: Stream) -> nn.Module:
        """The module that serves this stream."""
        return self[stream] if stream in self else self["all"]


def rms_norm(x: Tensor, eps: float, weight: Tensor | None = None) -> Tensor:
    """Divide the last axis by its root mean square, times `weight`; computed in and returned as float32."""
    return F.rms_norm(x.float(), x.shape[-1:], None if weight is None else weight.float(), eps)


def linear_float32(layer: nn.Linear, x: Tensor) -> Tensor:
    """Apply a layer in float32 whatever its weights are; for the few vectors that every token depends on."""
    return F.linear(x.float(), layer.weight.float(), layer.bias.float())


def modulated_norm(x: Tensor, shift: Tensor, scale: Tensor, eps: float) -> Tensor:
    """Normalise the tokens x (tokens, width), scale and shift each channel in float32, and round once to x's dtype."""
    return (rms_norm(x, eps) * scale + shift).to(x.dtype)


def gated_sum(x: Tensor, change: Tensor, gate: Tensor) -> Tensor:
    """Add `change` times the channel-wise `gate` (float32) to the tokens x, in float32, rounded once to x's dtype."""
    return torch.addcmul(x.float(), change.float(), gate).to(x.dtype)
