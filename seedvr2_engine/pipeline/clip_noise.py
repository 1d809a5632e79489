"""The noise that a clip's chunks are upscaled with: of latents, of conditions, and of pictures."""

from collections.abc import Iterable, Iterator
from itertools import count

import torch
from torch import Tensor

from ..models.dit.noise import latent_noise, reference_noise
from .options import NoiseKind
from .resize import Size

INPUT_NOISE_SHARE = 0.025
"""Standard deviation of the noise on the source frames at strength 1, where pictures are in [-1, 1].

The reference mixes half of a picture with itself and 0.05 of noise.
"""
_CONDITION_STREAM, _PICTURE_STREAM = 1, 2
_REFERENCE_SEED_OFFSET = 1_000_000


class ClipNoise:
    """Draws the noise of one clip, chunk after chunk in order.

    With `position` noise every latent position and every pixel of the clip has a number of its own, whatever chunk it
    is drawn for. With `reference` noise the latents' starts anew for every chunk, and the pictures' goes on from one
    chunk to the next, as in the public reference.
    """

    def __init__(self, seed: int, kind: NoiseKind, device: torch.device) -> None:
        self._seed = seed
        self._kind = kind
        self._device = device
        self._generator: torch.Generator | None = None

    def of_latents(self, numbers: range, size: Size, channels: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Start noise and condition noise (T, h, w, channels), float32, of the latents with these numbers.

        dtype: the number format that the reference would draw in.
        """
        if self._kind == "reference":
            shape = len(numbers), *size, channels
            first, second = reference_noise(self._seed, shape, dtype=dtype, device=self._device)
            return first.float(), second.float()
        first, second = (
            latent_noise(self._seed, numbers, size, channels=channels, stream=stream, device=self._device)
            for stream in (0, _CONDITION_STREAM)
        )
        return first, second

    def of_pictures(self, numbers: range | int, size: Size) -> Iterator[Tensor]:
        """Noise (3, H, W), float32, of pictures with these numbers, or with all from this one on, at full strength."""
        drawn = self._reference_pictures(numbers, size) if self._kind == "reference" else self._pictures(numbers, size)
        return (noise * INPUT_NOISE_SHARE for noise in drawn)

    def skip_pictures(self, runs: Iterable[int], size: Size) -> None:
        """Leave out pictures that come before, in runs of so many, as `of_pictures` would have been asked for them."""
        if self._kind == "reference":
            for length in runs:
                next(self._reference_pictures(range(length), size))

    def _pictures(self, numbers: range | int, size: Size) -> Iterator[Tensor]:
        for i in count(numbers) if isinstance(numbers, int) else numbers:
            noise = latent_noise(
                self._seed, range(i, i + 1), size, channels=3, stream=_PICTURE_STREAM, device=self._device
            )
            yield noise[0].movedim(-1, 0)

    def _reference_pictures(self, numbers: range | int, size: Size) -> Iterator[Tensor]:
        if self._generator is None:
            # The largest seed wraps around; the reference itself stops below 2^32.
            seed = (self._seed + _REFERENCE_SEED_OFFSET) % (1 << 64)
            self._generator = torch.Generator(self._device).manual_seed(seed)
        while True:
            # The reference draws for a view (3, T, H, W) of a chunk's pictures, which follow each other in memory.
            memory = torch.empty((1 if isinstance(numbers, int) else len(numbers), 3, *size), device=self._device)
            yield from memory.transpose(0, 1).normal_(generator=self._generator).transpose(0, 1)
            if not isinstance(numbers, int):
                return
