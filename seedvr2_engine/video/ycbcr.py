"""Between Y'CbCr code values and R'G'B' in [0,1]: matrix, range and chroma siting, as pure functions on tensors."""

from __future__ import annotations

from dataclasses import dataclass, replace

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
            f"The colour matrix {tags.matrix.name.lower()}: expected one of BT.601, BT.709, BT.2020 (non-constant "
            "luminance), FCC, SMPTE 240M or YCgCo, which are what can be converted; convert the clip first."
        )
    code_range = ColorRange.FULL if family == "rgb" else tags.range
    if code_range is ColorRange.UNSPECIFIED:
        code_range = ColorRange.LIMITED if family == "yuv" else ColorRange.FULL
    return replace(tags, matrix=matrix, range=code_range)


def rgb_from_yuv(y: torch.Tensor, cbcr: torch.Tensor, matrix: Matrix) -> torch.Tensor:
    """Return R'G'B' (3,H,W), not clamped.

    `y` is float32 (1,H,W), nominally [0,1]; `cbcr` float32 (2,H,W), nominally [-0.5,0.5].
    """
    return _mix(torch.linalg.inv(_from_rgb(matrix)), (y[0], cbcr[0], cbcr[1]))


def yuv_from_rgb(rgb: torch.Tensor, matrix: Matrix) -> torch.Tensor:
    """Return Y' in [0,1] and Cb, Cr in [-0.5,0.5] as float32 (3,H,W) from R'G'B' float32 (3,H,W) in [0,1]."""
    return _mix(_from_rgb(matrix), (rgb[0], rgb[1], rgb[2]))


def normalise(codes: torch.Tensor, bits: int, code_range: ColorRange, *, chroma: bool = False) -> torch.Tensor:
    """Return code values (any real dtype) as float32: luma, grey and RGB to [0,1], chroma to [-0.5,0.5]."""
    scale, offset = _code_scale(bits, code_range, chroma)
    if offset == 0:
        # A true division: k/255 is then the nearest float, which a product with 1/255 is not.
        return codes.to(torch.float32) / scale
    return (codes.to(torch.float32) - offset) / scale


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


def _mix(matrix: torch.Tensor, channels: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """A (3,3) map of three (H,W) channels, term by term: a matrix product this thin is slower on a CPU."""
    mixed = channels[0].new_empty(3, *channels[0].shape)
    for row, (first, second, third) in zip(mixed, matrix.tolist(), strict=True):
        torch.mul(channels[0], first, out=row)
        row.add_(channels[1], alpha=second).add_(channels[2], alpha=third)
    return mixed


def _code_scale(bits: int, code_range: ColorRange, chroma: bool) -> tuple[float, float]:
    """Codes per unit and the code of zero."""
    step = float(1 << (bits - 8))
    if chroma:
        return (224 * step, 128 * step) if code_range is ColorRange.LIMITED else ((1 << bits) - 1, 128 * step)
    return (219 * step, 16 * step) if code_range is ColorRange.LIMITED else ((1 << bits) - 1, 0)
