"""Pictures as code values: small enough for a bus, and turned into R'G'B' and back on whatever device they are."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch

from .color_tags import ColorRange, ColorTags
from .info import Crop, Frame, Orientation, PictureMetadata
from .layouts import PixelLayout
from .ycbcr import codes_from_rgb, normalise, quantise, rgb_from_codes


@dataclass(frozen=True)
class Coding:
    """What the bytes of a picture are: its layout, its size as stored, and what its code values mean."""

    layout: PixelLayout
    width: int
    height: int
    tags: ColorTags
    """Resolved, and fitting the layout."""

    @property
    def size_bytes(self) -> int:
        """Bytes of a picture."""
        return self.layout.size_bytes(self.width, self.height)

    def decoded(self, codes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return (rgb, alpha) of a picture's bytes, on their device: float32 (3,H,W) and (1,H,W) or None, in [0,1].

        R'G'B' and grey are the float32 next to code / maximum. Y'CbCr is interpolated linearly at the true sample
        positions, interlaced chroma as progressive, and rounded to float32 once. All devices give the same numbers.
        """
        layout, planes = self.layout, self.layout.planes(codes, self.width, self.height)
        channels = [planes[plane][:, :, place] for plane, place in layout.channels]
        if layout.chroma is not None:
            rgb = rgb_from_codes(
                channels[0], channels[1:], layout.bits, self.tags.range, self.tags.matrix, layout.chroma
            )
        else:
            # uint16 tensors cannot be stacked on every device.
            values = torch.stack([channel.to(torch.float32) for channel in channels])
            rgb = normalise(values, layout.bits, self.tags.range).clamp_(0, 1)
            rgb = rgb.expand(3, -1, -1).contiguous() if rgb.shape[0] == 1 else rgb
        if layout.alpha is None:
            return rgb, None
        plane, place = layout.alpha
        return rgb, normalise(planes[plane][None, :, :, place], layout.bits, ColorRange.FULL)

    def of_picture(self, picture: torch.Tensor) -> torch.Tensor:
        """Return the code values of float (3,H,W) R'G'B', or (4,H,W) with alpha, as `encoded` does."""
        return self.encoded(picture[:3], picture[3:] if picture.shape[0] == 4 else None)

    def encoded(self, rgb: torch.Tensor, alpha: torch.Tensor | None) -> torch.Tensor:
        """Return the nearest code values of float (3,H,W) R'G'B' and (1,H,W) alpha in [0,1], on their device, as bytes.

        Halves are rounded to even, values outside [0,1] clamped. A layout with alpha is opaque where there is none.
        All devices give the same code values; of NaN none is promised.
        """
        codes = torch.empty(self.size_bytes, dtype=torch.uint8, device=rgb.device)
        layout, planes = self.layout, self.layout.planes(codes, self.width, self.height)
        channels = [planes[plane][:, :, place] for plane, place in layout.channels]
        rgb = rgb.detach().to(torch.float32)
        if layout.chroma is not None:
            codes_from_rgb(rgb, layout.bits, self.tags.range, self.tags.matrix, layout.chroma, channels)
        else:
            for channel, values in zip(channels, rgb, strict=True):
                channel.copy_(quantise(values, layout.bits, self.tags.range))
        used = {*layout.channels}
        if layout.alpha is not None:
            plane, place = layout.alpha
            target = planes[plane][:, :, place]
            used.add(layout.alpha)
            if alpha is None:
                # torch fills no uint16 on some devices.
                target.copy_(torch.full_like(target, (1 << layout.bits) - 1, dtype=torch.int32))
            else:
                opacity = alpha.detach()[0].to(rgb.device, torch.float32)
                target.copy_(quantise(opacity, layout.bits, ColorRange.FULL))
        for plane, count in enumerate(layout.samples):
            for place in {*range(count)} - {at for where, at in used if where == plane}:
                planes[plane][:, :, place].zero_()
        return codes


@dataclass(frozen=True)
class CodedFrame:
    """One picture of a source as its decoder gives it, with what makes R'G'B' of it."""

    codes: torch.Tensor
    """uint8 (bytes,) in the machine's byte order, on the CPU."""
    coding: Coding
    pts: int
    """As `Frame.pts`."""
    duration: int
    """As `Frame.duration`."""
    crop: Crop = field(default_factory=Crop)
    orientation: Orientation = field(default_factory=Orientation)
    metadata: PictureMetadata | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """(3, or 4 with alpha, H, W) of the upright picture."""
        height = self.coding.height - self.crop.top - self.crop.bottom
        width = self.coding.width - self.crop.left - self.crop.right
        size = (width, height) if self.orientation.transpose else (height, width)
        return (3 if self.coding.layout.alpha is None else 4, *size)

    def on(self, device: torch.device | str) -> torch.Tensor:
        """Return the upright picture on a device: float32 `shape` in [0,1], the same numbers everywhere."""
        rgb, alpha = self._upright(self.codes.to(device, non_blocking=True))
        return rgb if alpha is None else torch.cat((rgb, alpha))

    def decoded(self) -> Frame:
        """Return it as a `Frame`."""
        rgb, alpha = self._upright(self.codes)
        return Frame(rgb, alpha, self.pts, self.duration, self.metadata)

    def _upright(self, codes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        rgb, alpha = cropped(self.coding.decoded(codes), self.crop)
        return upright(rgb, self.orientation), None if alpha is None else upright(alpha, self.orientation)


def without_alpha(layout: PixelLayout) -> PixelLayout:
    """The layout of a picture whose alpha means nothing: without its plane, if it has one of its own."""
    is_plane = layout.alpha is not None and layout.samples[layout.alpha[0]] == 1
    return replace(layout, alpha=None, samples=layout.samples[:-1] if is_plane else layout.samples)


def cropped(picture: tuple[torch.Tensor, torch.Tensor | None], crop: Crop) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Cut a stored picture's edges off; rgb: (3,H,W), alpha: (1,H,W) or None."""
    rgb, alpha = picture
    if crop == Crop():
        return picture
    rows = slice(crop.top, rgb.shape[1] - crop.bottom)
    columns = slice(crop.left, rgb.shape[2] - crop.right)
    return rgb[:, rows, columns], None if alpha is None else alpha[:, rows, columns]


def upright(picture: torch.Tensor, orientation: Orientation) -> torch.Tensor:
    """Return the contiguous (C,H,W) picture with its orientation applied."""
    if orientation.transpose:
        picture = picture.transpose(1, 2)
    flips = [dim for dim, wanted in ((1, orientation.mirror_y), (2, orientation.mirror_x)) if wanted]
    return (picture.flip(flips) if flips else picture).contiguous()
