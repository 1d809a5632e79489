"""What still-picture and video codecs do to a clip: block transforms, coarse steps, prediction from frame to frame.

Stills follow JPEG's baseline (ITU-T T.81): YCbCr with chroma at half the size, 8x8 cosine transform, the tables of its
Annex K scaled by a quality. Clips are predicted from the frame before, block by block along the best of a few motions,
and only what is left is coded, in steps that are wide around zero. Entropy coding changes no pixel and is left out.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

Planes = tuple[Tensor, Tensor]
"""Luma and chroma."""

BLOCK = 8
CELL_PX = 2 * BLOCK
"""Pixels that a chroma block covers along an edge."""
DEAD_ZONE = 1 / 3
"""Rounding offset of a video codec's residuals: values up to two thirds of a step become zero."""
LUMA_STEPS = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
CHROMA_CORNER = ((17, 18, 24, 47), (18, 21, 26, 66), (24, 26, 56, 99), (47, 66, 99, 99))
"""The low frequencies of the chroma table; all others are 99."""
MOTIONS = (
    *((0, 0), (0, 1), (0, -1), (1, 0), (-1, 0), (0, 3), (0, -3), (3, 0), (-3, 0)),
    *((2, 2), (2, -2), (-2, 2), (-2, -2), (0, 6), (0, -6)),
)
"""Rows and columns that a block may have moved since the frame before."""


def jpeg(clips: Tensor, quality: Tensor) -> Tensor:
    """Code every frame of (N, 3, T, H, W) in [0, 1] by itself; quality (N,) from 1 to 100."""
    size = clips.shape[-2:]
    luma, chroma = _split(clips)
    luma = _coded(luma - 128, quality, _luma_steps(clips.device), 0.5) + 128
    chroma = _coded(chroma, quality, _chroma_steps(clips.device), 0.5)
    return _join(luma, chroma)[..., : size[0], : size[1]]


def video_coded(clips: Tensor, quality: Tensor) -> Tensor:
    """Code (N, 3, T, H, W) in [0, 1] as a clip whose first frame stands alone; quality (N,) from 1 to 100."""
    size = clips.shape[-2:]
    luma, chroma = _split(clips)
    # Residuals are coded in equal steps for all frequencies, as wide as those of the middle of the still's table.
    flat = torch.ones((BLOCK, BLOCK), device=clips.device)
    stills, residuals = (_luma_steps(clips.device), _chroma_steps(clips.device)), (30 * flat, 45 * flat)
    decoded: list[Planes] = []
    for time in range(clips.shape[2]):
        now = luma[:, :, time : time + 1], chroma[:, :, time : time + 1]
        if time == 0:
            grey = torch.full_like(now[0], 128.0), torch.zeros_like(now[1])
            decoded.append(_recoded(now, grey, quality, stills, 0.5))
        else:
            decoded.append(_recoded(now, _predicted(decoded[-1], now[0]), quality, residuals, DEAD_ZONE))
    luma, chroma = (torch.cat(frames, dim=2) for frames in zip(*decoded, strict=True))
    return _join(luma, chroma)[..., : size[0], : size[1]]


def _recoded(now: Planes, predicted: Planes, quality: Tensor, steps: Planes, offset: float) -> Planes:
    """The prediction and what the codec keeps of the difference, of luma and of chroma."""
    luma, chroma = (
        before + _coded(exact - before, quality, table, offset)
        for exact, before, table in zip(now, predicted, steps, strict=True)
    )
    return luma, chroma


def _predicted(before: Planes, luma: Tensor) -> Planes:
    """The frame before with each 16x16 block moved along the motion that leaves the least of `luma`."""
    moved = torch.stack([before[0].roll(motion, (-2, -1)) for motion in MOTIONS])
    error = F.avg_pool2d((moved - luma).abs().flatten(0, 3)[:, None], CELL_PX)
    best = error.view(len(MOTIONS), *luma.shape[:3], *error.shape[-2:]).argmin(0, keepdim=True)
    colours = torch.stack([before[1].roll((dy // 2, dx // 2), (-2, -1)) for dy, dx in MOTIONS])
    wide = best.repeat_interleave(CELL_PX, -2).repeat_interleave(CELL_PX, -1)
    narrow = best.repeat_interleave(BLOCK, -2).repeat_interleave(BLOCK, -1)
    narrow = narrow.expand(1, *before[1].shape)
    return moved.gather(0, wide)[0], colours.gather(0, narrow)[0]


def _coded(planes: Tensor, quality: Tensor, steps: Tensor, offset: float) -> Tensor:
    """Planes (N, C, T, H, W) of multiples of 8, through the transform and steps (8, 8) at quality (N,) and back."""
    scale = torch.where(quality < 50, 50 / quality.clamp_min(1), 2 - quality / 50).clamp_min(0.02)
    width = (steps * scale.view(-1, 1, 1)).clamp_min(1).view(-1, 1, 1, 1, 1, BLOCK, BLOCK)
    transform = _cosines(planes.device)
    blocks = planes.unflatten(-1, (-1, BLOCK)).unflatten(-3, (-1, BLOCK)).transpose(-3, -2)  # n c t bh bw 8 8
    values = transform @ blocks @ transform.T
    values = values.sign() * torch.floor(values.abs() / width + offset) * width
    return (transform.T @ values @ transform).transpose(-3, -2).flatten(-2).flatten(-3, -2)


def _split(clips: Tensor) -> Planes:
    """[0, 1] (N, 3, T, H, W) -> luma (N, 1, T, H', W') of 0..255, chroma (N, 2, T, H'/2, W'/2) around 0; padded."""
    n, _, frames, height, width = clips.shape
    flat = F.pad(
        clips.transpose(1, 2).flatten(0, 1) * 255, (0, -width % CELL_PX, 0, -height % CELL_PX), mode="replicate"
    )
    red, green, blue = flat.split(1, dim=1)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    chroma = F.avg_pool2d(torch.cat([(blue - luma) / 1.772, (red - luma) / 1.402], dim=1), 2)
    luma, chroma = (plane.unflatten(0, (n, frames)).transpose(1, 2) for plane in (luma, chroma))
    return luma, chroma


def _join(luma: Tensor, chroma: Tensor) -> Tensor:
    """The reverse of `_split`, padding included, clamped to [0, 1]."""
    n, _, frames = luma.shape[:3]
    small = chroma.transpose(1, 2).flatten(0, 1)
    blue, red = F.interpolate(small, scale_factor=2, mode="bilinear", align_corners=False).split(1, dim=1)
    flat = luma.transpose(1, 2).flatten(0, 1)
    green = flat - (0.114 * 1.772 * blue + 0.299 * 1.402 * red) / 0.587
    colours = torch.cat([flat + 1.402 * red, green, flat + 1.772 * blue], dim=1) / 255
    return colours.clamp(0, 1).unflatten(0, (n, frames)).transpose(1, 2)


def _cosines(device: torch.device) -> Tensor:
    """The orthonormal 8-point cosine transform (frequency, sample)."""
    index = torch.arange(BLOCK, device=device, dtype=torch.float32)
    basis = torch.cos(math.pi / BLOCK * index[:, None] * (index + 0.5)) / 2
    basis[0] /= math.sqrt(2)
    return basis


def _luma_steps(device: torch.device) -> Tensor:
    return torch.tensor(LUMA_STEPS, device=device, dtype=torch.float32)


def _chroma_steps(device: torch.device) -> Tensor:
    corner = torch.tensor(CHROMA_CORNER, device=device, dtype=torch.float32)
    return F.pad(corner, (0, 4, 0, 4), value=99.0)
