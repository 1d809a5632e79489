"""Whether a transformer's weights bear an 8-bit format, and which matrices to keep in 16 bits when they do not.

A small clip goes through the transformer in 16 bits and in the format, and both results are decoded. While the pictures
differ too much, the matrices whose rounding changes their own block's result most stay in 16 bits; the result is
measured again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...models.dit.blocks import Block
from ...models.dit.geometry import Geometry
from ...models.dit.model import Conditioning, NaDiT
from ...models.dit.noise import latent_noise
from ...models.dit.sampler import LAST_TIMESTEP, dit_input
from ...models.precision import exact_float32
from ...quality.metrics import decibel
from ...quant.rotation import rotate
from ..dit.quantized import MATRICES, BlockFormat, Matrix, dequantize, matrix_of, quantize
from .limits import HEADROOM, allowed_error, describe_kept
from .sensitivity import mean_squared_error, picture

DEFAULT_MIN_PSNR_DB = 50.0
"""The decoded picture of the check's clips may differ from that of 16 bits by this much at most."""

Decode = Callable[[Tensor], Tensor]
"""Latents (T, h, w, 16), as the transformer gives them -> pictures (1, 3, 4T-3, 8h, 8w) in [-1, 1]."""


class Sample(NamedTuple):
    """A clip that the formats are compared on."""

    condition: Tensor
    """Its low-quality latents (T, h, w, 16), float32, as the transformer takes them; h and w even."""
    text: Tensor
    """The text embedding (tokens, text width)."""


class MatrixError(NamedTuple):
    """What the rounding of one matrix and of its input costs."""

    layer: int
    """The block."""
    matrix: Matrix
    """Which of its products."""
    error: float
    """Energy of the change in the block's result, as a share of the result's."""

    @property
    def name(self) -> str:
        """For reports."""
        return f"blocks.{self.layer} {self.matrix}"


@dataclass(frozen=True)
class DitCheck:
    """What the check measured and decided."""

    format: str
    """The format in 8 or 4 bits."""
    min_psnr_db: float
    """The limit that was asked for."""
    before_db: float
    """PSNR of the worst clip with every matrix in the format, against 16 bits."""
    psnr_db: float
    """PSNR of the choice."""
    formats: tuple[BlockFormat, ...]
    """The choice, block by block."""
    kept: tuple[MatrixError, ...] = ()
    """Matrices that stay in 16 bits, the most costly first."""
    seconds: float = 0.0
    """What measuring took."""

    @property
    def holds(self) -> bool:
        """Whether the choice stays within the limit."""
        return self.psnr_db >= self.min_psnr_db

    def describe(self) -> str:
        """One line for people."""
        line = (
            f"decoded within {self.psnr_db:.1f} dB of 16 bits "
            f"(limit {self.min_psnr_db:g} dB, measured in {self.seconds:.1f} s)"
        )
        return line + describe_kept(self.before_db, (kept.name for kept in self.kept))


def check_dit(
    dit: NaDiT,
    format: str,
    build: Callable[[Sequence[BlockFormat]], NaDiT],
    samples: Sequence[Sample],
    decode: Decode,
    *,
    min_psnr_db: float = DEFAULT_MIN_PSNR_DB,
) -> tuple[DitCheck, NaDiT]:
    """Build the transformer in a format that changes the decoded samples by `min_psnr_db` or less.

    dit: the model in 16 bits (or float32), whose blocks are plain layers. build: makes the model with these formats; it
    is called once for each choice that is tried. Returns what was found, and the last model; it may miss the limit if
    even few matrices in 8 bits do.
    """
    began = time.monotonic()
    expected = [picture(decode(restored(dit, sample))) for sample in samples]

    def errors(model: NaDiT) -> list[float]:
        pairs = zip(samples, expected, strict=True)
        return [mean_squared_error(picture(decode(restored(model, s))), e).item() for s, e in pairs]

    formats = [BlockFormat.all_in(format)] * dit.config.layers
    model = build(formats)
    found = errors(model)
    measured = before = max(found)
    allowed = allowed_error(min_psnr_db)
    kept: list[MatrixError] = []
    if measured > allowed:
        left = sorted(matrix_errors(dit, format, samples[found.index(measured)]), key=lambda e: e.error)
        while measured > allowed and left:
            # The shares are of the blocks' own results; what they come to in the picture is measured for all together.
            unit = measured / max(sum(e.error for e in left), 1e-30)
            while left:
                worst = left.pop()
                kept.append(worst)
                formats[worst.layer] = replace(formats[worst.layer], **{worst.matrix: None})
                if unit * sum(e.error for e in left) <= HEADROOM * allowed:
                    break
            model = build(formats)
            measured = max(errors(model))
    result = DitCheck(
        format, min_psnr_db, decibel(before), decibel(measured), tuple(formats), tuple(kept),
        round(time.monotonic() - began, 2),
    )  # fmt: skip
    return result, model


