"""Models of the public sizes that give pictures: for benchmarks from file to file, where a codec has its share.

Noise, which models with random weights give, takes an encoder several times as long as a filmed clip.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from ..checkpoint.detect_dit import POSITIVE_TEXT
from ..errors import InvalidArgumentError
from ..models.dit.config import DiTConfig
from ..models.vae.config import Shape, VAEConfig
from ..models.vae.model import VideoVAE
from .random_models import PUBLIC_TEXT_TOKENS, random_dit_weight

_CONSTANT = 256.0
"""The value of the tokens' channels that carry nothing: beside it, the signal hardly moves the head's norm."""
_CPU = torch.device("cpu")


def write_passing_dit(path: Path, config: DiTConfig) -> None:
    """A transformer that gives its condition back: a safetensors file in FP16, the same every time.

    Its blocks are random, and their gates zero, so they compute what trained ones do and change nothing. The first
    projection takes noise - condition, the velocity of the condition, through the tokens. Every number goes through
    many channels, in another size in each, since a token's channel has 16 bits. Raises InvalidArgumentError for
    tokens that have no room for it.
    """
    torch.manual_seed(0)
    passed = config.out_channels * config.patch_positions
    copies = config.width * 4 // 5 // passed
    if not copies:
        raise InvalidArgumentError(f"width: expected at least {passed * 5 // 4} channels, got {config.width}.")
    sizes = torch.linspace(1, 2, copies + 1)[:-1].repeat_interleave(passed)
    text = (PUBLIC_TEXT_TOKENS, config.text_width)
    shapes = {**config.tensor_shapes(), POSITIVE_TEXT: text}

    def weight(name: str) -> Tensor:
        shape = shapes[name]
        if name == POSITIVE_TEXT:
            return torch.randn(shape)
        if name.startswith("emb_in.proj_out") or name.endswith(("_gate", "_shift", "vid_out.proj.bias")):
            return torch.zeros(shape)
        if name.endswith("_scale") or name == "vid_out_norm.weight":
            return torch.ones(shape)
        if name == "vid_in.proj.weight":
            return _velocity_in(config, shape, sizes)
        if name == "vid_in.proj.bias":
            return torch.where(torch.arange(config.width) < len(sizes), 0.0, _CONSTANT)
        if name == "vid_out.proj.weight":
            # The norm of the 3b family divides by the root of the mean square, which the constant channels make.
            norm = _CONSTANT * (1 - len(sizes) / config.width) ** 0.5 if config.family == "3b" else 1.0
            mean = norm / sizes / copies * torch.eye(passed).repeat(1, copies)
            return torch.cat([mean, torch.zeros(passed, config.width - len(sizes))], dim=1)
        return random_dit_weight(config, name, shape, _CPU, torch.float32)

    _write(path, shapes, weight)


def _velocity_in(config: DiTConfig, shape: Shape, sizes: Tensor) -> Tensor:
    """Noise - condition of every position of a patch, copy by copy; the other channels take nothing."""
    channels = config.out_channels
    one = torch.zeros(config.patch_positions, channels, config.patch_positions, config.in_channels)
    for position in range(config.patch_positions):
        for channel in range(channels):
            one[position, channel, position, channel] = 1
            one[position, channel, position, channels + channel] = -1
    rows = one.flatten(2).flatten(0, 1)
    weight = torch.zeros(shape)
    weight[: len(sizes)] = rows.repeat(len(sizes) // len(rows), 1) * sizes[:, None]
    return weight


def write_widened_vae(path: Path, small: VideoVAE, config: VAEConfig) -> None:
    """A VAE of other widths that computes what `small` does: a safetensors file in FP16.

    Every channel of the small one stands side by side in as many copies as there is room for, which leaves the groups
    of the norms what they were; weights are divided by the copies that they sum over. Widths are multiples, and
    blocks keep their width only where the small one's do.
    """
    narrow, shapes = small.state_dict(), config.tensor_shapes()

    def weight(name: str) -> Tensor:
        shape = shapes[name]
        tensor: Tensor = (narrow[name] if name in narrow else _unchanged(narrow, name)).float()
        # The upsamplers' phases lie outside the channels, of which each is repeated.
        copies = [wide // here for wide, here in zip(shape, tensor.shape, strict=True)]
        for axis in range(min(len(shape), 2)):
            tensor = tensor.repeat_interleave(copies[axis], dim=axis)
        if len(shape) > 1:
            tensor = tensor / copies[1]
        if "to_q" in name:
            # Attention divides the sum over all copies by the root of their number once more.
            tensor = tensor / copies[0] ** 0.5
        return tensor

    _write(path, shapes, weight)


def _unchanged(narrow: Mapping[str, Tensor], name: str) -> Tensor:
    """The shortcut of a block that has none, because its width stays."""
    channels = len(narrow[name.split("conv_shortcut")[0] + "norm1.bias"])
    return torch.eye(channels)[:, :, None, None, None] if name.endswith("weight") else torch.zeros(channels)


def _write(path: Path, shapes: Mapping[str, Shape], weight: Callable[[str], Tensor]) -> None:
    """Tensor by tensor, so that a large model needs no memory."""
    header, end = {}, 0
    for name, shape in shapes.items():
        begin, end = end, end + 2 * prod(shape)
        header[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in shapes:
            file.write(weight(name).half().contiguous().numpy().tobytes())
