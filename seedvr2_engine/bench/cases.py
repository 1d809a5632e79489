"""What is measured: sizes, number formats, and what stands in for a checkpoint and a clip."""

import re
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..errors import InvalidArgumentError
from ..models.vae.config import VAEConfig
from ..models.vae.model import VideoVAE
from ..pipeline.chunks import latent_count, padded_count
from ..plan import VAEShape
from ..plan.execution_plan import LATENT_CELL_PX, Part

CHECKED_FRAMES = 5
"""Frames that are compared with FP32: the first of a clip, and one later step."""


@dataclass(frozen=True)
class Case:
    """One piece of work."""

    part: Part
    """Direction."""
    width_px: int
    """Columns of the picture, a multiple of 8."""
    height_px: int
    """Rows of the picture, a multiple of 8."""
    frames: int
    """Picture frames, 4n+1."""

    @property
    def name(self) -> str:
        """As tables and plots call it."""
        return f"{self.part} {self.width_px}x{self.height_px}x{self.frames}"

    @property
    def shape(self) -> VAEShape:
        """As plans call it."""
        return VAEShape(self.part, self.height_px, self.width_px, self.frames)

    def halved(self) -> "Case":
        """Half the rows and columns, in multiples of 8."""
        return replace(self, width_px=_halved(self.width_px), height_px=_halved(self.height_px))

    def clip(self, frames: int, device: torch.device) -> Tensor:
        """Waves and noise, (1, 3, T, H, W) in [-1, 1], FP32."""
        generator = torch.Generator(device).manual_seed(0)
        rows = torch.linspace(0, 40, self.height_px, device=device)[:, None]
        columns = torch.linspace(0, 60, self.width_px, device=device)[None, :]
        noise = torch.rand(3, 1, self.height_px, self.width_px, generator=generator, device=device) - 0.5
        waves = [torch.sin(rows + (c + 1) * columns + 0.3 * t) for c in range(3) for t in range(frames)]
        clip = torch.stack(waves).view(3, frames, self.height_px, self.width_px)
        return (0.7 * clip + 0.5 * noise)[None]

    def input(self, frames: int, config: VAEConfig, device: torch.device) -> Tensor:
        """A clip (1, 3, T, H, W) for an encode or a latent (1, 16, t, h, w) for a decode, FP32, always the same."""
        if self.part == "encode":
            return self.clip(frames, device)
        generator = torch.Generator(device).manual_seed(0)
        cell = config.spatial_compression
        size = (1, config.latent_channels, latent_count(frames))
        return torch.randn(
            *size, self.height_px // cell, self.width_px // cell, generator=generator, device=generator.device
        )


def _halved(edge_px: int) -> int:
    return edge_px // (2 * LATENT_CELL_PX) * LATENT_CELL_PX


DEFAULT_CASES = (
    Case("decode", 1280, 720, 21),
    Case("decode", 1920, 1088, 21),
    Case("decode", 3840, 2160, 1),
    Case("encode", 1280, 720, 21),
)


def parse_case(text: str) -> Case:
    """`decode:1280x720x21` or `1280x720x21` (a decode); raises InvalidArgumentError for anything else."""
    found = re.fullmatch(r"(?:(encode|decode):)?(\d+)x(\d+)x(\d+)", text)
    if found is None:
        raise InvalidArgumentError(f"size: expected [decode:|encode:]WIDTHxHEIGHTxFRAMES, got {text!r}.")
    part: Part = "encode" if found[1] == "encode" else "decode"
    width, height, frames = (int(number) for number in found.groups()[1:])
    if width % LATENT_CELL_PX or height % LATENT_CELL_PX or not width or not height or frames != padded_count(frames):
        raise InvalidArgumentError(
            f"size: expected multiples of {LATENT_CELL_PX} px and 4n+1 frames (1, 5, 9, ...), got {text!r}."
        )
    return Case(part, width, height, frames)


def random_vae(config: VAEConfig, device: torch.device) -> VideoVAE:
    """A VAE of random weights, FP32: each layer keeps the size of its input, and resnets add a little to it.

    As in a trained network, the norms' inputs grow along the way and no layer is lost in another's rounding.
    """
    with torch.device("meta"):
        vae = VideoVAE(config)
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, shape in config.tensor_shapes().items():
        values = torch.randn(shape, generator=generator)
        if len(shape) == 1:
            norm = ".norm" in name or "_norm" in name
            state[name] = 1 + 0.1 * values if norm and name.endswith("weight") else 0.02 * values
        else:
            gain = 0.3 if ".conv2." in name or ".to_out." in name or name.startswith("decoder.conv_out") else 1.0
            state[name] = values * gain * (values[0].numel() ** -0.5)
    vae.load_state_dict(state, assign=True)
    return vae.requires_grad_(False).eval().to(device)
