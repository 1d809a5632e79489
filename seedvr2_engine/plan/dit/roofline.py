"""How long one run of the transformer takes on a GPU, from its rates and its memory bandwidth on paper.

As `plan.roofline` does it for the VAE: everything takes the longer of its arithmetic and its bytes.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch

from ...device import DeviceSpec
from ...errors import InvalidArgumentError
from ...kernels.architectures import ARCHITECTURES
from ...kernels.architectures.record import Efficiency
from ...kernels.configs import MatrixFormat
from ...models.dit.config import DiTConfig
from ...models.dit.flop import velocity_flop
from ...models.dit.geometry import Execution, plan_geometry
from ..roofline import matrix_rate
from .memory import STORED_BYTES, block_bytes

TEXT_TOKENS = 58
"""Of the public text embedding."""


class Chunk(NamedTuple):
    """What passes the transformer at a time."""

    frames: int
    """Latent frames."""
    height: int
    """Rows of latents, even."""
    width: int
    """Columns of latents, even."""
    text_tokens: int = TEXT_TOKENS
    """Tokens of text."""


@dataclass(frozen=True)
class TransformerTime:
    """The time of one velocity in one number format."""

    format: MatrixFormat
    """Of the operands of the blocks' matrix products."""
    products_ms: float
    """Matrix products."""
    attention_ms: float
    """Attention inside windows, in 16 bits."""
    passes_ms: float
    """What stands between the products."""
    host_ms: float
    """Copies of the blocks from the host, beside everything else; 0 where they lie on the GPU."""

    @property
    def ms(self) -> float:
        """All of it."""
        return max(self.products_ms + self.attention_ms + self.passes_ms, self.host_ms)


def transformer_formats(sm: str) -> tuple[MatrixFormat, ...]:
    """The formats of the transformer's products on an architecture, the one that `auto` tries first; BF16 is last."""
    architecture = ARCHITECTURES.get(sm)
    return () if architecture is None else (*architecture.matrices, "bf16")


def choose_transformer_format(wanted: str, device: DeviceSpec) -> MatrixFormat:
    """The format that a precision means on a GPU, if weights bear it: `auto` is the first in 8 bits, as few bear 4.

    Raises InvalidArgumentError for a format that is not computed there.
    """
    formats = transformer_formats(device.sm)
    if not formats:
        raise InvalidArgumentError(f"dit precision: expected a GPU that is known, got {device.name} ({device.sm}).")
    for format in (*formats, "fp16"):
        if wanted == format or (wanted == "auto" and format != "nvfp4"):
            return format
    raise InvalidArgumentError(
        f"dit precision: {wanted} was asked for, but {device.name} ({device.sm}) computes {', '.join(formats)}; "
        "choose one of these or auto."
    )


def transformer_time(
    config: DiTConfig, chunk: Chunk, format: MatrixFormat, device: DeviceSpec, *, offload: bool = False
) -> TransformerTime | None:
    """The time of a chunk on `device`; None where its rates or its bandwidth are not known.

    offload: the blocks come from the host, one while the one before computes.
    """
    if not device.bandwidth_bytes_per_s or not device.tflops.bf16:
        return None
    use = ARCHITECTURES[device.sm].efficiency
    bandwidth = device.bandwidth_bytes_per_s * use.bandwidth
    shape = (1, chunk.frames, chunk.height, chunk.width)
    geometry = plan_geometry(config, shape, chunk.text_tokens, Execution(torch.device("cpu"), "sdpa"))
    rows = len(geometry.restore) + chunk.text_tokens
    rate = _product_rate(format, device, use)
    launch_ms = use.launch_us * 1e-3
    products_ms = sum(
        max(2e3 * rows * depth * columns / rate, 1e3 * size / bandwidth, launch_ms)
        for depth, columns, size in _products(config, rows, format)
    )
    attention_flop = velocity_flop(config, geometry).attention / config.layers
    attention_rate = device.tflops.bf16 * 1e12 * use.windows
    attention_ms = max(1e3 * attention_flop / attention_rate, 8e3 * rows * config.attention_width / bandwidth)
    passes_ms = sum(max(1e3 * size / bandwidth, launch_ms) for size in _passes(config, rows, format))
    host_ms = config.layers * block_bytes(config, format) / use.host_bytes_per_s * 1e3 if offload else 0.0
    layers = config.layers
    return TransformerTime(format, layers * products_ms, layers * attention_ms, layers * passes_ms, host_ms)


def _product_rate(format: MatrixFormat, device: DeviceSpec, use: Efficiency) -> float:
    share = use.products.get(format)
    whole = matrix_rate(format, device, use)
    return whole if share is None else whole / use.share(format) * share


def _products(config: DiTConfig, rows: int, format: MatrixFormat) -> Iterator[tuple[int, int, float]]:
    """Depth, columns and bytes of every product of a layer; video and text have the same sizes."""
    stored = STORED_BYTES[format]
    width, inner, mlp = config.width, config.attention_width, config.mlp_width
    wide = 2 * mlp if config.family == "3b" else mlp
    for depth, columns in ((width, 3 * inner), (inner, width), (width, wide), (mlp, width)):
        yield depth, columns, stored * depth * (rows + columns) + 2.0 * rows * columns


def _passes(config: DiTConfig, rows: int, format: MatrixFormat) -> Iterator[float]:
    """Bytes of every pass between a layer's products: tokens and changes have 16 bits, what a product takes its own."""
    stored = STORED_BYTES[format]
    width, inner, mlp = config.width, config.attention_width, config.mlp_width
    for _ in range(2):
        yield rows * width * (6 + stored)
    yield rows * inner * 12
    if stored < 2:
        yield rows * inner * (2 + stored)
    if config.family == "3b":
        yield rows * mlp * (4 + stored)
    elif stored < 2:
        yield rows * mlp * (2 + stored)
