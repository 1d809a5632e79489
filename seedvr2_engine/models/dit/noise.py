"""The noise that sampling starts from.

`latent_noise` gives every latent position of a clip a number of its own, whatever chunk or crop it is computed in, so
that chunks agree where they overlap and do not repeat each other's pattern. `reference_noise` draws what the public
reference draws, which starts anew for every chunk.
"""

import math

import torch
from torch import Tensor

from ...errors import InvalidArgumentError

_EDGE_BITS = 20


def latent_noise(
    seed: int, frames: range, size: tuple[int, int], *, channels: int = 16, stream: int = 0, device: torch.device
) -> Tensor:
    """Normal numbers (frames, height, width, channels), float32: a function of seed, frame, row, column and channel.

    frames: absolute numbers of latent frames in the clip. size: latent height and width. stream: another number gives
    independent noise for the same positions. The same on every device up to the rounding of logarithm and cosine.
    Source: the output function of SplitMix64 (Steele, Lea, Flood 2014) on a counter; Box and Muller's transform.
    """
    height, width = size
    if not 0 < min(size) <= max(size) <= 1 << _EDGE_BITS:
        raise InvalidArgumentError(f"latent noise: expected 1 to {1 << _EDGE_BITS} rows and columns, got {size}.")
    row = torch.arange(height, device=device)[:, None, None] << _EDGE_BITS
    column = torch.arange(width, device=device)[:, None]
    counter = (row + column) * channels + torch.arange(channels, device=device)
    return torch.stack([_normal(_scramble(counter * _GAMMA + _frame_key(seed, frame, stream))) for frame in frames])


def reference_noise(
    seed: int, shape: tuple[int, int, int, int], *, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """The two noise tensors (T, H, W, channels) that the reference draws for a chunk: of the latent, of the condition.

    The numbers depend on the kind of device, as they do there.
    """
    frames, height, width, channels = shape
    generator = torch.Generator(device).manual_seed(seed)
    # The reference's latent is a view of channels-first memory, and that is the order in which numbers are drawn.
    memory = torch.empty((channels, frames, height, width), dtype=dtype, device=device)
    first, second = (torch.empty_like(memory).permute(1, 2, 3, 0).normal_(generator=generator) for _ in range(2))
    return first, second


def _frame_key(seed: int, frame: int, stream: int) -> Tensor:
    """A number for each seed, stream and frame: a 64-bit integer without axes, on the CPU."""
    key = torch.zeros((), dtype=torch.int64)
    for part in (seed, stream, frame):
        key = _scramble(key + _signed(part) + _GAMMA)
    return key


def _scramble(x: Tensor) -> Tensor:
    """Mix the bits of int64 numbers, whose products wrap around, until none depends on few others."""
    x = (x ^ _shifted(x, 30)) * _signed(0xBF58476D1CE4E5B9)
    x = (x ^ _shifted(x, 27)) * _signed(0x94D049BB133111EB)
    return x ^ _shifted(x, 31)


def _signed(x: int) -> int:
    """The lower 64 bits of x, read as a signed number."""
    return (x + (1 << 63)) % (1 << 64) - (1 << 63)


def _shifted(x: Tensor, bits: int) -> Tensor:
    """Shift to the right without copies of the sign."""
    return x >> bits & (1 << 64 - bits) - 1


_GAMMA = _signed(0x9E3779B97F4A7C15)


def _normal(bits: Tensor) -> Tensor:
    radius = (-2 * torch.log((_shifted(bits, 32) + 1).float() / 2**32)).sqrt()
    return radius * torch.cos(2 * math.pi / 2**32 * (bits & 0xFFFFFFFF).float())
