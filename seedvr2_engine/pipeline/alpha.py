"""The alpha channel of upscaled pictures, its edges drawn along those of the upscaled colours.

The model knows colours only. Alpha is resampled on its own and then filtered with the upscaled picture as the guide.
Everything is per frame, so frames may come in pieces of any number; only `is_mask` is to be decided once for a clip.
Source of the filter: He, Sun, Tang 2013, "Guided Image Filtering".
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..color.space import to_rgb
from ..errors import InvalidArgumentError
from .resize import Size, resample

_GUIDED_EPS = 0.002
_MASK_RADIUS_PX = 2
_GRADIENT_RADIUS_PX = 3


def is_mask(alpha: Tensor) -> bool:
    """Whether alpha (..., H, W) in [0, 1] is a cut-out: over 95% of it below 0.1 or above 0.9."""
    return bool(((alpha < 0.1) | (alpha > 0.9)).float().mean() > 0.95)


def upscale_alpha(alpha: Tensor, rgb: Tensor, resized: Size, *, mask: bool) -> Tensor:
    """Upscale alpha (T, 1, h, w) in [0, 1] to (T, 1, H, W) in [0, 1], FP32.

    rgb: the upscaled frames (T, 3, H, W) in [-1, 1], before colour correction. resized: size of the whole picture,
    of which rgb is the upper left part. mask: from `is_mask`; its edges are kept hard, a gradient's are not.
    Raises InvalidArgumentError when frames and sizes do not belong together.
    """
    height, width = rgb.shape[-2:]
    if alpha.ndim != 4 or alpha.shape[1] != 1 or rgb.shape[:2] != (alpha.shape[0], 3):
        raise InvalidArgumentError(
            f"alpha: expected (T, 1, h, w) for as many pictures (T, 3, H, W), got {tuple(alpha.shape)} and "
            f"{tuple(rgb.shape)}."
        )
    if resized[0] < height or resized[1] < width:
        raise InvalidArgumentError(
            f"alpha: expected a size of at least {(height, width)} like the picture, got {resized}."
        )
    return torch.stack(
        [_upscale_frame(a[None], picture[None], resized, mask)[0] for a, picture in zip(alpha, rgb, strict=True)]
    )


def edge_strength(picture: Tensor) -> Tensor:
    """Strength of the edges of RGB pictures (T, 3, H, W) in [0, 1]: (T, 1, H, W), 0 to 1 in 255 steps, FP32.

    The Sobel gradient's length relative to the greatest one of the frame, from 8-bit luma; 0 for a flat frame.
    """
    red, green, blue = (picture * 255).int().split(1, dim=1)
    luma = (4899 * red + 9617 * green + 1868 * blue + 8192) >> 14
    # FP64, because results are rounded down and 8-bit gradients hit whole numbers.
    wide = F.pad(luma.double(), (1, 1, 1, 1), mode="reflect")
    across = wide[..., 2:] - wide[..., :-2]
    down = wide[..., 2:, :] - wide[..., :-2, :]
    across = across[..., :-2, :] + 2 * across[..., 1:-1, :] + across[..., 2:, :]
    down = down[..., :-2] + 2 * down[..., 1:-1] + down[..., 2:]
    length = (across**2 + down**2).sqrt()
    greatest = length.amax((-2, -1), keepdim=True)
    return (length / greatest.clamp(min=1e-9) * 255).floor().float() / 255


def guided_filter(guide: Tensor, values: Tensor, radius_px: int) -> Tensor:
    """Smooth `values` where the `guide` is smooth, both (T, 1, H, W); not clamped.

    In every window of 2 * radius + 1 px the result is a linear function of the guide. Windows are filled up with
    zeros outside the picture.
    """

    def mean(x: Tensor) -> Tensor:
        return F.avg_pool2d(x, 2 * radius_px + 1, stride=1, padding=radius_px)

    mean_guide, mean_values = mean(guide), mean(values)
    variance = mean(guide * guide) - mean_guide**2
    slope = (mean(guide * values) - mean_guide * mean_values) / (variance + _GUIDED_EPS)
    return mean(slope) * guide + mean(mean_values - slope * mean_guide)


def _upscale_frame(alpha: Tensor, rgb: Tensor, resized: Size, mask: bool) -> Tensor:
    height, width = rgb.shape[-2:]
    coarse = resample(alpha, resized)[..., :height, :width].clamp(0, 1)
    picture = to_rgb(rgb.float())
    guide = picture.mean(dim=1, keepdim=True)
    if not mask:
        return guided_filter(guide, coarse, _GRADIENT_RADIUS_PX).clamp(0, 1)
    return _harden(guided_filter(guide, coarse, _MASK_RADIUS_PX), edge_strength(picture))


def _harden(soft: Tensor, edges: Tensor) -> Tensor:
    """Bring a filtered mask back to 0 and 1, at once where the picture is flat and by a steep curve at its edges."""
    nearest_edge = F.max_pool2d(edges, 3, stride=1, padding=1)
    at_edge = (edges / 0.25).clamp(0, 1)
    hard = soft.lerp(torch.sigmoid(12 * (soft - 0.5)), at_edge)
    hard = torch.where(nearest_edge < 0.05, (soft > 0.5).float(), hard)
    undecided = (hard > 0.3) & (hard < 0.7) & (edges <= 0.15)
    hard = torch.where((nearest_edge < 0.03) | undecided, (hard > 0.5).float(), hard)
    return hard.clamp(0, 1)