@torch.no_grad()
def matrix_errors(dit: NaDiT, format: str, sample: Sample, *, rotation: int = 0) -> list[MatrixError]:
    """What the rounding of every matrix costs its block, one after the other, in one pass over the blocks.

    rotation: a group of columns of both operands that is rotated before they are rounded (`quant.rotation`), or 0.
    """
    video, geometry, conditioning = _inputs(dit, sample)
    found = []
    with exact_float32():
        patches = dit.vid_in.patches(video[None].to(dit.device, dit.dtype))
        tokens = dit.vid_in.proj(patches.index_select(0, geometry.layouts[0].order))
        text = conditioning.text
        for layer, block in enumerate(dit.loaded_blocks()):
            permutation = geometry.permutations[layer % 2]
            if layer > 0 and permutation is not None:
                tokens = tokens.index_select(0, permutation)
            through = tokens, text, conditioning.blocks[layer], geometry
            for matrix in MATRICES:
                results = []
                for rounded in (None, format):
                    with _rounding(block, matrix, rounded, rotation):
                        results.append(block(*through)[0].float())
                exact, rough = results
                error = ((rough - exact).square().mean() / exact.square().mean().clamp(min=1e-30)).item()
                found.append(MatrixError(layer, matrix, error))
            tokens, text = block(*through)
    return found


class _RoundedLinear(nn.Module):
    """A linear layer in float32 whose operands are rounded to a format, if one is given."""

    def __init__(self, layer: nn.Linear, format: str | None, rotation: int) -> None:
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias
        self._format, self._rotation = format, rotation

    def forward(self, x: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.float()
        return F.linear(self._rounded(x), self._rounded(self.weight), bias).to(x.dtype)

    def _rounded(self, x: Tensor) -> Tensor:
        if self._format is None:
            return x.float()
        if not self._rotation:
            return dequantize(quantize(x.float(), self._format))
        turned = dequantize(quantize(rotate(x.float(), self._rotation), self._format))
        return rotate(turned, self._rotation)


@contextmanager
def _rounding(block: Block, matrix: Matrix, format: str | None, rotation: int) -> Iterator[None]:
    layers = {n: m for n, m in block.named_modules() if isinstance(m, nn.Linear) and matrix_of(n + ".") == matrix}
    owners = [(block.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2], m) for name, m in layers.items()]
    try:
        for owner, attribute, layer in owners:
            setattr(owner, attribute, _RoundedLinear(layer, format, rotation))
        yield
    finally:
        for owner, attribute, layer in owners:
            setattr(owner, attribute, layer)


def _inputs(dit: NaDiT, sample: Sample) -> tuple[Tensor, Geometry, Conditioning]:
    frames, height, width, channels = sample.condition.shape
    noise = latent_noise(0, range(frames), (height, width), channels=channels, device=sample.condition.device)
    geometry = dit.geometry((frames, height, width), len(sample.text))
    return dit_input(noise, sample.condition), geometry, dit.conditioning(sample.text, LAST_TIMESTEP)


@torch.no_grad()
def restored(dit: NaDiT, sample: Sample) -> Tensor:
    """The clean latents (T, h, w, 16), float32, that one step from noise gives."""
    video, geometry, conditioning = _inputs(dit, sample)
    velocity = dit.velocity(video, geometry, conditioning).float()
    return video[..., : velocity.shape[-1]].to(velocity.device) - velocity
