"""Where the samples of a pixel format lie: plane behind plane, as in FFmpeg's frames but without padding."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from math import prod

import torch

from .ycbcr import ChromaLayout

YUV = re.compile(r"yuv[aj]?(\d{3})p(\d*)(le|be)?")
GBR = re.compile(r"gbra?p(\d*)(le|be)?")
GREY = re.compile(r"(?:gray|ya)(\d*)(le|be)?")
PACKED = re.compile(r"(rgb|bgr|rgba|bgra|argb|abgr|rgb0|bgr0|0rgb|0bgr)(24|48|64)?(le|be)?")
CHROMA_STEPS = {"410": (4, 4), "411": (4, 1), "420": (2, 2), "422": (2, 1), "440": (1, 2), "444": (1, 1)}

Place = tuple[int, int]
"""A plane, and a sample's place in each of its pixels."""


@dataclass(frozen=True)
class PixelLayout:
    """One pixel format whose samples take whole bytes, in planes of their own or pixel by pixel."""

    name: str
    """FFmpeg's."""
    bits: int
    """Bits per sample, 8 to 16."""
    samples: tuple[int, ...]
    """For each plane, samples in a pixel."""
    channels: tuple[Place, ...]
    """R', G', B'; or one of grey; or Y', Cb, Cr."""
    alpha: Place | None = None
    chroma: ChromaLayout | None = None
    """None for R'G'B' and grey."""

    @property
    def sample_bytes(self) -> int:
        """Bytes of one sample."""
        return 1 if self.bits == 8 else 2

    @property
    def is_swapped(self) -> bool:
        """Whether FFmpeg's frames have the larger byte of a sample first; codes in tensors have the machine's order."""
        return self.name.endswith("be")

    def shapes(self, width: int, height: int) -> tuple[tuple[int, int, int], ...]:
        """(height, width, samples) of every plane of a picture."""
        step_x, step_y = (self.chroma.step_x, self.chroma.step_y) if self.chroma else (1, 1)
        small = (-(-height // step_y), -(-width // step_x))
        coarse = {plane for plane, _ in self.channels[1:]} if self.chroma else ()
        return tuple(
            (*(small if plane in coarse else (height, width)), count) for plane, count in enumerate(self.samples)
        )

    def size_bytes(self, width: int, height: int) -> int:
        """Bytes of a picture."""
        return self.sample_bytes * sum(map(prod, self.shapes(width, height)))

    def planes(self, codes: torch.Tensor, width: int, height: int) -> list[torch.Tensor]:
        """Views (height, width, samples), uint8 or uint16, of a picture's bytes."""
        values = codes if self.bits == 8 else codes.view(torch.uint16)
        shapes = self.shapes(width, height)
        parts = values.split([prod(shape) for shape in shapes])
        return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]


@lru_cache
def layout_of(name: str, bits: int, *, is_centred: bool = False) -> PixelLayout | None:
    """Return the layout of FFmpeg's pixel format of that name and depth; None where samples lie in another way.

    is_centred: whether its chroma lies halfway between luma samples, where the name does not say so.
    """
    if match := YUV.fullmatch(name):
        step_x, step_y = CHROMA_STEPS[match[1]]
        alpha = (3, 0) if name.startswith("yuva") else None
        chroma = ChromaLayout(step_x, step_y, is_centred or name.startswith("yuvj"))
        return PixelLayout(name, bits, (1,) * (4 if alpha else 3), ((0, 0), (1, 0), (2, 0)), alpha, chroma)
    if GBR.fullmatch(name):
        alpha = (3, 0) if name.startswith("gbra") else None
        return PixelLayout(name, bits, (1,) * (4 if alpha else 3), ((2, 0), (0, 0), (1, 0)), alpha)
    if GREY.fullmatch(name):
        has_alpha = name.startswith("ya")
        return PixelLayout(name, bits, (2,) if has_alpha else (1,), ((0, 0),), (0, 1) if has_alpha else None)
    if match := PACKED.fullmatch(name):
        order = match[1]
        if match[2] == "64":
            order = {"rgb": "rgba", "bgr": "bgra"}.get(order, order)
        alpha = (0, order.index("a")) if "a" in order else None
        red, green, blue = ((0, order.index(channel)) for channel in "rgb")
        return PixelLayout(name, bits, (len(order),), (red, green, blue), alpha)
    return None
