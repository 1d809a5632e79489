"""What the small VAE is trained to minimise."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

PYRAMID_LEVELS = 5
"""Averages over 2, 4, 8, 16 and 32 pixels."""
CHROMA_LEVELS = (0, 1, 3)
"""Those of them on which colour alone is compared, beside the pixels themselves."""
LUMA = (0.299, 0.587, 0.114)
"""Share of R', G' and B' in brightness (BT.601)."""
DECIBEL_FLOOR = 2e-5
"""Squared error of a frame (of [-1, 1]) from which on its logarithm counts: 53 dB."""
LARGEST_LATENT = 3.0
"""In standard deviations of the target; what lies beyond is pulled back."""


@dataclass(frozen=True)
class LossWeights:
    """Weights of the terms of the training loss; pixels are of [-1, 1]."""

    pixel: float = 1.0
    """Charbonnier distance of pixels."""
    square: float = 2.0
    """Mean squared error: keeps rare large errors away."""
    pyramid: float = 0.5
    """Charbonnier distance after averaging over 2, 4, 8, 16 and 32 pixels: keeps brightness and colour true."""
    chroma: float = 2.0
    """Charbonnier distance of what is left of the error without its brightness, for pixels and averaged over 2, 4 and
    16: the green-magenta axis is so small a part of the other terms that without this one it was not learned at all,
    and averaged over 4 and 16 alone it left beads of green and red along thin lines."""
    decibel: float = 0.05
    """Mean over frames of the logarithm (base 10) of the squared error, from DECIBEL_FLOOR on: an easy frame counts as
    much as a hard one."""
    gradient: float = 0.5
    """Distance of differences between neighbouring pixels: keeps edges sharp."""
    motion: float = 0.25
    """Distance of differences between neighbouring frames: prevents flicker."""
    kl: float = 5e-4
    """Divergence of the posterior from a unit normal, mean per latent element: sets the latents' noise."""
    spread: float = 0.01
    """Squared deviation of each latent channel's mean from 0 and of its log-variance from the target."""
    tail: float = 0.1
    """Squared excess of latents over LARGEST_LATENT: keeps their distribution near a normal one."""


def charbonnier(error: Tensor, epsilon: float = 0.01) -> Tensor:
    """Mean of sqrt(error^2 + epsilon^2) - epsilon: absolute, but smooth at zero."""
    return (torch.sqrt(error * error + epsilon * epsilon) - epsilon).mean()


def picture_terms(output: Tensor, target: Tensor) -> dict[str, Tensor]:
    """Distances between two videos (N, 3, T, H, W), by the names of LossWeights."""
    error = output - target
    frames = error.transpose(1, 2).flatten(0, 1)
    levels = [F.avg_pool2d(frames, 2)]
    while len(levels) < PYRAMID_LEVELS:
        levels.append(F.avg_pool2d(levels[-1], 2))
    luma = error.new_tensor(LUMA).view(1, 3, 1, 1)
    coloured = [level - (level * luma).sum(1, keepdim=True) for level in (frames, *(levels[i] for i in CHROMA_LEVELS))]
    gradient = charbonnier(frames[..., 1:] - frames[..., :-1]) + charbonnier(frames[..., 1:, :] - frames[..., :-1, :])
    terms = {"pixel": charbonnier(frames), "square": (error * error).mean(), "gradient": gradient}
    terms["pyramid"] = torch.stack([charbonnier(level) for level in levels]).mean()
    terms["chroma"] = torch.stack([charbonnier(level) for level in coloured]).mean()
    terms["decibel"] = torch.log10(1 + (frames * frames).mean((1, 2, 3)) / DECIBEL_FLOOR).mean()
    if error.shape[2] > 1:
        terms["motion"] = charbonnier(error[:, :, 1:] - error[:, :, :-1])
    return terms


def latent_terms(mean: Tensor, log_variance: Tensor, target_variance: float) -> dict[str, Tensor]:
    """Terms on the posterior (N, t, h, w, 16): its divergence from a unit normal, its spread per channel."""
    variance = log_variance.exp()
    kl = 0.5 * (mean * mean + variance - 1 - log_variance).mean()
    axes = tuple(range(mean.ndim - 1))
    spread, centre = torch.var_mean(mean, dim=axes)
    spread = spread + variance.mean(dim=axes)
    deviation = torch.log(spread / target_variance + 1e-6)
    excess = F.relu(mean.abs() / math.sqrt(target_variance) - LARGEST_LATENT)
    return {
        "kl": kl,
        "spread": (deviation * deviation + centre * centre / target_variance).mean(),
        "tail": (excess * excess).mean(),
    }


def total_loss(terms: dict[str, Tensor], weights: LossWeights) -> Tensor:
    """The weighted sum of the terms."""
    return torch.stack([getattr(weights, name) * term for name, term in terms.items()]).sum()


def psnr(output: Tensor, target: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of two videos of [-1, 1] (RGB, all frames together, output clamped)."""
    error = (output.clamp(-1, 1) - target) / 2
    return float(-10 * torch.log10((error * error).mean()))
