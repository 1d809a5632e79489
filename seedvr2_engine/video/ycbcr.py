"""Between Y'CbCr code values and R'G'B' in [0,1]: matrix, range and chroma siting, as pure functions on tensors."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import torch

from ..errors import VideoError
from .color_tags import ColorRange, ColorTags, Matrix
from .info import PixelFamily

# (Kr, Kb) of ITU-T H.273, table 4.
_LUMA_WEIGHTS: dict[Matrix, tuple[float, float]] = {
    Matrix.BT709: (0.2126, 0.0722),
    Matrix.FCC: (0.30, 0.11),
    Matrix.BT470BG: (0.299, 0.114),
    Matrix.SMPTE170M: (0.299, 0.114),
    Matrix.SMPTE240M: (0.212, 0.087),
    Matrix.BT2020_NCL: (0.2627, 0.0593),
}
# Their definitions, or their long practice, fix BT.601 whatever the picture size.
_BT601_CODECS = frozenset({"mjpeg", "webp", "vp8", "mpeg1video", "dvvideo", "flv1", "h261", "h263"})
# Codecs whose 4:2:0 chroma lies between the luma samples also horizontally (JPEG, MPEG-1 and kin).
_CENTRED_CODECS = frozenset({"mjpeg", "webp", "vp8", "mpeg1video", "h261", "h263", "flv1"})

_CPU_BAND_PX = 1 << 16
_GPU_BAND_PX = 1 << 20


@dataclass(frozen=True)
class ChromaLayout:
    """How much coarser chroma is than luma, and where its samples lie."""

    step_x: int = 1
    """Luma samples per chroma sample along a row: 1, 2 or 4."""
    step_y: int = 1
    """Luma samples per chroma sample along a column: 1, 2 or 4."""
    centred_x: bool = False
    """False: on the left luma sample (MPEG-2 and later); True: halfway between (JPEG, MPEG-1)."""


def chroma_is_centred(codec: str) -> bool:
    """Return whether this FFmpeg codec name means chroma halfway between luma samples; PyAV reports no siting."""
    return codec in _CENTRED_CODECS


def resolve(tags: ColorTags, *, family: PixelFamily, size: tuple[int, int], codec: str) -> ColorTags:
    """Return the tags with matrix and range decided.

    Unspecified matrix: BT.601 for codecs that define it (JPEG, WebP, VP8, ...), otherwise BT.709 from 1280x720
    upwards (either side) and BT.601 below, as common players do. Unspecified range: limited for Y'CbCr, full for
    grey. R'G'B' is full range always. The writer tags its output with the result, so that a round trip cannot
    shift colours.
    `size` is (width, height). Raises VideoError for a matrix that no linear map expresses.
    """
    if family != "yuv":
        matrix = Matrix.RGB
    elif tags.matrix in (Matrix.UNSPECIFIED, Matrix.RGB):
        is_hd = size[0] >= 1280 or size[1] >= 720
        matrix = Matrix.BT709 if is_hd and codec not in _BT601_CODECS else Matrix.SMPTE170M
    elif tags.matrix in _LUMA_WEIGHTS or tags.matrix is Matrix.YCGCO:
        matrix = tags.matrix
    else:
        raise VideoError(
            f"the colour matrix {tags.matrix.name.lower()}: expected one of BT.601, BT.709, BT.2020 (non-constant "
            "luminance), FCC, SMPTE 240M or YCgCo, which are what can be converted; convert the clip first."
        )
    code_range = ColorRange.FULL if family == "rgb" else tags.range
    if code_range is ColorRange.UNSPECIFIED:
        code_range = ColorRange.LIMITED if family == "yuv" else ColorRange.FULL
    return replace(tags, matrix=matrix, range=code_range)


def rgb_from_codes(
    luma: torch.Tensor,
    chroma: Sequence[torch.Tensor],
    bits: int,
    code_range: ColorRange,
    matrix: Matrix,
    layout: ChromaLayout,
) -> torch.Tensor:
    """Return R'G'B' float32 (3,H,W) clamped to [0,1] of Y'CbCr code values, on their device.

    luma: (H,W); chroma: Cb and Cr, each (ceil(H/step_y),ceil(W/step_x)); code values of any real dtype. Chroma is
    interpolated linearly at the true sample positions. Every device gives the same numbers: see `_decoding`.
    """
    height, width = luma.shape
    luma_weight, luma_offset, weights = _decoding(bits, code_range, matrix)
    zero = float(1 << (bits - 1))
    rgb = luma.new_empty((3, height, width), dtype=torch.float32)
    for rows, coarse in _bands(luma, layout.step_y):
        # A row of chroma more on either side, where there is one.
        first, last = max(coarse.start - 1, 0), min(coarse.stop + 1, chroma[0].shape[0])
        codes = torch.stack([plane[first:last].to(torch.float32) for plane in chroma]).sub_(zero)
        begin = rows.start - first * layout.step_y
        end = begin + len(rows)
        finer = upsample_chroma(codes, (end, width), layout)[:, begin:end].to(torch.float64)
        lines = slice(rows.start, rows.stop)
        grey = luma[lines].to(torch.float64).mul_(luma_weight).add_(luma_offset)
        for channel, (blue, red) in zip(rgb[:, lines], weights, strict=True):
            mixed = torch.add(grey, finer[0], alpha=blue) if blue else grey
            channel.copy_(torch.add(mixed, finer[1], alpha=red) if red else mixed)
    return rgb.clamp_(0, 1)


def codes_from_rgb(
    rgb: torch.Tensor,
    bits: int,
    code_range: ColorRange,
    matrix: Matrix,
    layout: ChromaLayout,
    out: Sequence[torch.Tensor],
) -> None:
    """Write the nearest Y'CbCr code values of R'G'B' float32 (3,H,W) into `out`: Y', Cb and Cr.

    rgb is clamped to [0,1], and taken to the nearest 2^-23. out: integer planes on rgb's device, Y' (H,W), Cb and Cr
    (ceil(H/step_y),ceil(W/step_x)), averaged down at the sample positions of `layout`; steps of 1 and 2. Halves are
    rounded to even. Every device gives the same code values: see `_encoding`.
    """
    rows_of_weights = _encoding(bits, code_range, matrix)
    top = (1 << bits) - 1
    for rows, coarse in _bands(rgb[0], layout.step_y):
        lines = slice(rows.start, rows.stop)
        # In [1,2], where float32 has steps of 2^-23.
        lifted = (rgb[:, lines] + 1).clamp_(1, 2).to(torch.float64)
        _mix(lifted, rows_of_weights[0], top, out[0][lines])
        lowered = downsample_chroma(lifted, layout)
        for plane, weights in zip(out[1:], rows_of_weights[1:], strict=True):
            _mix(lowered, weights, top, plane[coarse.start : coarse.stop])


def normalise(codes: torch.Tensor, bits: int, code_range: ColorRange, *, chroma: bool = False) -> torch.Tensor:
    """Return code values (any real dtype) as float32: luma, grey and RGB to [0,1], chroma to [-0.5,0.5]."""
    scale, offset = _code_scale(bits, code_range, chroma)
    # A true division: k/255 is then the nearest float, which a product with 1/255 is not. On a GPU PyTorch makes such
    # a product of a division by a number, but not by a tensor.
    divisor = torch.full((), scale, dtype=torch.float32, device=codes.device)
    values = codes.to(torch.float32)
    return (values if offset == 0 else values - offset) / divisor


def quantise(values: torch.Tensor, bits: int, code_range: ColorRange, *, chroma: bool = False) -> torch.Tensor:
    """Return the nearest code values as int32, the inverse of `normalise`; out-of-range values are clamped."""
    scale, offset = _code_scale(bits, code_range, chroma)
    return (values * scale + offset).round_().clamp_(0, (1 << bits) - 1).to(torch.int32)


def upsample_chroma(plane: torch.Tensor, size: tuple[int, int], layout: ChromaLayout) -> torch.Tensor:
    """Return chroma (C,h,w) at luma resolution (C,H,W) by linear interpolation at the true sample positions.

    `size` is (H, W). Vertically chroma lies between two luma rows (MPEG-2, H.264 and H.265 default, JPEG).
    """
    plane = _interpolate(plane, 1, size[0], layout.step_y, centred=True)
    return _interpolate(plane, 2, size[1], layout.step_x, centred=layout.centred_x)


def downsample_chroma(plane: torch.Tensor, layout: ChromaLayout) -> torch.Tensor:
    """Return chroma (C,H,W) averaged down to (C,ceil(H/step_y),ceil(W/step_x)) at the sample positions of `layout`.

    Steps of 1 and 2. Left-sited samples take the weights 1/4, 1/2, 1/4; centred ones the mean of their pair.
    """
    if layout.step_y == 2:
        if plane.shape[1] % 2:
            plane = torch.cat((plane, plane[:, -1:]), dim=1)
        plane = (plane[:, 0::2] + plane[:, 1::2]) * 0.5
    if layout.step_x == 2:
        if plane.shape[2] % 2:
            plane = torch.cat((plane, plane[:, :, -1:]), dim=2)
        even, odd = plane[:, :, 0::2], plane[:, :, 1::2]
        if layout.centred_x:
            return (even + odd) * 0.5
        left = torch.cat((even[:, :, :1], odd[:, :, :-1]), dim=2)
        plane = even * 0.5 + (left + odd) * 0.25
    return plane


def _interpolate(plane: torch.Tensor, dim: int, length: int, step: int, *, centred: bool) -> torch.Tensor:
    """One strided write per phase of the grid; about ten times as fast as gathering two neighbours per sample."""
    if step == 1:
        return plane
    last = plane.shape[dim] - 1
    previous = torch.cat((plane.narrow(dim, 0, 1), plane.narrow(dim, 0, last)), dim)
    following = torch.cat((plane.narrow(dim, 1, last), plane.narrow(dim, last, 1)), dim)
    shape = list(plane.shape)
    shape[dim] *= step
    finer = plane.new_empty(shape)
    for phase in range(step):
        offset = (phase + 0.5) / step - 0.5 if centred else phase / step
        rows = [slice(None)] * dim + [slice(phase, None, step)]
        finer[tuple(rows)] = torch.lerp(plane, previous if offset < 0 else following, abs(offset))
    return finer.narrow(dim, 0, length)


def _from_rgb(matrix: Matrix) -> torch.Tensor:
    """The float64 (3,3) map from R'G'B' to Y'CbCr."""
    if matrix is Matrix.YCGCO:
        return torch.tensor([[0.25, 0.5, 0.25], [-0.25, 0.5, -0.25], [0.5, 0.0, -0.5]], dtype=torch.float64)
    kr, kb = _LUMA_WEIGHTS[matrix]
    luma = torch.tensor([kr, 1 - kr - kb, kb], dtype=torch.float64)
    blue, red = torch.eye(3, dtype=torch.float64)[2], torch.eye(3, dtype=torch.float64)[0]
    return torch.stack((luma, (blue - luma) / (2 * (1 - kb)), (red - luma) / (2 * (1 - kr))))


@lru_cache
def _decoding(
    bits: int, code_range: ColorRange, matrix: Matrix
) -> tuple[float, float, tuple[tuple[float, float], ...]]:
    """What Y' is multiplied with, what is added, and the weights of (Cb, Cr) in R', G' and B', all in codes.

    The weights are multiples of 2^-51 for Y' and of 2^-45 for chroma, which interpolation has made a multiple of 2^-6
    of at most 2^16 (exactly, in float32). All products and sums are then multiples of 2^-51 below 4, which float64
    holds exactly: they depend neither on their order nor on fused multiply-adds, and only what becomes of them in
    float32 is rounded, once. Rounding the weights moves no result by more than 2^-29 for it.
    """
    inverse = torch.linalg.inv(_from_rgb(matrix)).tolist()
    luma_scale, luma_zero = _code_scale(bits, code_range, chroma=False)
    chroma_scale, _ = _code_scale(bits, code_range, chroma=True)
    # The first column of every inverse is ones: grey is Y'.
    weight = _on_grid(1 / luma_scale, 51)
    weights = tuple((_on_grid(blue / chroma_scale, 45), _on_grid(red / chroma_scale, 45)) for _, blue, red in inverse)
    return weight, -luma_zero * weight, weights


@lru_cache
def _encoding(bits: int, code_range: ColorRange, matrix: Matrix) -> list[tuple[float, float, float, float]]:
    """For Y', Cb and Cr: the weights of R', G' and B' plus 1, and what is added, all in codes.

    The weights are multiples of 2^(bits-25), and what they are multiplied with of 2^-26 (averages of four by eighths of
    values in [1,2] at steps of 2^-23). All products and sums are then multiples of 2^(bits-51) below 2^(bits+2), which
    float64 holds exactly, as for `_decoding`; only the code value is rounded. Grey is exact: a row's weights sum to the
    scale of luma, and to nothing. The rounding of the weights moves no result by more than 2^(bits-24) codes.
    """
    rows = []
    for index, row in enumerate(_from_rgb(matrix).tolist()):
        scale, zero = _code_scale(bits, code_range, chroma=index > 0)
        weights = [_on_grid(value * scale, 25 - bits) for value in row]
        total = 0.0 if index else scale
        largest = max(range(3), key=lambda place: abs(row[place]))
        weights[largest] = total - sum(weights[:largest] + weights[largest + 1 :])
        rows.append((weights[0], weights[1], weights[2], zero - total))
    return rows


def _on_grid(value: float, bits: int) -> float:
    """The nearest multiple of 2^-bits."""
    return math.ldexp(round(math.ldexp(value, bits)), -bits)


def _mix(channels: torch.Tensor, weights: tuple[float, float, float, float], top: int, out: torch.Tensor) -> None:
    """Round a weighted sum of three float64 (H,W) channels into `out`, clamped to [0,top].

    Term by term: a matrix product this thin is slower on a CPU.
    """
    mixed = torch.mul(channels[0], weights[0])
    mixed.add_(channels[1], alpha=weights[1]).add_(channels[2], alpha=weights[2]).add_(weights[3])
    out.copy_(mixed.round_().clamp_(0, top))


def _bands(plane: torch.Tensor, step: int) -> Iterator[tuple[range, range]]:
    """Rows of a plane a few at a time, and the rows of chroma that lie in them; only the last of each may be odd.

    On a CPU intermediate values stay in its caches, on a GPU they take little memory.
    """
    height, width = plane.shape
    pixels = _CPU_BAND_PX if plane.device.type == "cpu" else _GPU_BAND_PX
    coarse = max(1, pixels // (width * step))
    for start in range(0, -(-height // step), coarse):
        stop = min(start + coarse, -(-height // step))
        yield range(start * step, min(stop * step, height)), range(start, stop)


def _code_scale(bits: int, code_range: ColorRange, chroma: bool) -> tuple[float, float]:
    """Codes per unit and the code of zero."""
    step = float(1 << (bits - 8))
    if chroma:
        return (224 * step, 128 * step) if code_range is ColorRange.LIMITED else ((1 << bits) - 1, 128 * step)
    return (219 * step, 16 * step) if code_range is ColorRange.LIMITED else ((1 << bits) - 1, 0)
