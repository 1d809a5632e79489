"""Colour correction: the colours of the source, given back to the upscaled frames.

Content is what the model made of a frame, style is the resized source of that frame; both (T, 3, H, W) of one shape,
in [-1, 1], of any floating dtype. `lab`, `hsv` and `wavelet_adaptive` match distributions over all frames of a slice:
`measure_curves` looks at every frame, then `correct_frame` makes them one by one, so that no more than the slice
itself has to be in memory. `wavelet` and `adain` know one frame at a time.
"""

from collections.abc import Iterable
from typing import Literal, get_args

import torch
from torch import Tensor

from ..errors import InvalidArgumentError
from .backend import count_lab, match_lab, wavelet
from .rank import LEVELS, ValueRange, count_levels, look_up, matching_curve, to_levels, unchanging_curve
from .reference import LAB_RANGES
from .space import from_rgb, hsv_to_rgb, rgb_to_hsv, saturation, to_rgb

ColorMethod = Literal["lab", "wavelet", "wavelet_adaptive", "hsv", "adain", "none"]
COLOR_METHODS: tuple[ColorMethod, ...] = get_args(ColorMethod)
SLICE_METHODS: tuple[ColorMethod, ...] = ("lab", "wavelet_adaptive", "hsv")
"""Methods that look at every frame of a slice before they make the first."""

HUES = 12
"""Equal arcs of the hue circle whose saturations `hsv` matches apart."""
LEAST_PIXELS = 100
"""An arc is matched if more pixels than this have its hue in the content, and in the style."""
SATURATIONS = ValueRange(0, 1)


def correct_color(content: Tensor, style: Tensor, method: ColorMethod) -> Tensor:
    """Correct a slice (T, 3, H, W), matching its frames together; FP32, in [-1, 1] but for `adain` and `none`."""
    if content.ndim != 4 or content.shape[1] != 3 or content.shape != style.shape:
        raise InvalidArgumentError(
            f"colour: expected content and style of one shape (T, 3, H, W), got {tuple(content.shape)} and "
            f"{tuple(style.shape)}."
        )
    curves = measure_curves(zip(content, style, strict=True), method)
    out = torch.empty(content.shape, dtype=torch.float32, device=content.device)
    for frame, content_frame, style_frame in zip(out, content, style, strict=True):
        frame.copy_(correct_frame(content_frame, style_frame, method, curves))
    return out


def measure_curves(pairs: Iterable[tuple[Tensor, Tensor]], method: ColorMethod) -> Tensor | None:
    """What a method has to know of the whole slice: a curve for each channel or hue; None if it needs nothing.

    pairs: content and style (3, H, W) of each frame. Working memory is that of a frame, and 75 MB for `lab` or 300 MB
    for the others.
    """
    if method not in COLOR_METHODS:
        raise InvalidArgumentError(f"colour method: expected one of {', '.join(COLOR_METHODS)}, got {method!r}.")
    if method == "lab":
        counts = count_levels(((wavelet(content, style), style) for content, style in pairs), 3, count_lab)
        return torch.stack([matching_curve(c, s, r) for c, s, r in zip(*counts, LAB_RANGES, strict=True)])
    if method in ("hsv", "wavelet_adaptive"):
        hues = ((_hue_levels(_to_hsv(c.float())), _hue_levels(_to_hsv(s.float()))) for c, s in pairs)
        content, style = count_levels(hues, HUES)
        return _saturation_curves(content, style)
    return None


def correct_frame(content: Tensor, style: Tensor, method: ColorMethod, curves: Tensor | None = None) -> Tensor:
    """Correct one frame (3, H, W) with the curves of its slice; FP32."""
    if method == "wavelet":
        return wavelet(content, style)
    if method == "lab" and curves is not None:
        return match_lab(wavelet(content, style), curves)
    content, style = content.float(), style.float()
    if method == "none":
        return content
    if method == "adain":
        return adain(content, style)
    if curves is None:
        raise InvalidArgumentError(f"colour method {method}: expected the curves of measure_curves, got None.")
    matched = _match_saturation(content, curves)
    return matched if method == "hsv" else _mix_by_saturation(content, style, matched)


def adain(content: Tensor, style: Tensor) -> Tensor:
    """Give each channel of each frame (..., C, H, W) the mean and standard deviation of the style; not clamped.

    Source: Huang and Belongie 2017, "Arbitrary Style Transfer in Real-time with Adaptive Instance Normalization".
    """
    content_variance, content_mean = torch.var_mean(content, dim=(-2, -1), keepdim=True)
    style_variance, style_mean = torch.var_mean(style, dim=(-2, -1), keepdim=True)
    return (content - content_mean) * ((style_variance + 1e-5) / (content_variance + 1e-5)).sqrt() + style_mean


def _to_hsv(picture: Tensor) -> Tensor:
    return rgb_to_hsv(to_rgb(picture))


def _hue_levels(hsv: Tensor) -> Tensor:
    """Levels of the saturation, offset by the pixel's arc of the hue circle."""
    edges = torch.arange(1, HUES, dtype=torch.float32, device=hsv.device) / HUES
    hues = torch.bucketize(hsv[0], edges, right=True, out_int32=True)
    return to_levels(hsv[1], SATURATIONS) + hues * LEVELS


def _saturation_curves(content: Tensor, style: Tensor) -> Tensor:
    """Curves of the arcs from their counts (HUES, LEVELS).

    Both ends of the circle are red: the first arc is matched together with the last one, and its curve serves the last
    one too where that has too few pixels of its own.
    """
    unchanged = unchanging_curve(SATURATIONS, content.device)

    def curve(content_counts: Tensor, style_counts: Tensor, otherwise: Tensor) -> Tensor:
        if min(int(content_counts.sum()), int(style_counts.sum())) <= LEAST_PIXELS:
            return otherwise
        return matching_curve(content_counts, style_counts, SATURATIONS)

    red = curve(content[0] + content[-1], style[0] + style[-1], unchanged)
    between = [curve(content[i], style[i], unchanged) for i in range(1, HUES - 1)]
    return torch.stack([red, *between, curve(content[-1], style[-1], red)])


def _match_saturation(picture: Tensor, curves: Tensor) -> Tensor:
    hue, _, value = hsv = _to_hsv(picture)
    return from_rgb(hsv_to_rgb(torch.stack([hue, look_up(_hue_levels(hsv), curves), value])))


def _mix_by_saturation(content: Tensor, style: Tensor, matched: Tensor) -> Tensor:
    """`wavelet`, but `matched` where that is more saturated than the style, the more so the more the content is."""
    coarse = wavelet(content, style)
    wanted = saturation(to_rgb(style))
    share = torch.sigmoid(5 * (saturation(to_rgb(content)) - wanted - 0.15))
    share = torch.where(saturation(to_rgb(coarse)) - wanted > 0.075, share, 0)
    return coarse.lerp(matched, share)
