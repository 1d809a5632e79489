"""Whether a file's own weights bear the chosen 8-bit format, and which layers to keep in 16 bits when they do not.

Small clips are decoded by the plain model and in the format. While the worst of them differs too much, layers fall
back to 16 bits: those that cause most of its error (`sensitivity`) for the time that they take, and no more than their
measured errors say are needed; the result is measured again.
"""

import logging
import time
from collections.abc import Callable, Collection, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from ...models.vae.model import VideoVAE
from ...quality.metrics import decibel
from ...quant import QuantRecipe
from .limits import HEADROOM, allowed_error, describe_kept
from .sample_clips import sample_clips
from .sensitivity import decoder_layers, layer_errors, mean_squared_error, picture

log = logging.getLogger(__name__)

DEFAULT_MIN_PSNR_DB = 51.5
"""The check's clips may differ from the plain model's by this much at most, which is meant to leave 50 dB for others in
FP8 and 48 in INT8. Measured at a limit of 50: text came out 1.3 dB below the check's clips in FP8 (a VAE of the public
widths), a dark scene 2.7 dB in INT8 (nano)."""


class Decodes(Protocol):
    """What the check needs of an engine."""

    def decode(self, latent: Tensor) -> Tensor:
        """Decode (N, 16, n+1, h, w) to (N, 3, 4n+1, 8h, 8w)."""


E = TypeVar("E", bound=Decodes)


@dataclass(frozen=True)
class KeptLayer:
    """A layer that the check moved to 16 bits."""

    name: str
    """As recipes and reports call it."""
    psnr_db: float
    """PSNR of the picture if this layer alone were computed in the 8-bit format."""

    @property
    def reason(self) -> str:
        """For the recipe and the plan."""
        return f"the accuracy check keeps it: alone it leaves {self.psnr_db:.1f} dB"


@dataclass(frozen=True)
class AccuracyResult:
    """What the check measured and decided."""

    min_psnr_db: float
    """The limit that was asked for."""
    before_db: float
    """PSNR before layers were kept, against the plain model."""
    psnr_db: float
    """PSNR of the recipe as it is now."""
    kept: tuple[KeptLayer, ...] = ()
    """Layers moved to 16 bits, the most sensitive first."""
    seconds: float = 0.0
    """What measuring took, engines and the compiling of their kernels included."""
    from_cache: bool = False
    """Whether an earlier run measured it, of the same weights on the same architecture."""

    def applied_to(self, recipe: QuantRecipe) -> QuantRecipe:
        """The recipe with the kept layers in 16 bits."""
        for layer in self.kept:
            recipe = recipe.keeping_in_16_bits(layer.name, layer.reason)
        return recipe

    def describe(self) -> str:
        """One line for people."""
        line = f"decodes within {self.psnr_db:.1f} dB of the plain model (limit {self.min_psnr_db:g} dB"
        line += ", measured in an earlier run)" if self.from_cache else f", measured in {self.seconds:.1f} s)"
        return line + describe_kept(self.before_db, (layer.name for layer in self.kept))


def check_accuracy(
    vae: VideoVAE,
    recipe: QuantRecipe,
    build: Callable[[QuantRecipe, E | None], E],
    *,
    min_psnr_db: float = DEFAULT_MIN_PSNR_DB,
    costs: Mapping[str, float] | None = None,
    paired: Collection[str] = (),
    maxima: Mapping[str, Tensor] | None = None,
    clip: Tensor | None = None,
) -> tuple[AccuracyResult, E]:
    """Build an engine whose picture differs from the plain model's by `min_psnr_db` or less; return it and the figures.

    build: makes the engine for a recipe, if need be from the engine that was tried before, which is not used any more;
    it is called once for each recipe that is tried, rarely more than twice.
    costs: layer -> what keeping it in 16 bits takes (`sensitivity.decoder_shares`); None finds all equal.
    paired: layers that are computed in pairs of frames (`sensitivity.paired_layers`), which rounding costs more.
    maxima: of every layer's input channels, for INT8; None measures them.
    clip: what is decoded, (N, 3, 4n+1, H, W) in [-1, 1]; the worst of them counts. None is `sample_clips()`.

    If even 16 bits in every layer stay below the limit, that engine is returned and the figure says so.
    """
    began = time.monotonic()
    clip = sample_clips() if clip is None else clip
    latent, decoded = _reconstruct(vae, clip)
    if not _is_finite(decoded):
        log.info("The plain model overflows in %s; the accuracy check compares with FP32.", vae.dtype)
        vae = deepcopy(vae).float()
        latent, decoded = _reconstruct(vae, clip)
    exact = [picture(one) for one in decoded]

    def errors(engine: E) -> list[float]:
        pairs = zip(latent.split(1), exact, strict=True)
        return [mean_squared_error(picture(engine.decode(z)).to(y.device), y).item() for z, y in pairs]

    engine = build(recipe, None)
    found = errors(engine)
    measured = before = max(found)
    kept: list[KeptLayer] = []
    allowed = allowed_error(min_psnr_db)
    if measured > allowed and recipe.is_quantized:
        names = [name for name in decoder_layers(vae.decoder) if recipe.layer_precision(name)[0] == recipe.precision]
        worst = found.index(measured)
        left = layer_errors(vae, latent[worst : worst + 1], names, recipe, paired=paired, maxima=maxima)
        budget = HEADROOM * allowed
        while measured > allowed and left:
            for name in _to_keep(left, costs or dict.fromkeys(left, 1.0), budget):
                kept.append(KeptLayer(name, decibel(left.pop(name))))
            engine = build(AccuracyResult(0, 0, 0, tuple(kept)).applied_to(recipe), engine)
            measured = max(errors(engine))
            # The engine errs more than the layers' figures say, above all where an outlier costs it more than the model
            # of it. How much more is known now.
            budget = sum(left.values()) * HEADROOM * allowed / max(measured, allowed)
        kept.sort(key=lambda layer: layer.psnr_db)
    seconds = round(time.monotonic() - began, 2)
    return AccuracyResult(min_psnr_db, decibel(before), decibel(measured), tuple(kept), seconds), engine


def _to_keep(left: Mapping[str, float], costs: Mapping[str, float], limit: float) -> list[str]:
    """Layers whose removal from `left` brings the sum of the errors down to a limit, at little cost; at least one.

    The most error for its cost first, then without what turns out not to be needed, the costliest first.
    """
    remaining = sum(left.values())
    names: list[str] = []
    for name in sorted(left, key=lambda name: left[name] / costs[name], reverse=True):
        names.append(name)
        remaining -= left[name]
        if remaining <= limit:
            break
    for name in sorted(names, key=lambda name: costs[name], reverse=True):
        if len(names) > 1 and remaining + left[name] <= limit:
            names.remove(name)
            remaining += left[name]
    return names


def _reconstruct(vae: VideoVAE, clip: Tensor) -> tuple[Tensor, list[Tensor]]:
    latent = vae.encode(clip)
    return latent, [vae.decode(one) for one in latent.split(1)]


def _is_finite(decoded: list[Tensor]) -> bool:
    return all(bool(torch.isfinite(one).all()) for one in decoded)
