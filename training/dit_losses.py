"""What the small transformer is trained to minimise, and the distance that its sharpness is measured with."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from training.losses import charbonnier, picture_terms

TEXTURE_LEVELS = 3
"""Textures are compared at full, half and quarter size."""
TEXTURE_PX = 8
"""Edge of the squares whose textures are compared, in pixels of their level."""
DISTANCE_LEVELS = 4
_FLAT = 0.0026
"""A gradient's energy below which nothing is seen: GMSD's constant 170 for pictures of 0..255, rescaled to [0, 1]."""


LEAST_ERROR = 1e-4
"""Mean squared error, of [-1, 1], below which a clip is good enough: 46 dB."""
TERMS = (
    *("latent", "pixel", "decibel", "gradient", "pyramid", "chroma", "motion", "texture", "structure"),
    "square",
)
"""Everything that a step measures, in the order of the vectors of weights and of terms."""
CONSTANT = {"pixel": 1.0, "decibel": 0.08, "gradient": 0.5, "pyramid": 0.5, "chroma": 2.0, "motion": 0.25}
"""Weights that do not change; those of `training.losses` but for the squared error, which `decibel` replaces."""


@dataclass(frozen=True)
class Schedule:
    """Weights of the terms that come and go, by the fraction of the schedule."""

    latent: tuple[float, float] = (1.0, 0.1)
    """Distance of the latents, which have unit variance: first and last weight."""
    latent_until: float = 0.3
    """Where it reaches the last."""
    structure: float = 1.0
    """Unlikeness of edges."""
    structure_from: float = 0.1
    """Where it begins."""
    texture: float = 0.1
    """Distance of the strength of texture: what a regression to the mean smooths away, this asks back."""
    texture_from: float = 0.5
    """Where it begins."""

    def weights(self, fraction: float) -> list[float]:
        """The weights of TERMS."""
        first, last = self.latent
        at = {
            "latent": first + (last - first) * min(1.0, fraction / self.latent_until),
            "structure": self.structure * (fraction >= self.structure_from),
            "texture": self.texture * (fraction >= self.texture_from),
        }
        return [(CONSTANT | at).get(name, 0.0) for name in TERMS]


def latent_distance(output: Tensor, target: Tensor) -> Tensor:
    """Absolute and squared distance of two latents, half and half."""
    error = output - target
    return 0.5 * charbonnier(error, 0.05) + 0.5 * (error * error).mean()


def restoration_terms(output: Tensor, target: Tensor) -> dict[str, Tensor]:
    """Distances between two videos (N, 3, T, H, W) of [-1, 1], by the names of TERMS."""
    error = (output - target).square().mean((1, 2, 3, 4))
    return picture_terms(output, target) | {
        # The PSNR that is reported is a mean over clips, so every clip counts the same however hard it is.
        "decibel": torch.log(error + LEAST_ERROR).mean(),
        "texture": texture_distance(output, target),
        "structure": unlikeness(luma(output) / 2, luma(target) / 2, 1e-10),
    }


def texture_distance(output: Tensor, target: Tensor) -> Tensor:
    """How much stronger or weaker the texture of each small square is, wherever in the square it lies.

    The root mean square of the luma's gradient over TEXTURE_PX squared pixels, compared at TEXTURE_LEVELS sizes.
    """
    a, b = luma(output), luma(target)
    distances = []
    for level in range(TEXTURE_LEVELS):
        if level:
            a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)
        distances.append((_strength(a) - _strength(b)).abs().mean())
    return torch.stack(distances).mean()


def _strength(planes: Tensor) -> Tensor:
    energy = gradient_energy(planes)
    square = min(TEXTURE_PX, *energy.shape[-2:])
    return torch.sqrt(F.avg_pool2d(energy, square, max(1, square // 2)) + 1e-5)


@torch.no_grad()
def structure_distance(output: Tensor, target: Tensor) -> float:
    """How unlike the edges and textures of two videos (N, 3, T, H, W) of [-1, 1] are: 0 for equal ones, at most 1.

    The mean of two parts over four sizes, each half of the one before: one minus the similarity of gradient magnitudes
    pixel by pixel (Xue, Zhang, Mou and Bovik, "Gradient magnitude similarity deviation", 2014, pooled by the mean),
    and the same of the gradients' mean energy in squares of 8 pixels, which forgives texture that lies elsewhere.
    Blur, noise and blocks all raise it; unlike PSNR it does not prefer a blurred picture to a sharp one.
    """
    return float(unlikeness(*(luma(x.clamp(-1, 1)) / 2 for x in (output, target))))


def unlikeness(a: Tensor, b: Tensor, softness: float = 0.0) -> Tensor:
    parts = []
    for level in range(DISTANCE_LEVELS):
        if level:
            a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)
        x, y = gradient_energy(a), gradient_energy(b)
        parts.append(1 - _similarity(x, y, softness).mean())
        square = min(TEXTURE_PX, *x.shape[-2:])
        parts.append(1 - _similarity(F.avg_pool2d(x, square), F.avg_pool2d(y, square), softness).mean())
    return torch.stack(parts).mean()


def _similarity(a: Tensor, b: Tensor, softness: float) -> Tensor:
    """2 sqrt(ab) / (a + b) of two energies, 1 where both are too small to be seen.

    softness: added under the root, whose slope at 0 is infinite.
    """
    return (2 * torch.sqrt(a * b + softness) + _FLAT) / (a + b + _FLAT)


def luma(video: Tensor) -> Tensor:
    """The brightness of every frame of (N, 3, T, H, W): (N * T, 1, H, W)."""
    red, green, blue = video.transpose(1, 2).flatten(0, 1).split(1, dim=1)
    return 0.299 * red + 0.587 * green + 0.114 * blue


def gradient_energy(planes: Tensor) -> Tensor:
    """Squared gradient of (N, 1, H, W) between neighbours two pixels apart, smoothed across; (N, 1, H-2, W-2)."""
    smooth_rows = (planes[..., :-2, :] + planes[..., 1:-1, :] + planes[..., 2:, :]) / 3
    smooth_columns = (planes[..., :-2] + planes[..., 1:-1] + planes[..., 2:]) / 3
    dx = smooth_rows[..., 2:] - smooth_rows[..., :-2]
    dy = smooth_columns[..., 2:, :] - smooth_columns[..., :-2, :]
    return dx * dx + dy * dy
